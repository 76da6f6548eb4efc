"""The values of every tensor of a TFLite graph, and the ranges that INT8 wants for them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.ranges import Ranges, Run
from edge_deeplab.export.tflite_model import EXTRA, TfliteModel
from edge_deeplab.spec import InputContract

SAME_RANGE = ("CONCATENATION", "RESIZE_BILINEAR", "RESHAPE")
"""Operators that copy values: with one scale on both sides nothing has to be converted on the way."""


def all_tensors(path: Path) -> Run:
    """A function that runs a file and gives the real values of all it computes, and of its input, by name."""
    with needs(EXTRA):
        from ai_edge_litert.interpreter import Interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that keeping all tensors takes memory, is known
        interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    computed = {int(t) for node in interpreter._get_ops_details() for t in node["outputs"]}
    there = [details[index] for index in sorted({given["index"], *computed} & details.keys())]
    wanted = [detail for detail in there if _is_number(detail)]

    def run(tensor: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        interpreter.set_tensor(given["index"], tensor)
        interpreter.invoke()
        return {detail["name"]: _real(interpreter, detail) for detail in wanted}

    return run


def _is_number(detail: dict[str, Any]) -> bool:
    """Float, or an integer with a scale."""
    return bool(detail["dtype"] == np.float32 or detail["quantization"][0])


def _real(interpreter: Any, detail: dict[str, Any]) -> NDArray[np.float32]:
    value: NDArray[Any] = interpreter.get_tensor(detail["index"])
    scale, zero_point = detail["quantization"]
    if value.dtype == np.float32:
        return value
    return (value.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def harmonise(ranges: Ranges, model: TfliteModel, contract: InputContract) -> Ranges:
    """Ranges as INT8 wants them: the input's exact, and one for all that is only copied.

    The quantiser gives a concatenation one scale and converts what comes with another. Here the tensors
    that are resized before have that scale already: no conversion of the largest tensor of the decoder,
    and nothing lost, since it would end in the coarser scale anyway.
    """
    names = [_name(tensor) for tensor in model.graph.tensors]
    group = {name: {name} for name in ranges}
    for node in model.graph.operators:
        if model.operator(node) in SAME_RANGE:
            members = {names[int(i)] for i in (*node.inputs, *node.outputs)} & ranges.keys()
            merged = set().union(*(group[name] for name in members))
            group.update(dict.fromkeys(merged, merged))
    result = {
        name: [min(ranges[m][0] for m in members), max(ranges[m][1] for m in members)]
        for name, members in group.items()
    }
    result[names[int(model.graph.inputs[0])]] = input_range(contract)
    return result


def input_range(contract: InputContract) -> list[float]:
    """What pixels 0 and 255 become: 256 steps of exactly one pixel value.

    Raises:
        UserError: The channels are scaled differently, or by a mean that is no whole number: then no
            scale and zero point give the pixels back.
    """
    mean, std = set(contract.mean), set(contract.std)
    if len(mean) > 1 or len(std) > 1 or contract.mean[0] % 1:
        raise UserError(
            f"{contract.name}: INT8 needs one mean, a whole number, and one std for all channels, "
            f"not {contract.mean} and {contract.std}"
        )
    return [(pixel - contract.mean[0]) / contract.std[0] for pixel in (0, 255)]


def _name(tensor: Any) -> str:
    name: str | bytes = tensor.name
    return name.decode() if isinstance(name, bytes) else name
