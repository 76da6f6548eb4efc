"""What TensorRT 8.6, 10 and 11 take, as rules that a graph is checked against before it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_deeplab.errors import UserError
from edge_deeplab.export.trt_builder import GraphPrecision
from edge_deeplab.export.trt_forms import attribute, constant, types

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""The newest that TensorRT 8.6 reads."""

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


FUSED = ("Clip", "Relu", "Add")
"""Operators that TensorRT appends to a convolution."""

QUANTISABLE = (*FUSED, "Conv", "Concat", "Resize", "GlobalAveragePool", "Expand")


class GraphError(UserError):
    """A graph that TensorRT would refuse or read differently."""


def float_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Operators of a Q/DQ graph that TensorRT computes in float: operator -> how many.

    An operator computes in int8 when what it reads was just dequantised. An activation or a residual sum
    behind such a convolution is part of it, whatever stands behind that.
    """
    import onnx

    made = {name: node for node in model.graph.node for name in node.output}
    kinds, floats = types(model), (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)

    def dequantised(name: str) -> bool:
        return name in made and made[name].op_type == "DequantizeLinear"

    def whole(node: Any) -> bool:
        if node.op_type in FUSED:
            computed = [name for name in node.input if name in made]  # the others are bounds of a Clip
            return all(
                dequantised(name) or (made[name].op_type in ("Conv", "Add") and whole(made[name]))
                for name in computed
            )
        values = node.input if node.op_type == "Concat" else node.input[: 1 + (node.op_type == "Conv")]
        return all(dequantised(name) for name in values)

    found: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in QUANTISABLE and kinds.get(node.output[0]) in floats and not whole(node):
            found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


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

    kinds, floats = types(model), (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    for node in model.graph.node:
        if node.op_type in ("Transpose", "Identity", "QuantizeLinear", "DequantizeLinear"):
            continue  # moves bytes, of whatever type; or has a rule of its own
        for name in node.input:
            if kinds.get(name) == onnx.TensorProto.UINT8 and not (
                node.op_type == "Cast" and attribute(node, "to") in floats
            ):
                yield f"{node.op_type} {node.output[0]!r} reads uint8, which only a Cast to float may"


def _resizes(model: onnx.ModelProto) -> Iterator[str]:
    for node in model.graph.node:
        if node.op_type == "Resize":
            mode, how = attribute(node, "mode"), attribute(node, "coordinate_transformation_mode")
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
        values = [constant(constants, n) for n in node.input[1:]]
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
