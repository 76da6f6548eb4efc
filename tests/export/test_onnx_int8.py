"""INT8 and FP16 ONNX of a trained model: the graph, the numbers, and the file without any of our code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_deeplab.export import Options, onnx_int8, to_onnx
from edge_deeplab.export.calibration import packaged
from edge_deeplab.export.fold import fold, layers
from edge_deeplab.export.heads import with_head
from edge_deeplab.export.sample import views
from edge_deeplab.models.checkpoint import load_checkpoint
from edge_deeplab.runtimes import open_model
from edge_deeplab.runtimes.on_torch import TorchRuntime
from edge_deeplab.spec import Head
from edge_deeplab.zoo import find

SIZE = (96, 128)

HEADS: tuple[Head, ...] = ("logits", "logits-full", "classmap", "probability")


class Maker:
    """``portrait`` at a small size as ONNX; every head is traced once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model, contract = load_checkpoint(find("portrait", prefer=(".safetensors",)))
        self.contract = contract.replace(height=SIZE[0], width=SIZE[1])
        self.calibration = packaged(16)
        self.made: dict[Options, Path] = {}

    def __call__(self, precision: str, head: Head = "logits", **changes: Any) -> Path:
        scratch = self.folder / head
        scratch.mkdir(exist_ok=True)
        options = Options(
            head=head, precision=precision, calibration=self.calibration, scratch=scratch, **changes
        )
        if options not in self.made:
            path = self.folder / f"{len(self.made)}.onnx"
            contract = self.contract.replace(head=head, precision=precision)
            stored = to_onnx.write(self.model, contract, options, path)
            with open_model(path) as runtime:
                assert runtime.contract == stored
            self.made[options] = path
        return self.made[options]

    def reference(self, head: Head = "logits") -> TorchRuntime:
        return TorchRuntime(*with_head(self.model, self.contract.replace(head=head)))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    yield Maker(tmp_path_factory.mktemp("int8"))


def agreement(make: Maker, path: Path, head: Head) -> float:
    reference = make.reference(head)
    with open_model(path, threads=1) as artefact:
        same = [
            np.mean(artefact.segment(frame).labels == reference.segment(frame).labels) for _, frame in views()
        ]
    return float(np.mean(same))


def constants(graph: Any) -> dict[str, NDArray[Any]]:
    return {value.name: numpy_helper.to_array(value) for value in graph.initializer}


# -- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("precision", "changes", "least"),
    [
        ("fp32", {"input_dtype": "uint8", "layout": "NHWC"}, 0.9999),
        ("fp16", {}, 0.999),
        ("fp16", {"input_dtype": "uint8", "layout": "NHWC"}, 0.999),
        ("int8", {}, 0.97),
        ("int8", {"input_dtype": "uint8", "layout": "NHWC"}, 0.97),
        ("int8", {"input_dtype": "uint8", "scheme": "s8s8"}, 0.97),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_every_variant_answers_like_pytorch(
    make: Maker, precision: str, head: Head, changes: dict[str, Any], least: float
) -> None:
    """At a size the model was not trained for, which INT8 feels more than at its own."""
    path = make(precision, head, **changes)
    assert agreement(make, path, head) > least
    with open_model(path) as artefact:
        assert artefact.contract.precision == precision
        assert artefact.contract.layout == changes.get("layout", "NCHW")
        assert artefact.contract.dtype == changes.get("input_dtype", "float32")


def test_pixels_go_in_as_they_are(make: Maker) -> None:
    """The uint8 file gives bit for bit what the float file gives for the scaled picture."""
    frame = views()[0][1]
    with open_model(make("int8")) as scaled, open_model(make("int8", input_dtype="uint8")) as pixels:
        a, b = scaled.segment(frame), pixels.segment(frame)
    assert a.scores is not None
    assert b.scores is not None
    np.testing.assert_array_equal(a.scores, b.scores)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods_work_too(make: Maker, method: Any, tmp_path: Path) -> None:
    calibration = dataclasses.replace(packaged(16), method=method)
    options = Options(precision="int8", calibration=calibration, scratch=tmp_path)
    stored = to_onnx.write(make.model, make.contract.replace(precision="int8"), options, tmp_path / "x.onnx")
    assert stored.quantization is not None
    assert stored.quantization.method == method
    assert agreement(make, tmp_path / "x.onnx", "logits") > 0.95


# -- the graph -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8"])
def test_weights_are_int8_per_channel_and_activations_as_the_scheme_says(make: Maker, scheme: Any) -> None:
    graph = onnx.load(make("int8", scheme=scheme)).graph
    known = constants(graph)
    producer = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Conv":
            weight = producer[node.input[1]]
            assert weight.op_type == "DequantizeLinear"
            integers, scale, zero = (known[name] for name in weight.input)
            assert integers.dtype == np.int8
            assert scale.shape == (integers.shape[0],)
            assert not zero.any()
            source = producer[node.input[0]]
            assert source.op_type == "DequantizeLinear"
        if node.op_type == "QuantizeLinear":
            scale, zero = (known[name] for name in node.input[1:])
            assert scale.shape == ()
            assert zero.dtype == (np.uint8 if scheme == "u8s8" else np.int8)
            assert scheme == "u8s8" or zero == 0
    biases = {node.input[2] in known for node in graph.node if node.op_type == "Conv"}
    assert biases == {scheme == "s8s8"}  # float for TensorRT, int32 behind a DequantizeLinear for CPUs


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8"])
@pytest.mark.parametrize("head", HEADS)
def test_all_but_the_upsampling_computes_in_integers(make: Maker, head: Head, scheme: Any) -> None:
    inspection = to_onnx.inspect(make("int8", head, scheme=scheme))
    assert inspection.islands == {"Resize": 1}  # ONNX Runtime has no integer kernel for it
    assert inspection.ops["Conv"] == len(layers(fold(make.model)))


def test_onnx_runtime_fuses_what_we_say_it_does(make: Maker, tmp_path: Path) -> None:
    """Its own optimised graph: integer convolutions, one Resize in float, and no detour through NCHW."""
    path = make("int8", input_dtype="uint8", layout="NHWC")
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert ops.count("QLinearConv") == len(layers(fold(make.model)))
    assert (ops.count("Conv"), ops.count("Add"), ops.count("Concat")) == (0, 0, 0)
    assert ops.count("Resize") == 1
    assert ops.count("DequantizeLinear") <= 2  # before Resize and at the end
    assert ops.count("Transpose") <= 2  # around Expand


def test_layers_are_named_as_in_the_network(make: Maker) -> None:
    for precision in ("fp32", "fp16", "int8"):
        graph = onnx.load(make(precision)).graph
        names = [node.name for node in graph.node if node.op_type == "Conv"]
        assert sorted(names) == sorted(layer.name for layer in layers(fold(make.model)))


def test_a_layer_left_in_float_is_an_island_and_is_recorded(make: Maker) -> None:
    path = make("int8", keep_float=("backbone.blocks.2.depthwise", "classifier"))
    assert to_onnx.inspect(path).islands["Conv"] == 2
    with open_model(path) as artefact:
        record = artefact.contract.quantization
    assert record is not None
    assert record.float_layers == ("backbone.blocks.2.depthwise", "classifier")
    graph = onnx.load(path).graph
    (node,) = (node for node in graph.node if node.name == "classifier")
    assert constants(graph)[node.input[1]].dtype == np.float32


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8"])
def test_onnx_runtime_leaves_in_float_what_is_kept(make: Maker, tmp_path: Path, scheme: Any) -> None:
    """It rounds float weights between Q/DQ pairs itself, with one scale for all channels."""
    kept = ("backbone.blocks.2.depthwise", "backbone.blocks.6.expand")
    path = make("int8", keep_float=kept, scheme=scheme)
    session = onnxruntime.SessionOptions()
    session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session.log_severity_level = 3
    onnxruntime.InferenceSession(path, session)
    optimised = onnx.load(tmp_path / "optimised.onnx").graph
    nodes = {node.name: node.op_type for node in optimised.node}
    floats = {name for name, kind in nodes.items() if kind in ("Conv", "FusedConv")}
    assert len([kind for kind in nodes.values() if kind == "QLinearConv"]) + len(floats) == 64
    assert set(kept) <= {name.removesuffix("_nchwc") for name in floats}
    weights = constants(optimised)
    before = constants(onnx.load(path).graph)
    for layer in kept:
        (node,) = (node for node in optimised.node if node.name == layer)
        (given,) = (node for node in onnx.load(path).graph.node if node.name == layer)
        np.testing.assert_array_equal(weights[node.input[1]], before[given.input[1]])


def test_half_precision_leaves_what_it_is_told_to_in_float(make: Maker) -> None:
    graph = onnx.load(make("fp16", keep_float=("aspp.project",))).graph
    types = {
        node.name: constants(graph)[node.input[1]].dtype
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in constants(graph)
    }
    assert types.pop("classifier") == np.float16
    assert types.get("aspp.project", np.dtype(np.float32)) == np.float32
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_symmetric_schemes_are_known_to_the_remedies() -> None:
    for scheme, style in onnx_int8.STYLES.items():
        assert style.symmetric == (scheme in to_onnx.TARGET.symmetric)


def test_provenance_is_in_the_file(make: Maker) -> None:
    with open_model(make("int8")) as artefact:
        record = artefact.contract.quantization
    assert record == make.calibration.record("u8s8")
    with open_model(make("fp16")) as artefact:
        assert artefact.contract.quantization is None


def test_int8_is_a_third_of_the_file(make: Maker) -> None:
    full, half, eighth = (make(p).stat().st_size for p in ("fp32", "fp16", "int8"))
    assert half < 0.52 * full
    assert eighth < 0.32 * full


def test_importing_the_converter_leaves_the_path_alone(make: Maker) -> None:
    import sys

    make("fp16")
    assert not [entry for entry in sys.path if entry.endswith("transformers")]


# -- layer by layer ------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "least"), [("fp32", 90), ("fp16", 35), ("int8", 10)])
def test_the_outputs_of_all_layers_can_be_read(make: Maker, precision: str, least: float) -> None:
    from edge_deeplab import imaging
    from edge_deeplab.export.diagnose import compare, torch_layers

    sources, run = torch_layers(fold(make.model))
    frames = [frame for _, frame in views()[:2]]
    tensors = [imaging.preprocess(frame, make.contract) for frame in frames]
    given = to_onnx.trace(make(precision), list(sources), tensors)
    errors = compare(sources, zip(map(run, tensors), given, strict=True))
    assert [error.name for error in errors] == list(sources)
    assert min(error.sqnr for error in errors) > least
    assert not any(error.bad for error in errors)


# -- without our code ----------------------------------------------------------------------------


def halved_then_bilinear(frame: Any) -> Any:
    """As docs/contract.md says, without our code."""
    while frame.shape[0] >= 2 * SIZE[0] and frame.shape[1] >= 2 * SIZE[1]:
        half = (frame.shape[1] // 2, frame.shape[0] // 2)
        frame = cv2.resize(frame, half, interpolation=cv2.INTER_AREA)
    return cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def test_without_any_of_our_code(make: Maker) -> None:
    """What docs/export.md says of a uint8 channels-last file, with onnxruntime, OpenCV and numpy only."""
    path = make("int8", "logits", input_dtype="uint8", layout="NHWC")
    frame = views()[0][1]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", [1, *SIZE, 3])
    assert (answered.name, answered.type) == ("logits", "tensor(float)")
    assert answered.shape == [1, SIZE[0] // 4, SIZE[1] // 4, 1]
    resized = halved_then_bilinear(frame)
    logits = session.run(None, {"image": cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)[None]})[0]
    mask = cv2.resize(logits[0, ..., 0], frame.shape[1::-1]) >= 0

    with open_model(path) as model:
        np.testing.assert_array_equal(mask, model.segment(frame).labels)
    reference = make.reference().segment(frame).labels
    assert np.mean(mask == reference) > 0.97


def test_the_class_map_without_our_code(make: Maker) -> None:
    path = make("int8", "classmap", input_dtype="uint8", layout="NHWC")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert (session.get_outputs()[0].name, session.get_outputs()[0].type) == ("labels", "tensor(uint8)")
    frame = views()[0][1]
    resized = halved_then_bilinear(frame)
    labels = session.run(None, {"image": cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)[None]})[0]
    assert labels.shape == (1, *SIZE)
    assert set(np.unique(labels)) == {0, 1}
    assert 0.2 < labels.mean() < 0.9  # the portrait fills about half of the picture


def test_the_first_scale_is_the_contracts(make: Maker) -> None:
    """1/128 with zero point 128: an INT8 consumer sees the camera's bytes."""
    for changes in ({}, {"input_dtype": "uint8"}):
        graph = onnx.load(make("int8", **changes)).graph
        reader = next(node for node in graph.node if node.input[0] == "image")
        assert reader.op_type == ("DequantizeLinear" if changes else "QuantizeLinear")
        scale, zero = (constants(graph)[name] for name in reader.input[1:])
        assert scale == np.float32(1 / 128)
        assert (zero.dtype, int(zero)) == (np.uint8, 128)
