"""Rewrites of an ONNX graph into the forms that all versions of TensorRT read, and fuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx


def cast_through_float(model: onnx.ModelProto) -> None:
    """``X -> uint8`` becomes ``X -> float -> uint8``: TensorRT casts to uint8 from floats only.

    That is the end of every class map, whose ids come as int64 from ArgMax or as bool from a comparison.
    Ids up to 255 are exact in between.
    """
    import onnx

    kinds = types(model)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast" and attribute(node, "to") == onnx.TensorProto.UINT8:
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
        start, end = attribute(node, "start"), attribute(node, "end")
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


def quantise_once_per_fusion(model: onnx.ModelProto) -> None:
    """Take out Q/DQ pairs inside what TensorRT computes as one layer.

    A convolution is fused with the activation behind it and with the sum of a residual block, and its
    result rounded once, at the end. A pair in between forbids the fusion and costs accuracy: symmetric
    int8 spends half of its steps on negative values that the activation removes. So there is none
    between a convolution and its activation, its sum (whose other input keeps its pair), or the output.
    """
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    used: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            used.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    gone: list[Any] = []
    for back in graph.node:
        quantise = made.get(back.input[0]) if back.op_type == "DequantizeLinear" else None
        source = made.get(quantise.input[0]) if quantise is not None else None
        if quantise is None or source is None or source.op_type != "Conv":
            continue
        name, end = source.output[0], back.output[0]
        if end in outputs:
            if used[name] != [quantise] or used[quantise.output[0]] != [back]:
                continue
            source.output[0] = end
        elif all(_fuses(node, end, made) for node in used.get(end, [])):
            for node in used.get(end, []):
                for place, given in enumerate(node.input):
                    node.input[place] = name if given == end else given
        else:
            continue
        gone.append(back)
    _replace_nodes(model, [node for node in graph.node if not any(node is back for back in gone)])
    _remove_unused(model)


def _fuses(node: Any, given: str, made: dict[str, Any]) -> bool:
    """Whether TensorRT computes this consumer together with the convolution that makes ``given``."""
    if node.op_type in ("Clip", "Relu"):
        return True
    if node.op_type != "Add":
        return False
    others = [made.get(name) for name in node.input if name != given]
    return bool(others) and all(o is not None and o.op_type == "DequantizeLinear" for o in others)


def _remove_unused(model: onnx.ModelProto) -> None:
    """Quantisations without a dequantisation, and constants that nobody reads."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
    nodes = [n for n in graph.node if n.op_type != "QuantizeLinear" or n.output[0] in read]
    _replace_nodes(model, nodes)
    read = {name for node in graph.node for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)


# -- reading graphs ----------------------------------------------------------------------------


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor -> ONNX element type, as far as it can be inferred."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return {**found, **{tensor.name: tensor.data_type for tensor in inferred.initializer}}


def constant(constants: dict[str, Any], name: str) -> NDArray[Any] | None:
    """A constant's values; None for what is computed."""
    import onnx

    return onnx.numpy_helper.to_array(constants[name]) if name in constants else None


def attribute(node: Any, name: str) -> Any:
    """An attribute's value, text as str; None where it is not set."""
    import onnx

    for entry in node.attribute:
        if entry.name == name:
            found = onnx.helper.get_attribute_value(entry)
            return found.decode() if isinstance(found, bytes) else found
    return None
