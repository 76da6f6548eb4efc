"""What the TFLite target writes: the graph, its integers, its metadata, and that it can be run without us."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import io
import json
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab import imaging
from edge_deeplab.errors import UserError
from edge_deeplab.export import Options, export_model, to_tflite
from edge_deeplab.export.calibration import packaged
from edge_deeplab.export.verify import sample_views
from edge_deeplab.imaging import Frame
from edge_deeplab.metrics import agreement
from edge_deeplab.models.checkpoint import load_checkpoint, save_checkpoint
from edge_deeplab.models.variants import variant
from edge_deeplab.runtimes import open_model, tflite_file
from edge_deeplab.runtimes.on_tflite import TfliteRuntime
from edge_deeplab.spec import METADATA_KEY, Head, InputContract, InputDType, Quantization
from tests.runtimes.artefacts import (
    RED_GREEN_BLUE,
    SIZE,
    nano_tflite,
    picture,
    random_nano,
    scratch,
    toy_contract,
)

NEEDED = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(
        f"{', '.join(MISSING)} not installed: pip install 'edge-deeplab[export-tflite]'",
        allow_module_level=True,
    )

from edge_deeplab.export import ranges, tflite_ranges  # noqa: E402
from edge_deeplab.export.tflite_model import TfliteModel  # noqa: E402

HEADS: list[Head] = ["logits", "logits-full", "probability", "classmap"]
PRECISIONS = ["fp32", "fp16", "int8-dynamic", "int8"]
GRAPH_ONLY = ("QUANTIZE", "DEQUANTIZE")


def views() -> list[Frame]:
    return [read()[0] for _, read in sample_views()]


def operators(path: Path) -> Counter[str]:
    model = TfliteModel.read(path)
    return Counter(model.operator(node) for node in model.graph.operators)


def written(folder: Path, checkpoint: Path, name: str, **options: Any) -> Path:
    """A file with other options than ``nano_tflite`` has, from the conversions it left."""
    model, contract = load_checkpoint(checkpoint)
    chosen = Options(**{"calibration": packaged(16), "scratch": scratch(folder), **options})
    contract = contract.replace(precision=chosen.precision, head=chosen.head)
    path = folder / f"{name}.tflite"
    to_tflite.write(model, contract, chosen, path)
    return path


def opened(path: Path) -> TfliteRuntime:
    model = open_model(path, threads=1)
    assert isinstance(model, TfliteRuntime)
    return model


# -- the graph -----------------------------------------------------------------------------------


def test_convolutions_and_little_else(folder: Path) -> None:
    """Channels last throughout, batch norm folded, padding and dilation the convolutions' own."""
    found = operators(nano_tflite(folder))
    assert set(found) == {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "CONCATENATION", "MEAN", "RESIZE_BILINEAR"}
    assert found["RESIZE_BILINEAR"] == 2  # image pooling, decoder
    model = TfliteModel.read(nano_tflite(folder))
    rates = Counter(int(n.builtinOptions.dilationHFactor) for n in model.convolutions())
    assert rates[2] == 3  # blocks 15 to 17 at output stride 16
    same = model.schema.Padding.SAME
    strided = [n for n in model.convolutions() if n.builtinOptions.strideH == 2]
    assert [n.builtinOptions.padding for n in strided] == [same] * 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_xnnpack_runs_every_node(folder: Path, precision: str) -> None:
    with opened(nano_tflite(folder, precision)) as model:
        assert model.delegation.left == {}
        assert model.delegation.partitions == 1


def test_layers_have_the_networks_names(folder: Path, checkpoint: Path) -> None:
    from edge_deeplab.export.fold import fold, layers

    names = [layer.name for layer in layers(fold(load_checkpoint(checkpoint)[0]))]
    for precision in ("fp32", "int8"):
        model = TfliteModel.read(nano_tflite(folder, precision))
        found = [model.graph.tensors[int(n.outputs[0])].name.decode() for n in model.convolutions()]
        assert sorted(found[:-1]) == sorted(set(names) - {"classifier"})
        assert found[-1] in ("logits", "classifier")  # the output has the file's own name


def test_every_constant_is_inside_the_checked_part_and_aligned(folder: Path) -> None:
    """Weights behind the tables would be missed by readers, and cut off without anybody noticing."""
    data = nano_tflite(folder, "int8").read_bytes()
    model = TfliteModel(data)
    raw = model.schema.Model.GetRootAsModel(data, 0)
    for index in range(raw.BuffersLength()):
        buffer = raw.Buffers(index)
        assert buffer.Offset() == buffer.Size() == 0
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0


# -- the same answers as PyTorch -----------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_heads_agree_with_pytorch(folder: Path, checkpoint: Path, head: Head) -> None:
    path = written(folder, checkpoint, f"nano-{head}", head=head)
    with open_model(checkpoint) as reference, open_model(path) as model:
        assert model.contract.head == head
        for view in views():
            frame = imaging.resize_frame(view, *SIZE)
            labels = model.segment(frame).labels
            # A resized probability crosses 0.5 elsewhere than a resized logit 0, often so with random
            # weights: there the values are compared, below.
            if head != "probability":
                assert agreement(labels, reference.segment(frame).labels) >= 0.9995
        if head == "probability":
            tensor = imaging.preprocess(views()[0], model.contract)
            logits = reference.infer(np.moveaxis(tensor, -1, 1))
            chance = 1 / (1 + np.exp(-np.moveaxis(logits, 1, -1)))
            np.testing.assert_allclose(model.infer(tensor), chance, atol=1e-3)


def test_half_precision_casts_weights_and_biases(folder: Path) -> None:
    whole, half = nano_tflite(folder), nano_tflite(folder, "fp16")
    assert half.stat().st_size < 0.56 * whole.stat().st_size
    model = TfliteModel.read(half)
    kinds, makers = model.schema.TensorType, model.makers()
    for node in model.convolutions():
        for index in node.inputs[1:3]:
            (source,) = makers[int(index)].inputs
            assert model.graph.tensors[int(source)].type == kinds.FLOAT16
    with open_model(whole) as a, open_model(half) as b:
        for view in views():
            assert agreement(a.segment(view).labels, b.segment(view).labels) > 0.99


def test_dynamic_quantises_what_xnnpack_has_kernels_for(folder: Path) -> None:
    model = TfliteModel.read(nano_tflite(folder, "int8-dynamic"))
    kinds = model.schema.TensorType
    weights = Counter(
        (model.operator(n), model.graph.tensors[int(n.inputs[1])].type) for n in model.convolutions()
    )
    assert set(weights) == {
        ("CONV_2D", kinds.INT8),
        ("DEPTHWISE_CONV_2D", kinds.FLOAT32),
    }


# -- integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_integers_from_end_to_end(folder: Path, checkpoint: Path, dtype: Any) -> None:
    path = nano_tflite(folder, "int8", dtype)
    found = operators(path)
    wanted = {
        "float32": {"QUANTIZE": 1, "DEQUANTIZE": 1},
        "uint8": {"QUANTIZE": 2},  # uint8 to int8 and back: a change of sign
        "int8": {},
    }[dtype]
    assert {name: found[name] for name in GRAPH_ONLY if found[name]} == wanted
    assert to_tflite.inspect(path).islands == {}
    with opened(path) as model:
        left = {"QUANTIZE": 2} if dtype == "uint8" else {}
        assert model.delegation.left == left
        assert (model.contract.dtype, model.contract.layout) == (dtype, "NHWC")
        assert model.contract.precision == "int8"
        quantization = model.contract.quantization
        assert quantization is not None
        assert (quantization.scheme, quantization.pictures, quantization.method) == ("s8s8", 16, "minmax")
        with open_model(checkpoint) as reference:
            scores = [agreement(model.segment(v).labels, reference.segment(v).labels) for v in views()]
    assert np.mean(scores) > 0.8  # a random network is undecided nearly everywhere


def test_the_three_types_of_input_give_the_same_labels(folder: Path) -> None:
    models = [opened(nano_tflite(folder, "int8", dtype)) for dtype in ("float32", "uint8", "int8")]  # type: ignore[arg-type]
    for view in views():
        first, *others = (model.segment(view) for model in models)
        for other in others:
            np.testing.assert_array_equal(first.labels, other.labels)
    for model in models:
        model.close()


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 128), ("int8", 0)])
def test_the_input_is_the_pixels(folder: Path, dtype: Any, zero: int) -> None:
    model = TfliteModel.read(nano_tflite(folder, "int8", dtype))
    quantization = model.graph.tensors[int(model.graph.inputs[0])].quantization
    assert quantization.scale.tolist() == [1 / 128]
    assert quantization.zeroPoint.tolist() == [zero]


def test_weights_have_a_scale_per_channel(folder: Path) -> None:
    model = TfliteModel.read(nano_tflite(folder, "int8"))
    for node in model.convolutions():
        tensor = model.graph.tensors[int(node.inputs[1])]
        channels = tensor.shape[3] if model.operator(node) == "DEPTHWISE_CONV_2D" else tensor.shape[0]
        assert len(tensor.quantization.scale) == channels
        assert not tensor.quantization.zeroPoint.any()


def test_what_is_only_copied_keeps_its_scale(folder: Path) -> None:
    """No conversion between resize and concatenation: it cost a fifth of the time."""
    model = TfliteModel.read(nano_tflite(folder, "int8", "int8"))
    for node in model.graph.operators:
        if model.operator(node) in tflite_ranges.SAME_RANGE:
            quantised = [model.graph.tensors[int(i)].quantization for i in (*node.inputs, *node.outputs)]
            scales = {float(q.scale[0]) for q in quantised if q is not None and q.scale is not None}
            assert len(scales) == 1


def test_a_layer_kept_in_float_is_an_island(folder: Path, checkpoint: Path) -> None:
    layer = "decoder.refine.0.1"
    path = written(folder, checkpoint, "island", precision="int8", keep_float=(layer,))
    assert to_tflite.inspect(path).islands == {"CONV_2D": 1}
    with opened(path) as model:
        assert model.contract.quantization is not None
        assert model.contract.quantization.float_layers == (layer,)
        assert model.delegation.left == {}
    file = TfliteModel.read(path)
    floats = [
        file.graph.tensors[int(n.outputs[0])].name.decode()
        for n in file.convolutions()
        if file.graph.tensors[int(n.inputs[1])].type == file.schema.TensorType.FLOAT32
    ]
    assert floats == [layer]


def test_ranges_are_measured_on_every_tensor(folder: Path, checkpoint: Path) -> None:
    contract = load_checkpoint(checkpoint)[1].replace(layout="NHWC")
    found = ranges.measure(
        tflite_ranges.all_tensors(nano_tflite(folder)), packaged(16).tensors(contract), "minmax"
    )
    model = TfliteModel.read(nano_tflite(folder))
    computed = {model.graph.tensors[index].name.decode() for index in model.makers()}
    assert found.keys() == {"image", *computed}
    assert found["backbone.stem"] == [0, 6]
    assert -1 <= found["image"][0] < 0 < found["image"][1] <= 127 / 128


def test_ranges_are_cached_with_the_question(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights, pictures and method are not measured again; another method is."""
    first = written(folder, checkpoint, "first", precision="int8").read_bytes()

    def stop(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(ranges, "measure", stop)
    assert written(folder, checkpoint, "second", precision="int8").read_bytes() == first
    with pytest.raises(AssertionError, match="measured again"):
        pictures = packaged(16, method="percentile")
        written(folder, checkpoint, "third", precision="int8", calibration=pictures)


def test_traces_are_real_numbers_by_layer(folder: Path, checkpoint: Path) -> None:
    contract = load_checkpoint(checkpoint)[1].replace(layout="NHWC")
    tensor = imaging.preprocess(views()[0], contract)
    names = ("backbone.stem", "backbone.blocks.6.depthwise", "not there")
    (float_values,) = to_tflite.trace(nano_tflite(folder), names, [tensor])
    (int_values,) = to_tflite.trace(nano_tflite(folder, "int8"), names, [tensor])
    assert list(float_values) == list(int_values) == list(names[:2])
    for name, value in float_values.items():
        assert value.shape == int_values[name].shape
        assert value.shape[1] > 8  # channels first, as PyTorch's
        noise = np.square(value - int_values[name]).sum() / np.square(value).sum()
        assert noise < 0.05


def test_benchmarks_time_the_graph_that_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/random_tflite.py has the exporter's operators, shapes, strides, rates and activations."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    random_tflite = importlib.import_module("random_tflite")
    path = nano_tflite(folder, "int8", "int8")
    with open_model(path) as model:
        data = random_tflite.deeplab(variant("nano").architecture, model.contract)
    random = folder / "random.tflite"
    random.write_bytes(data)
    with opened(random) as model:
        assert model.delegation.left == {}
        assert model.segment(picture(40, 30)).labels.shape == (40, 30)
    assert _nodes(random) == _nodes(path)


def _nodes(path: Path) -> Counter[tuple[Any, ...]]:
    """Operator, shape of its output, and the options that decide what it costs."""
    model = TfliteModel.read(path)
    options = ("strideH", "dilationHFactor", "fusedActivationFunction", "padding", "axis")
    return Counter(
        (
            model.operator(node),
            tuple(model.graph.tensors[int(node.outputs[0])].shape.tolist()),
            *(getattr(node.builtinOptions, name, None) for name in options),
        )
        for node in model.graph.operators
    )


# -- several classes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four(folder: Path) -> Path:
    """A random network with four classes, its logits spread around 0."""
    import torch

    contract = toy_contract(name="four", variant="nano", classes=RED_GREEN_BLUE)
    model: Any = random_nano(contract)
    tensors = np.concatenate([imaging.preprocess(v, contract) for v in views()])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        logits = model.train()(torch.from_numpy(tensors))
        model.eval().classifier.weight /= logits.std()
    path = folder / "four.safetensors"
    save_checkpoint(path, model, contract)
    return path


def test_four_classes_as_a_class_map(folder: Path, four: Path) -> None:
    with open_model(four) as reference:
        wanted = [reference.segment(imaging.resize_frame(v, *SIZE)).labels for v in views()]
    # Random weights leave little between four planes, and INT8 some of it: more than by chance.
    for precision, least in (("fp32", 0.9995), ("int8", 0.35)):
        path = written(folder, four, f"four-{precision}", precision=precision, head="classmap")
        assert operators(path)["ARG_MAX"] == 1
        with open_model(path) as model:
            found = [model.segment(imaging.resize_frame(v, *SIZE)).labels for v in views()]
            assert model.segment(picture(30, 40)).labels.dtype == np.uint8
        same = [agreement(a, b) for a, b in zip(found, wanted, strict=True)]
        assert np.mean(same) >= least
        assert len(np.unique(found)) > 1


GRAPHS: list[tuple[str, InputDType]] = [
    ("fp32", "float32"), ("int8", "float32"), ("int8", "int8"), ("int8", "uint8"),
]  # fmt: skip

OUTSIDE: dict[tuple[Head, str], tuple[dict[str, int], ...]] = {
    ("logits", "two"): ({}, {}, {}, {"QUANTIZE": 2}),
    ("logits", "four"): ({}, {}, {}, {"QUANTIZE": 2}),
    ("logits-full", "two"): ({}, {}, {}, {"QUANTIZE": 2}),
    ("logits-full", "four"): ({}, {}, {}, {"QUANTIZE": 2}),
    ("probability", "two"): ({}, {}, {}, {"QUANTIZE": 2}),
    ("probability", "four"): ({}, {"SOFTMAX": 1}, {"SOFTMAX": 1}, {"SOFTMAX": 1, "QUANTIZE": 2}),
    ("classmap", "two"): (*[{"GREATER_EQUAL": 1, "CAST": 1}] * 3,
                          {"GREATER_EQUAL": 1, "CAST": 1, "QUANTIZE": 1}),
    ("classmap", "four"): (*[{"ARG_MAX": 1, "CAST": 1}] * 3, {"ARG_MAX": 1, "CAST": 1, "QUANTIZE": 1}),
}  # fmt: skip
"""(head, classes) -> what XNNPACK leaves of each of ``GRAPHS``: the exceptions that docs/export.md names."""


@pytest.mark.parametrize(("head", "classes"), OUTSIDE, ids=lambda value: str(value))
def test_what_xnnpack_leaves_is_what_the_documentation_says(
    folder: Path, checkpoint: Path, four: Path, head: Head, classes: str
) -> None:
    model = {"two": checkpoint, "four": four}[classes]
    found = []
    for precision, dtype in GRAPHS:
        name = f"outside-{head}-{classes}-{precision}-{dtype}"
        path = written(folder, model, name, precision=precision, head=head, input_dtype=dtype)
        with opened(path) as runtime:
            found.append(runtime.delegation.left)
    assert tuple(found) == OUTSIDE[head, classes]


def test_an_integer_class_map_is_compared_as_integers(folder: Path, four: Path) -> None:
    """ARG_MAX reads int8: no float copy of all planes."""
    path = written(folder, four, "four-int8", precision="int8", head="classmap", input_dtype="uint8")
    model = TfliteModel.read(path)
    (argmax,) = (n for n in model.graph.operators if model.operator(n) == "ARG_MAX")
    assert model.graph.tensors[int(argmax.inputs[0])].type == model.schema.TensorType.INT8
    assert operators(path)["DEQUANTIZE"] == 0


# -- without any of our code ---------------------------------------------------------------------


def test_plain_litert_gives_what_the_documentation_says(folder: Path, checkpoint: Path) -> None:
    """docs/export.md: camera bytes in, RGB, channels last; (q - zero point) * scale is the logit."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(nano_tflite(folder, "int8", "uint8")))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    (given,), (answered,) = runner.get_input_details().values(), runner.get_output_details().values()
    assert (given["dtype"], given["shape"].tolist()) == (np.uint8, [1, *SIZE, 3])
    assert given["quantization"] == (1 / 128, 128)
    assert (answered["dtype"], answered["shape"].tolist()) == (np.uint8, [1, SIZE[0] // 4, SIZE[1] // 4, 1])
    scale, zero_point = answered["quantization"]
    same = []
    for view in views():
        picture = cv2.resize(view, (SIZE[1], SIZE[0]), interpolation=cv2.INTER_AREA)
        answer = runner(image=picture[None, ..., ::-1])["logits"]
        person = (answer[0, ..., 0].astype(np.float32) - zero_point) * scale >= 0
        with open_model(checkpoint) as model:
            wanted = model.infer(imaging.preprocess(picture, model.contract))[0, 0] >= 0  # type: ignore[arg-type]
        same.append(np.mean(person == wanted))
    assert np.mean(same) > 0.9


# -- what the file says of itself ----------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_contract_is_in_the_file(folder: Path, checkpoint: Path, precision: str) -> None:
    path = nano_tflite(folder, precision)
    contract = InputContract.from_json(
        tflite_file.metadata(path.read_bytes(), source="x")[METADATA_KEY].decode()
    )
    before = load_checkpoint(checkpoint)[1]
    wanted = before.replace(layout="NHWC", precision=precision)
    assert dataclasses.replace(contract, quantization=None) == wanted
    with open_model(path) as model:
        assert model.contract == contract


def test_dynamic_integers_say_that_nothing_was_calibrated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_deeplab.cli import main

    path = nano_tflite(folder, "int8-dynamic")
    with open_model(path) as model:
        assert model.contract.quantization == Quantization("w8", "dynamic", 0, "", "")
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "integers        w8, activations scaled as they come, no calibration\n" in out
    assert "kept in float" not in out


def test_labels_are_packed_as_a_zip_archive(folder: Path) -> None:
    path = nano_tflite(folder, "int8")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().split() == ["background", "person"]


def test_the_standard_metadata(folder: Path, four: Path) -> None:
    """Read with a few lines of our own; the slots are those of metadata_schema.fbs."""
    path = written(folder, four, "four-int8", precision="int8", head="classmap", input_dtype="uint8")
    data = tflite_file.metadata(path.read_bytes(), source="x")["TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    file = tflite_file._File(data)
    model = file.offset(0)
    assert file.blob(model, 0) == b"four"
    (subgraph,) = file.tables(model, 3)
    (given,), (answered,) = file.tables(subgraph, 2), file.tables(subgraph, 3)
    assert (file.blob(given, 0), file.blob(answered, 0)) == (b"image", b"labels")
    (unit,) = file.tables(given, 4)
    options = file.offset(file.field(unit, 1) or 0)
    for slot in (0, 1):
        start = file.offset(file.field(options, slot) or 0)
        assert struct.unpack_from("<I3f", data, start) == (3, 128, 128, 128)
    (labels,) = file.tables(answered, 6)
    assert file.blob(labels, 0) == b"labels.txt"
    assert file.number(labels, 2, "<b") == 3  # TENSOR_VALUE_LABELS


def test_mediapipe_is_told_what_makes_probabilities_of_the_logits(folder: Path) -> None:
    """Its ImageSegmenter looks for this part; without it, it takes logits for probabilities."""
    data = tflite_file.metadata(nano_tflite(folder, "int8").read_bytes(), source="x")["TFLITE_METADATA"]
    file = tflite_file._File(data)
    (subgraph,) = file.tables(file.offset(0), 3)
    (custom,) = file.tables(subgraph, 9)
    assert file.blob(custom, 0) == b"SEGMENTER_METADATA"
    inner = tflite_file._File(file.blob(custom, 1))
    assert inner.data[4:8] == b"V001"
    assert inner.number(inner.offset(0), 0, "<b") == 1  # SIGMOID


def test_signature_and_tensors_have_names(folder: Path) -> None:
    model = TfliteModel.read(nano_tflite(folder, "int8", "uint8"))
    (signature,) = model.model.signatureDefs
    assert [signature.inputs[0].name, signature.outputs[0].name] == [b"image", b"logits"]
    assert model.graph.tensors[int(model.graph.inputs[0])].name == b"image"
    assert b"random nano" in model.model.description


def test_the_same_export_gives_the_same_bytes(folder: Path, checkpoint: Path) -> None:
    again = written(folder, checkpoint, "again", precision="int8", input_dtype="uint8")
    assert again.read_bytes() == nano_tflite(folder, "int8", "uint8").read_bytes()


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dynamic": ("size",)}, "TFLite files have a fixed input; leave --dynamic away"),
        ({"input_dtype": "uint8"}, "--io uint8 is for --int8"),
        ({"precision": "fp16", "input_dtype": "int8"}, "--io int8 is for --int8"),
        ({"precision": "int8"}, "INT8 needs calibration pictures"),
        ({"layout": "NCHW"}, "has no --layout NCHW; it has: NHWC"),
        ({"precision": "int4"}, "has no int4; it has: fp32, fp16, int8, int8-dynamic"),
    ],
)
def test_what_tflite_does_not_have(checkpoint: Path, tmp_path: Path, options: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        export_model(str(checkpoint), "tflite", tmp_path / "x.tflite", Options(**options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"mean": (128.0, 128.0, 120.0)}, {"std": (1.0, 2.0, 3.0)}, {"mean": (127.5,) * 3}]
)
def test_a_scaling_that_integers_cannot_follow(checkpoint: Path, change: Any) -> None:
    contract = load_checkpoint(checkpoint)[1].replace(**change)
    with pytest.raises(UserError, match="INT8 needs one mean, a whole number, and one std"):
        tflite_ranges.input_range(contract)


def test_an_interrupted_export_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_deeplab.export import tflite_network

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tflite_network, "convert", stop)
    with pytest.raises(KeyboardInterrupt):
        export_model(str(checkpoint), "tflite", tmp_path / "new" / "x.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_changed_a_weight_is_noticed(folder: Path, checkpoint: Path) -> None:
    from edge_deeplab.export.fold import fold, layers

    found = layers(fold(load_checkpoint(checkpoint)[0]))
    with __import__("torch").no_grad():
        found[5].convolution.weight[0, 0, 0, 0] += 1
    with pytest.raises(RuntimeError, match="changed the weights"):
        to_tflite._name_layers(
            TfliteModel.read(nano_tflite(folder)), [(layer.name, layer.convolution) for layer in found]
        )


def test_the_converter_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    import os
    import warnings

    from edge_deeplab.export.tflite_network import quiet

    with quiet():
        print("chatter")
        os.write(2, b"chatter of C++\n")
        warnings.warn("chatter", stacklevel=1)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError, match="broken"), quiet():
        os.write(2, b"why it broke\n")
        raise ValueError("broken")
    assert capfd.readouterr().err == "why it broke\n"


def test_the_report(checkpoint: Path, tmp_path: Path) -> None:
    """The whole way once: converted, quantised, opened with its runtime, verified."""
    path = tmp_path / "x.tflite"
    options = Options(
        precision="int8", input_dtype="uint8", calibration=packaged(16), force=True, remedies=False
    )
    report = export_model(str(checkpoint), "tflite", path, options)
    record = json.loads(path.with_name("x.tflite.report.json").read_text())
    assert record["inspection"]["ops"] == dict(operators(path))
    assert record["inspection"]["islands"] == {}
    assert record["versions"]["ai-edge-litert"]
    assert report.agreement > 0.8  # as above
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tflite", "x.tflite.report.json"]
    with io.BytesIO(path.read_bytes()) as file, zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["labels.txt"]
