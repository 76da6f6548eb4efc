"""Which values every tensor of a float TFLite graph takes on real pictures, and the ranges that follow."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.base import Method
from edge_deeplab.export.tflite_model import EXTRA, TfliteModel
from edge_deeplab.spec import InputContract

Ranges = dict[str, tuple[float, float]]
"""Tensor name -> (lowest, highest)."""

BINS, QUANTIZED_BINS, PERCENTILE = 2048, 128, 99.999

SAME_RANGE = ("CONCATENATION", "RESIZE_BILINEAR", "RESHAPE")
"""Operators that copy values: with one scale on both sides nothing has to be converted on the way."""


def measure(path: Path, tensors: Iterable[NDArray[Any]], method: Method) -> Ranges:
    """Run a float file on every tensor and look at all it computes.

    Args:
        path: Float32 TFLite file.
        tensors: Input tensors.
        method: How ranges follow from values.
    """
    return minmax(path, tensors) if method == "minmax" else _histograms(path, tensors, method)


def minmax(path: Path, tensors: Iterable[NDArray[Any]]) -> Ranges:
    """The lowest and the highest value of every tensor."""
    found: Ranges = {}
    for values in activations(path, tensors):
        for name, value in values.items():
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return found


def _histograms(path: Path, tensors: Iterable[NDArray[Any]], method: Method) -> Ranges:
    """The same collector that ONNX Runtime calibrates with, so that a method means the same everywhere."""
    with needs("export"):
        from onnxruntime.quantization.calibrate import HistogramCollector
    collector = HistogramCollector(
        method=method,
        symmetric=False,
        num_bins=BINS if method == "percentile" else QUANTIZED_BINS,
        num_quantized_bins=QUANTIZED_BINS,
        percentile=PERCENTILE,
        scenario="same",
    )
    for values in activations(path, tensors):
        collector.collect({name: [value] for name, value in values.items()})
    return {
        name: (float(low), float(high))
        for name, (low, high, *_) in collector.compute_collection_result().items()
    }


def activations(path: Path, tensors: Iterable[NDArray[Any]]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """For every input tensor: the real values of all tensors computed from it, and the input's own."""
    with needs(EXTRA):
        from ai_edge_litert.interpreter import Interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that keeping all tensors takes memory, is known
        interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    computed = {int(t) for node in interpreter._get_ops_details() for t in node["outputs"]}
    wanted = [details[index] for index in sorted({given["index"], *computed} & details.keys())]
    for tensor in tensors:
        interpreter.set_tensor(given["index"], tensor)
        interpreter.invoke()
        yield {detail["name"]: _real(interpreter, detail) for detail in wanted if _is_number(detail)}


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
        name: (min(ranges[m][0] for m in members), max(ranges[m][1] for m in members))
        for name, members in group.items()
    }
    result[names[int(model.graph.inputs[0])]] = input_range(contract)
    return result


def input_range(contract: InputContract) -> tuple[float, float]:
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
    return (0 - contract.mean[0]) / contract.std[0], (255 - contract.mean[0]) / contract.std[0]


def _name(tensor: Any) -> str:
    name: str | bytes = tensor.name
    return name.decode() if isinstance(name, bytes) else name
