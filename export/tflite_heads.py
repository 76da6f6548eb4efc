"""Class maps as XNNPACK and the integers like them; neither converter nor quantiser gets them right."""

from __future__ import annotations

import copy

from edge_deeplab.export.tflite_model import TfliteModel


def reshape_before_comparing(model: TfliteModel) -> None:
    """Drop the axis of a binary class map's one plane while it holds numbers.

    The converter drops it after the comparison, however the network is written; XNNPACK knows no booleans,
    so the RESHAPE would run outside it.
    """
    makers, nodes = model.makers(), model.graph.operators
    for reshape in [node for node in nodes if model.operator(node) == "RESHAPE"]:
        comparison = makers.get(int(reshape.inputs[0]))
        if comparison is None or model.operator(comparison) != "GREATER_EQUAL":
            continue
        (plane, threshold), (between,), (answer,) = comparison.inputs, comparison.outputs, reshape.outputs
        flat = copy.copy(model.graph.tensors[int(plane)])
        flat.shape, flat.name = model.graph.tensors[int(answer)].shape, flat.name + b"_flat"
        model.graph.tensors[int(between)] = flat
        reshape.inputs, reshape.outputs = [int(plane), int(reshape.inputs[1])], [int(between)]
        comparison.inputs, comparison.outputs = [int(between), int(threshold)], [int(answer)]
        first, second = nodes.index(comparison), nodes.index(reshape)
        nodes[first], nodes[second] = reshape, comparison


def integer_argmax(model: TfliteModel) -> None:
    """Let ARG_MAX read the integers: the scale is positive, so the largest stays the largest.

    The quantiser knows no ARG_MAX and puts a DEQUANTIZE of all logits before it.
    """
    makers = model.makers()
    for node in model.graph.operators:
        before = makers.get(int(node.inputs[0]))
        if model.operator(node) == "ARG_MAX" and before and model.operator(before) == "DEQUANTIZE":
            node.inputs = [int(before.inputs[0]), int(node.inputs[1])]
    read = {int(i) for node in model.graph.operators for i in node.inputs} | set(model.graph.outputs)
    model.graph.operators = [
        node
        for node in model.graph.operators
        if model.operator(node) != "DEQUANTIZE" or int(node.outputs[0]) in read
    ]
