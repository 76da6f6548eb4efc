"""The real network, prepared with PyTorch, verified in ONNX Runtime, and built by the double."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_deeplab.export import Options, export_model
from edge_deeplab.export.calibration import packaged
from edge_deeplab.export.trt_prepare import graph_precision
from edge_deeplab.export.trt_settings import TrtSettings
from edge_deeplab.runtimes import open_model
from edge_deeplab.zoo import shipped
from tests.runtimes.artefacts import picture
from tests.trt.double import TensorRTDouble

NEEDED = ("torch", "safetensors", "onnx", "onnxscript", "onnxsim", "onnxruntime")

pytestmark = [
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in NEEDED), reason="needs the export extra"
    ),
    pytest.mark.skipif("portrait" not in shipped(), reason="portrait is not shipped"),
]

CASES: dict[str, dict[str, Any]] = {
    "fp32": {"head": "classmap", "dynamic": ("batch",), "settings": TrtSettings(prepare=True)},
    "fp16": {"settings": TrtSettings(prepare=True)},
    "int8": {"settings": TrtSettings(prepare=True), "input_dtype": "uint8", "layout": "NHWC"},
}


@pytest.fixture(scope="module", params=CASES)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``portrait`` at a small size, as any machine with PyTorch prepares it."""
    path = tmp_path_factory.mktemp("prepared") / f"{request.param}.onnx"
    options = Options(
        precision=request.param,
        size=(160, 160),
        remedies=False,
        calibration=packaged(16) if request.param == "int8" else None,
        **CASES[request.param],
    )
    export_model("portrait", "trt", path, options)
    return path


def test_a_prepared_network(prepared: Path) -> None:
    precision = prepared.stem
    report = json.loads(prepared.with_name(f"{prepared.name}.report.json").read_text())
    assert (report["passed"], report["target"], report["precision"]) == (True, "trt", precision)
    assert report["reference"] == "PyTorch"
    assert graph_precision(prepared) == precision
    model = onnx.load(prepared)
    assert {entry.version for entry in model.opset_import if not entry.domain} == {17}
    if precision == "int8":
        assert report["inspection"]["islands"] == {}
        made = {name: node.op_type for node in model.graph.node for name in node.output}
        before = [made.get(n.input[0]) for n in model.graph.node if n.op_type == "QuantizeLinear"]
        assert {"Clip", "Relu"} <= set(before)  # rounded behind the activation, not before it
        made_from = {made.get(n.input[0]) for n in model.graph.node if n.op_type in ("Clip", "Relu")}
        assert made_from == {"Conv"}


def test_a_network_is_built_from_it(prepared: Path, trt: TensorRTDouble, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    settings = TrtSettings(batch=(1, 2, 2) if prepared.stem == "fp32" else None)
    report = export_model(str(prepared), "trt", path, Options(settings=settings))
    assert report.passed
    assert report.precision == prepared.stem
    with open_model(path) as model:
        assert len(model.segment_batch([picture(40, 50)] * 3)) == 3


def test_both_files_are_prepared_at_once(tmp_path: Path) -> None:
    settings = TrtSettings(prepare=True, beside="")
    options = Options(
        precision="int8",
        size=(64, 64),
        remedies=False,
        calibration=packaged(16),
        settings=settings,
        force=True,
    )
    export_model("portrait", "trt", tmp_path / "p-int8.onnx", options)
    assert graph_precision(tmp_path / "p-int8.onnx") == "int8"
    assert graph_precision(tmp_path / "p-fp16.onnx") == "fp16"


def test_a_dynamic_size_is_refused_at_once(tmp_path: Path) -> None:
    from edge_deeplab.errors import UserError

    options = Options(dynamic=("size",), settings=TrtSettings(prepare=True))
    with pytest.raises(UserError, match="an engine has one input size: give --size"):
        export_model("portrait", "trt", tmp_path / "x.onnx", options)
    assert list(tmp_path.iterdir()) == []
