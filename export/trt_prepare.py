"""An exported ONNX graph -> one that TensorRT 8.6, 10 and 11 all read, checked rule by rule.

TensorRT's parser is stricter than ONNX, and differs between versions. The graph is brought into the
forms that all of them take, and what none of these forms covers is refused here, on the machine where
something can be done about it, and not on the board. The numbers do not change: the result is run in
ONNX Runtime and verified like any other artefact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.trt_builder import GraphPrecision
from edge_deeplab.spec import METADATA_KEY

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""The newest that TensorRT 8.6 reads."""

IR_VERSION = 8
"""The file format that belongs to opset 17."""

PREPARED_KEY = "edge_deeplab.tensorrt"
"""Metadata of a prepared graph: ``{"format": 1, "graph": "int8"}``."""

FORMAT = 1

# fmt: off
OPERATORS = frozenset(
    {
        "Add", "ArgMax", "AveragePool", "Cast", "Clip", "Concat", "Constant", "Conv",
        "DequantizeLinear", "Div", "Expand", "Flatten", "Gather", "GlobalAveragePool",
        "GreaterOrEqual", "Identity", "MaxPool", "Mul", "Pad", "QuantizeLinear", "ReduceMean",
        "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Squeeze", "Sub",
        "Transpose", "Unsqueeze",
    }
)
# fmt: on
"""Operators that onnx-tensorrt lists as supported since TensorRT 8 (docs/operators.md) and that graphs of
ours may hold. Anything else is refused: nobody has looked whether TensorRT takes it."""

RESIZE_MODES = ("half_pixel", "pytorch_half_pixel")
"""Of ``coordinate_transformation_mode``: those whose bilinear result is that of PyTorch and ONNX Runtime."""


class GraphError(UserError):
    """A graph that TensorRT would refuse or read differently."""


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


# -- forms that all versions read ----------------------------------------------------------------


def cast_through_float(model: onnx.ModelProto) -> None:
    """``X -> uint8`` becomes ``X -> float -> uint8``: TensorRT casts to uint8 from floats only.

    That is the end of every class map, whose ids come as int64 from ArgMax or as bool from a comparison.
    Ids up to 255 are exact in between.
    """
    import onnx

    kinds = _types(model)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast" and _attribute(node, "to") == onnx.TensorProto.UINT8:
            given = node.input[0]
            if kinds.get(given) not in floats:
                between = f"{given}_float"
                nodes.append(onnx.helper.make_node("Cast", [given], [between], to=onnx.TensorProto.FLOAT))
                node.input[0] = between
        nodes.append(node)
    _replace_nodes(model, nodes)


def slice_whole_shapes(model: onnx.ModelProto) -> None:
    """``Shape(start, end)`` becomes ``Slice(Shape)``: the attributes came late, with opset 15."""
    import onnx

    nodes = []
    for place, node in enumerate(model.graph.node):
        start, end = _attribute(node, "start"), _attribute(node, "end")
        if node.op_type != "Shape" or (start in (None, 0) and end is None):
            nodes.append(node)
            continue
        names = [f"{node.output[0]}_{place}_{what}" for what in ("whole", "start", "end")]
        limit = np.iinfo(np.int64).max if end is None else end
        for name, value in zip(names[1:], (start or 0, limit), strict=True):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value], np.int64), name))
        nodes.append(onnx.helper.make_node("Shape", [node.input[0]], names[:1]))
        nodes.append(onnx.helper.make_node("Slice", names, [node.output[0]]))
    _replace_nodes(model, nodes)


def _replace_nodes(model: onnx.ModelProto, nodes: list[Any]) -> None:
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)


# -- rules ---------------------------------------------------------------------------------------


def check(model: onnx.ModelProto, graph: GraphPrecision) -> None:
    """Refuse what TensorRT would.

    Raises:
        GraphError: With the node and the rule.
    """
    problems = [line for rule in RULES for line in rule(model)]
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantized != (graph == "int8"):
        problems.append(f"it {'has' if quantized else 'has no'} Q/DQ nodes, as {graph} should not")
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise GraphError(f"TensorRT would not take the graph: {'; '.join(problems[:3])}{more}")


def _opsets(model: onnx.ModelProto) -> Iterator[str]:
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            yield f"operators of domain {entry.domain!r}"
        elif entry.version > OPSET:
            yield f"opset {entry.version}, TensorRT 8.6 reads up to {OPSET}"


def _operators(model: onnx.ModelProto) -> Iterator[str]:
    for kind in sorted({node.op_type for node in model.graph.node} - OPERATORS):
        yield f"operator {kind}"


def _inputs_and_outputs(model: onnx.ModelProto) -> Iterator[str]:
    import onnx

    allowed = (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8)
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        yield f"{len(model.graph.input)} inputs and {len(model.graph.output)} outputs, not one of each"
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type.elem_type
        if kind not in allowed:
            yield f"{value.name} is {onnx.TensorProto.DataType.Name(kind)}, not FLOAT or UINT8"
        axes = value.type.tensor_type.shape.dim
        if any(axis.dim_param for axis in list(axes)[1:]):
            yield f"{value.name} has a dynamic size; an engine has one (--size), only its batch may change"


def _uint8_only_at_the_ends(model: onnx.ModelProto) -> Iterator[str]:
    """TensorRT knows uint8 as type of an input that is cast to float, and of an output cast from float."""
    import onnx

    kinds, floats = _types(model), (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    for node in model.graph.node:
        if node.op_type in ("Transpose", "Identity", "QuantizeLinear", "DequantizeLinear"):
            continue  # moves bytes, of whatever type; or has a rule of its own
        for name in node.input:
            if kinds.get(name) == onnx.TensorProto.UINT8 and not (
                node.op_type == "Cast" and _attribute(node, "to") in floats
            ):
                yield f"{node.op_type} {node.output[0]!r} reads uint8, which only a Cast to float may"


def _resizes(model: onnx.ModelProto) -> Iterator[str]:
    for node in model.graph.node:
        if node.op_type == "Resize":
            mode, how = _attribute(node, "mode"), _attribute(node, "coordinate_transformation_mode")
            if (mode, how) not in [("linear", coordinates) for coordinates in RESIZE_MODES]:
                yield f"Resize {node.output[0]!r} is {mode}, {how}; only linear, {' or '.join(RESIZE_MODES)}"


def _quantization(model: onnx.ModelProto) -> Iterator[str]:
    """Explicit quantisation in TensorRT: int8, symmetric, scales known and positive, biases in float."""
    import onnx

    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        name = f"{node.op_type} {node.output[0]!r}"
        values = [_value(constants, n) for n in node.input[1:]]
        if any(value is None for value in values):
            yield f"{name}: scale or zero point is no constant"
            continue
        scale = values[0]
        if scale is None or scale.dtype != np.float32 or not (np.isfinite(scale) & (scale > 0)).all():
            yield f"{name}: a scale that is no positive float32"
        if len(values) < 2 or values[1] is None or values[1].dtype != np.int8 or values[1].any():
            yield f"{name}: the zero point is not an int8 0 (use --scheme s8s8)"
        source = constants.get(node.input[0])
        if node.op_type == "DequantizeLinear" and source is not None:
            if source.data_type != onnx.TensorProto.INT8:
                yield f"{name}: a constant that is not int8; biases stay in float"
        elif scale is not None and scale.size > 1:
            yield f"{name}: one scale per channel is for weights only"


RULES: tuple[Callable[[Any], Iterator[str]], ...] = (
    _opsets,
    _operators,
    _inputs_and_outputs,
    _uint8_only_at_the_ends,
    _resizes,
    _quantization,
)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor -> ONNX element type, as far as it can be inferred."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return {**found, **{tensor.name: tensor.data_type for tensor in inferred.initializer}}


def _value(constants: dict[str, Any], name: str) -> NDArray[Any] | None:
    import onnx

    return onnx.numpy_helper.to_array(constants[name]) if name in constants else None


def _attribute(node: Any, name: str) -> Any:
    """An attribute's value, text as str; None where it is not set."""
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return None
