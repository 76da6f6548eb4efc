"""ONNX files against PyTorch, through the runtime and without any of our code."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.errors import UserError
from edge_deeplab.export import Options, export_model, onnx_graph, targets
from edge_deeplab.export.verify import sample_views
from edge_deeplab.files import sha256
from edge_deeplab.imaging import Frame
from edge_deeplab.metrics import agreement
from edge_deeplab.models.checkpoint import load_checkpoint
from edge_deeplab.runtimes import open_model
from edge_deeplab.spec import METADATA_KEY, Head, InputContract
from tests.runtimes.artefacts import SIZE, nano_onnx, picture

HEADS: list[Head] = ["logits", "logits-full", "probability", "classmap"]
FREE = ("batch", "size")


def views() -> list[Frame]:
    return [read()[0] for _, read in sample_views()]


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


# -- the same answers as PyTorch -----------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_every_head_was_verified_and_says_so(folder: Path, head: Head) -> None:
    path = nano_onnx(folder, head)
    report = json.loads(path.with_name(path.name + ".report.json").read_text())
    assert report["passed"] is True
    assert report["failures"] == []
    assert (report["artefact"], report["target"]) == (path.name, "onnx")
    assert (report["head"], report["precision"]) == (head, "fp32")
    assert report["pictures"] == 8
    assert report["agreement"] >= 0.9995
    assert report["worst_agreement"] >= 0.9995
    assert report["sha256"] == sha256(path)
    assert report["bytes"] == path.stat().st_size
    assert {"torch", "onnxruntime"} <= set(report["versions"])
    assert (report["logits_difference"] is None) == (head == "classmap")


@pytest.mark.parametrize("head", ["logits", "logits-full", "classmap"])
def test_heads_agree_with_the_checkpoint(folder: Path, checkpoint: Path, head: Head) -> None:
    """Not only with a network that has the same head: at the input's size the labels are the same."""
    with open_model(checkpoint) as torch_model, open_model(nano_onnx(folder, head)) as model:
        for view in views():
            frame = imaging.resize_frame(view, *SIZE)
            assert agreement(model.segment(frame).labels, torch_model.segment(frame).labels) >= 0.9995


def test_a_probability_head_squashes_the_logits(folder: Path, checkpoint: Path) -> None:
    with open_model(checkpoint) as torch_model, open_model(nano_onnx(folder, "probability")) as model:
        for view in views():
            tensor = imaging.preprocess(view, model.contract)
            chance, logits = model.infer(tensor), torch_model.infer(tensor)
            np.testing.assert_allclose(chance, 1 / (1 + np.exp(-logits)), atol=1e-3)
            assert model.segment(view).scores is not None


def test_a_dynamic_file_agrees_at_every_size_and_batch(folder: Path, checkpoint: Path) -> None:
    path = nano_onnx(folder, dynamic=FREE)
    frames = views()
    for size in (SIZE, (32, 64), (160, 128)):
        with open_model(checkpoint) as torch_model, open_model(path, size=size) as model:
            torch_model.contract = torch_model.contract.replace(height=size[0], width=size[1])
            for frame, answer in zip(frames, model.segment_batch(frames), strict=True):
                assert agreement(answer.labels, torch_model.segment(frame).labels) >= 0.9995
            assert model.segment_batch(frames[:3])[2].labels.shape == frames[2].shape[:2]


def test_without_any_of_our_code(folder: Path, checkpoint: Path) -> None:
    """What the documentation says about the file is all that is needed to run it."""
    session = ort.InferenceSession(nano_onnx(folder), providers=["CPUExecutionProvider"])
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("image", [1, 3, *SIZE], "tensor(float)")
    assert (answered.name, answered.shape) == ("logits", [1, 1, SIZE[0] // 4, SIZE[1] // 4])
    record = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    assert (record["channels"], record["resize"], record["layout"]) == ("RGB", "stretch", "NCHW")

    for view in views():
        image: Any = cv2.resize(view, (record["width"], record["height"]), interpolation=cv2.INTER_AREA)
        rgb = image[..., ::-1].astype(np.float32)
        tensor = ((rgb - record["mean"]) / record["std"]).astype(np.float32).transpose(2, 0, 1)[None]
        logits: Any = session.run(None, {"image": tensor})[0]
        labels = 1 / (1 + np.exp(-logits[0, 0])) >= record["threshold"]
        with open_model(checkpoint) as model:
            wanted = model.infer(imaging.preprocess(image, model.contract))[0, 0] >= 0
        assert np.mean(labels == wanted) >= 0.9995


# -- what is in the file -------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_the_contract_in_the_file(folder: Path, checkpoint: Path, head: Head) -> None:
    proto = onnx.load(nano_onnx(folder, head))
    text = {p.key: p.value for p in proto.metadata_props}[METADATA_KEY]
    contract = InputContract.from_json(text)
    _, before = load_checkpoint(checkpoint)
    stride = 4 if head in ("logits", "probability") else 1
    assert contract == before.replace(head=head, head_stride=stride)
    with open_model(nano_onnx(folder, head)) as model:
        assert model.contract == contract


@pytest.mark.parametrize(
    ("head", "shape", "kind"),
    [
        ("logits", [1, 1, 16, 24], onnx.TensorProto.FLOAT),
        ("logits-full", [1, 1, 64, 96], onnx.TensorProto.FLOAT),
        ("probability", [1, 1, 16, 24], onnx.TensorProto.FLOAT),
        ("classmap", [1, 64, 96], onnx.TensorProto.UINT8),
    ],
)
def test_the_output(folder: Path, head: Head, shape: list[int], kind: int) -> None:
    (output,) = onnx.load(nano_onnx(folder, head)).graph.output
    assert axes(output) == shape
    assert output.type.tensor_type.elem_type == kind
    assert output.name == onnx_graph.OUTPUT_NAMES[head]


def test_the_axes_of_a_dynamic_file_have_names(folder: Path) -> None:
    proto = onnx.load(nano_onnx(folder, dynamic=FREE))
    assert axes(proto.graph.input[0]) == ["batch", 3, "height", "width"]
    assert axes(proto.graph.output[0]) == ["batch", 1, "height/4", "width/4"]
    with open_model(nano_onnx(folder, dynamic=FREE)) as model:
        assert model.contract.dynamic == ("batch", "height", "width")


@pytest.mark.parametrize("head", HEADS)
def test_batch_norm_is_folded_and_padding_is_the_convolutions_own(folder: Path, head: Head) -> None:
    found = operators(nano_onnx(folder, head))
    assert found["BatchNormalization"] == 0
    assert found["Pad"] == 0
    assert found["Conv"] > 50
    assert found["Resize"] == (2 if head in ("logits-full", "classmap") else 1)


def test_the_file_says_who_made_it(folder: Path) -> None:
    proto = onnx.load(nano_onnx(folder))
    assert proto.producer_name == "edge-deeplab"
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 18}
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    onnx.checker.check_model(proto, full_check=True)


# -- opsets and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [1, 11, 16])
def test_an_opset_below_17_is_refused(checkpoint: Path, tmp_path: Path, opset: int) -> None:
    with pytest.raises(UserError, match=f"opset {opset} is too old; 17 is the least"):
        export_model(str(checkpoint), "onnx", tmp_path / "x.onnx", Options(opset=opset))
    assert list(tmp_path.iterdir()) == []


def test_an_opset_from_the_future_is_refused(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="cannot write opset 99"):
        export_model(str(checkpoint), "onnx", tmp_path / "x.onnx", Options(opset=99))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")  # the tracer's own complaint would hide ours


def test_a_dynamic_size_needs_a_default_of_multiples_of_32(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="multiples of 32, not 50x64"):
        options = Options(size=(50, 64), dynamic=("size",))
        export_model(str(checkpoint), "onnx", tmp_path / "x.onnx", options)
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_dynamic_size(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    export_model(str(checkpoint), "onnx", path, Options(size=(32, 32), dynamic=("size",)))
    with open_model(path, size=(64, 32)) as model:
        assert model.segment(picture(20, 30)).labels.shape == (20, 30)


# -- several classes -----------------------------------------------------------------------------


def test_four_classes(tmp_path: Path) -> None:
    from edge_deeplab.models.checkpoint import save_checkpoint
    from tests.runtimes.artefacts import RED_GREEN_BLUE, random_nano, toy_contract

    contract = toy_contract(variant="nano", classes=RED_GREEN_BLUE)
    model = random_nano(contract)
    save_checkpoint(tmp_path / "four.safetensors", model, contract)
    path = tmp_path / "four.onnx"
    export_model(str(tmp_path / "four.safetensors"), "onnx", path, Options(head="classmap"))
    with open_model(path) as artefact:
        labels: NDArray[Any] = artefact.segment(picture(64, 96)).labels
    with open_model(tmp_path / "four.safetensors") as reference:
        wanted = reference.segment(picture(64, 96)).labels
    assert agreement(labels, wanted) >= 0.9995
    assert "onnx" in targets()
