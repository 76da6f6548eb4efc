"""What quantisation-aware training rounds is what an exported INT8 file rounds, place by place."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.export import Options, to_onnx, to_tflite
from edge_deeplab.export.calibration import Calibration, packaged
from edge_deeplab.export.sample import views
from edge_deeplab.models.checkpoint import load_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.runtimes import open_model
from edge_deeplab.spec import InputContract
from edge_deeplab.training.quantisation import FakeQuant, fold_norms
from edge_deeplab.zoo import find

TARGETS = [
    pytest.param(to_onnx, ("onnx", "onnxruntime", "onnxscript", "onnxsim"), id="onnx"),
    pytest.param(to_tflite, ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"), id="tflite"),
]


@pytest.fixture(scope="module")
def trained() -> tuple[DeepLabV3Plus, InputContract]:
    """``portrait`` at a small size; norms folded, as they are after training for integers."""
    model, contract = load_checkpoint(find("portrait", prefer=(".safetensors",)))
    fold_norms(model)
    return model.eval(), contract.replace(height=96, width=128)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return packaged(16)


def answers(model: torch.nn.Module, images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.concatenate([model(torch.from_numpy(image)).numpy() for image in images])


def observed(model: DeepLabV3Plus, contract: InputContract, calibration: Calibration) -> FakeQuant:
    """The network as training rounds it, with the ranges that it sees in the calibration pictures."""
    quantised = FakeQuant(copy.deepcopy(model)).eval()
    quantised.observing = True
    answers(quantised, list(calibration.tensors(contract)))
    quantised.observing = False
    return quantised


@pytest.mark.parametrize(("target", "packages"), TARGETS)
def test_training_rounds_as_the_exported_file_does(
    trained: tuple[DeepLabV3Plus, InputContract],
    calibration: Calibration,
    target: ModuleType,
    packages: tuple[str, ...],
    tmp_path: Path,
) -> None:
    for package in packages:
        pytest.importorskip(package)
    model, contract = trained
    path = tmp_path / f"int8.{target.__name__.rpartition('_')[2]}"
    options = Options(precision="int8", calibration=calibration, remedies=False)
    target.write(model, contract.replace(precision="int8"), options, path)

    frames = [frame for _, frame in views()]
    images = [imaging.preprocess(frame, contract) for frame in frames]
    with open_model(path, threads=1) as runtime:
        exported = np.concatenate([runtime.infer(imaging.preprocess(f, runtime.contract)) for f in frames])
    if runtime.contract.layout == "NHWC":
        exported = exported.transpose(0, 3, 1, 2)
    exact = answers(model, images)
    training_loses = (answers(observed(model, contract, calibration), images) - exact).ravel()
    export_loses = (exported - exact).ravel()
    assert training_loses.std() == pytest.approx(export_loses.std(), rel=0.15)
    assert np.corrcoef(training_loses, export_loses)[0, 1] > 0.75


def test_training_rounds_at_the_places_where_the_exported_file_does(
    trained: tuple[DeepLabV3Plus, InputContract], calibration: Calibration, tmp_path: Path
) -> None:
    """Each with the range measured there; resizing and repeating keep the range of what goes in."""
    onnx = pytest.importorskip("onnx")
    model, contract = trained
    path = tmp_path / "int8.onnx"
    options = Options(precision="int8", calibration=calibration, remedies=False)
    to_onnx.write(model, contract.replace(precision="int8"), options, path)
    graph = onnx.load(path).graph
    stored = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    copies = {name for node in graph.node if node.op_type in ("Resize", "Expand") for name in node.output}
    exported = [
        float(stored[node.input[1]])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in {*stored, *copies}
    ]
    ranges = observed(model, contract, calibration).ranges
    trained_scales = ((ranges.high - ranges.low) / 255).tolist()
    assert len(trained_scales) == len(exported)
    np.testing.assert_allclose(sorted(trained_scales), sorted(exported), rtol=0.06)
