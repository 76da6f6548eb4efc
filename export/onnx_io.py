"""Input and output variants of an ONNX graph: pixels as they are, and channels last."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_deeplab.export.onnx_graph import INPUT_NAME
from edge_deeplab.spec import InputContract, InputDType, Layout

SCALED = "image_scaled"


def take(graph: Any, contract: InputContract, dtype: InputDType, layout: Layout) -> InputContract:
    """Change a float32 NCHW graph, quantised or not, to take and answer in another form.

    uint8 pixels enter a Q/DQ graph directly where its first QuantizeLinear would only give them back:
    scale 1 / std and zero point mean. Elsewhere they are scaled in float.

    Returns:
        The contract with dtype and layout.
    """
    if dtype == "uint8":
        _take_pixels(graph, contract)
    if layout == "NHWC":
        _channels_last(graph, contract)
    return contract.replace(dtype=dtype, layout=layout)


def _take_pixels(graph: Any, contract: InputContract) -> None:
    from onnx import TensorProto, helper, numpy_helper

    first = [node for node in graph.graph.node if INPUT_NAME in node.input]
    constants = {value.name: value for value in graph.graph.initializer}

    def gives_pixels(node: Any) -> bool:
        if node.op_type != "QuantizeLinear":
            return False
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        return zero.dtype == np.uint8 and all(
            mean == int(zero) and np.float32(1 / std) == scale
            for mean, std in zip(contract.mean, contract.std, strict=True)
        )

    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    if all(gives_pixels(node) for node in first):
        for node in first:
            _rename_inputs(graph, node.output[0], INPUT_NAME)
            graph.graph.node.remove(node)
        return
    factor = 1 / np.asarray(contract.std)
    constant = {
        "pixel_factor": factor.astype(np.float32).reshape(1, 3, 1, 1),
        "pixel_offset": (np.asarray(contract.mean) * factor).astype(np.float32).reshape(1, 3, 1, 1),
    }
    graph.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constant.items())
    _rename_inputs(graph, INPUT_NAME, SCALED)
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["pixels"], "pixels", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "pixel_factor"], ["pixels_scaled"], "pixels_scaled"),
        helper.make_node("Sub", ["pixels_scaled", "pixel_offset"], [SCALED], SCALED),
    ]
    for place, node in enumerate(nodes):
        graph.graph.node.insert(place, node)


def _channels_last(graph: Any, contract: InputContract) -> None:
    """A Transpose after the input and, but for class maps, one before the output."""
    from onnx import helper

    given = graph.graph.input[0]
    _permute(given, (0, 2, 3, 1))
    _rename_inputs(graph, given.name, "image_planes")
    graph.graph.node.insert(
        0, helper.make_node("Transpose", [given.name], ["image_planes"], "to_planes", perm=(0, 3, 1, 2))
    )
    if contract.head == "classmap":
        return
    answered = graph.graph.output[0]
    _permute(answered, (0, 2, 3, 1))
    planes = f"{answered.name}_planes"
    for node in graph.graph.node:
        node.output[:] = [planes if name == answered.name else name for name in node.output]
    _rename_inputs(graph, answered.name, planes)
    graph.graph.node.append(
        helper.make_node("Transpose", [planes], [answered.name], "to_channels_last", perm=(0, 2, 3, 1))
    )


def _permute(info: Any, order: tuple[int, ...]) -> None:
    """Change the axes that a value is declared with."""
    shape = info.type.tensor_type.shape
    dims = [type(dim).FromString(dim.SerializeToString()) for dim in shape.dim]
    del shape.dim[:]
    shape.dim.extend(dims[axis] for axis in order)


def _rename_inputs(graph: Any, old: str, new: str) -> None:
    for node in graph.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
