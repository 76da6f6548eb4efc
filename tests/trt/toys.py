"""Prepared graphs made with the onnx package alone: bright pixels are people, see ``toy_onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_deeplab.export.trt_prepare import prepare
from edge_deeplab.spec import METADATA_KEY, InputContract
from tests.runtimes.artefacts import toy_contract, toy_onnx


def toy_prepared(path: Path, graph: str = "fp32", **changes: Any) -> Path:
    """A prepared file that computes in ``graph``; ``changes`` go into its contract."""
    low = changes.get("head", "logits") in ("logits", "probability")
    contract = toy_contract(name="random nano", precision=graph, head_stride=4 if low else 1, **changes)
    toy_onnx(path, contract)
    model = onnx.load(path)
    _prefer_red(model)
    if graph == "fp16":
        _to_half(model)
    if graph == "int8":
        _to_int8(model)
    _save(model, contract, path)
    prepare(path, graph)  # type: ignore[arg-type]
    return path


def _prefer_red(model: onnx.ModelProto) -> None:
    """So that the order of the channels matters."""
    weight = next(t for t in model.graph.initializer if t.name == "weight")
    values = numpy_helper.to_array(weight).copy()
    values[0] = np.reshape([3, 2, -1], (3, 1, 1))
    weight.CopyFrom(numpy_helper.from_array(values, "weight"))


def _save(model: onnx.ModelProto, contract: InputContract, path: Path) -> None:
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    path.write_bytes(model.SerializeToString())


def _to_half(model: onnx.ModelProto) -> None:
    """Float16 in the middle, float32 at both ends."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    end = graph.output[0].name
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = {"image": "image_half", end: "end_half"}.get(name, name)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.append(helper.make_node("Cast", ["image"], ["image_half"], to=TensorProto.FLOAT16))
    graph.node.extend(nodes)
    graph.node.append(helper.make_node("Cast", ["end_half"], [end], to=TensorProto.FLOAT))


def _to_int8(model: onnx.ModelProto) -> None:
    """Q/DQ around the input and the weights of the convolution, symmetric."""
    graph = model.graph
    weight = next(t for t in graph.initializer if t.name == "weight")
    values = numpy_helper.to_array(weight)
    scales = np.abs(values).reshape(len(values), -1).max(1).clip(1e-6) / 127
    whole = np.rint(values / scales[:, None, None, None]).astype(np.int8)
    constants: dict[str, Any] = {
        "weight_int8": whole,
        "weight_scale": scales.astype(np.float32),
        "weight_zero": np.zeros(len(scales), np.int8),
        "image_scale": np.float32(1 / 127),
        "image_zero": np.int8(0),
    }
    graph.initializer.remove(weight)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = "image_back" if name == "image" else name
    nodes = list(graph.node)
    del graph.node[:]
    image, back = ["image_scale", "image_zero"], ["weight_int8", "weight_scale", "weight_zero"]
    graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["image", *image], ["image_int8"]),
            helper.make_node("DequantizeLinear", ["image_int8", *image], ["image_back"]),
            helper.make_node("DequantizeLinear", back, ["weight"], axis=0),
            *nodes,
        ]
    )
