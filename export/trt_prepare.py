"""An exported ONNX graph -> one that TensorRT 8.6, 10 and 11 all read, checked rule by rule.

TensorRT's parser is stricter than ONNX, and differs between versions. The graph is brought into the
forms that all of them take, and what none of these forms covers is refused here, on the machine where
something can be done about it, and not on the board. The result is run in ONNX Runtime and verified
like any other artefact.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.trt_builder import GraphPrecision
from edge_deeplab.export.trt_forms import cast_through_float, quantise_once_per_fusion, slice_whole_shapes
from edge_deeplab.export.trt_rules import check
from edge_deeplab.spec import METADATA_KEY

IR_VERSION = 8
"""The file format that belongs to opset 17."""

PREPARED_KEY = "edge_deeplab.tensorrt"
"""Metadata of a prepared graph: ``{"format": 1, "graph": "int8"}``."""

FORMAT = 1


def prepare(path: Path, graph: GraphPrecision) -> None:
    """Rewrite an exported ONNX file in place.

    Args:
        path: Exported with opset 17, its contract in the metadata.
        graph: What it computes in.

    Raises:
        GraphError: It breaks one of TensorRT's rules.
    """
    with needs("export"):
        import onnx
    model = onnx.load(path)
    if graph == "int8":
        quantise_once_per_fusion(model)
    cast_through_float(model)
    slice_whole_shapes(model)
    model.ir_version = IR_VERSION
    check(model, graph)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    record = json.dumps({"format": FORMAT, "graph": graph})
    onnx.helper.set_model_props(model, {**kept, PREPARED_KEY: record})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def graph_precision(path: Path) -> GraphPrecision:
    """What a prepared file computes in. Needs ONNX Runtime only, as on the board.

    Raises:
        UserError: Not an ONNX file of ours, or not prepared for TensorRT.
    """
    with needs("trt"):
        import onnxruntime as ort
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path} is damaged or no ONNX model") from error
    kept = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in kept or PREPARED_KEY not in kept:
        raise UserError(
            f"{path} was not prepared for TensorRT; write one that is, on any machine with PyTorch: "
            "edge-deeplab export MODEL --target trt --prepare"
        )
    try:
        record = json.loads(kept[PREPARED_KEY])
        graph: GraphPrecision = record["graph"]
        if record["format"] != FORMAT or graph not in get_args(GraphPrecision):
            raise ValueError(f"unknown {record}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} was prepared by another version of edge-deeplab, or is damaged ({error}); "
            "prepare it again"
        ) from error
    return graph
