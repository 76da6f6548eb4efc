"""The answers of single layers inside an ONNX artefact, for finding the one that goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import needs

THROUGH = ("Clip", "Relu", "QuantizeLinear", "DequantizeLinear", "Cast")
"""Nodes between a convolution and the value that the next layer reads."""


def trace(
    path: Path, layers: Sequence[str], tensors: Iterable[NDArray[Any]]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Layer -> its output as the next layer reads it, (N, C, H, W) float32, for every input tensor.

    In a Q/DQ graph that is the value after its DequantizeLinear: rounding and clipping are in it.
    """
    with needs("export"):
        import onnx
        import onnxruntime

    graph = onnx.load(path)
    ends = {layer: end for layer, end in _ends(graph).items() if layer in layers}
    known = {value.name for value in graph.graph.output}
    inferred = onnx.shape_inference.infer_shapes(graph)
    for info in inferred.graph.value_info:
        if info.name in ends.values() and info.name not in known:
            graph.graph.output.append(info)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    given = session.get_inputs()[0].name
    names = list(ends.values())
    for tensor in tensors:
        values = session.run(names, {given: tensor})
        yield {layer: value.astype(np.float32) for layer, value in zip(ends, values, strict=True)}


def _ends(graph: Any) -> dict[str, str]:
    """Layer -> the last tensor of its chain: activation, Q, DQ."""
    consumers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    ends = {}
    for node in graph.graph.node:
        if node.op_type != "Conv":
            continue
        name = node.output[0]
        while True:
            after = [user for user in consumers.get(name, []) if user.op_type in THROUGH]
            if not after or (len(after) < len(consumers[name]) and after[0].op_type != "DequantizeLinear"):
                break
            name = after[0].output[0]
        ends[node.name] = name
    return ends
