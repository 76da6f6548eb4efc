"""The toy of ``artefacts.py`` as a TFLite file, float or INT8, put together operator by operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_deeplab.spec import METADATA_KEY, Head, InputContract
from tests.runtimes.artefacts import SIZE, toy_contract

OUT_SCALE, OUT_ZERO = 1 / 16, 3
"""Of the INT8 toy's logits; odd on purpose, so that forgetting either shows."""


class Graph:
    """One subgraph under construction."""

    def __init__(self) -> None:
        self.schema: Any = pytest.importorskip(
            "ai_edge_litert.schema_py_generated", reason="the toy is put together with LiteRT's schema"
        )
        self.model = self.schema.ModelT()
        self.model.version, self.model.buffers = 3, [self.schema.BufferT()]
        self.model.operatorCodes, self.model.metadata = [], []
        self.graph = self.schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str = "float32",
        *,
        scale: float | None = None,
        zero: int = 0,
        value: NDArray[Any] | None = None,
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape = name, np.array(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, dtype.upper())
        tensor.buffer = 0 if value is None else self.buffer(value.astype(dtype).tobytes())
        if scale is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            count = shape[0] if name == "weight" else 1
            tensor.quantization.scale = np.full(count, scale, np.float32)
            tensor.quantization.zeroPoint = np.full(count, zero, np.int64)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def buffer(self, data: bytes) -> int:
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def node(self, name: str, inputs: list[int], output: int, options: str = "", **values: Any) -> int:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 3 if name == "CONV_2D" else 1
        self.model.operatorCodes.append(code)
        node = self.schema.OperatorT()
        node.opcodeIndex = len(self.model.operatorCodes) - 1
        node.inputs, node.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options:
            node.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            node.builtinOptions = getattr(self.schema, f"{options}T")()
            for key, value in values.items():
                setattr(node.builtinOptions, key, value)
        self.graph.operators.append(node)
        return output

    def metadata(self, name: str, text: str) -> None:
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name, self.buffer(text.encode())
        self.model.metadata.append(entry)

    def to_bytes(self, given: int, answered: int) -> bytes:
        flatbuffers = pytest.importorskip("flatbuffers")
        self.graph.inputs, self.graph.outputs = np.array([given], np.int32), np.array([answered], np.int32)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def toy_tflite(
    path: Path,
    contract: InputContract | None = None,
    *,
    metadata: dict[str, str] | None = None,
    size: tuple[int, int] = SIZE,
    head: Head | None = None,
    outputs: int | None = None,
    dtype: str | None = None,
    input_scale: float = 1 / 128,
) -> Path:
    """Write a TFLite file without PyTorch: bright pixels are people, as in :func:`artefacts.toy_onnx`.

    Args:
        path: Written.
        contract: Goes into the file; the graph follows its head, classes and dtype.
        metadata: Instead of the contract.
        size, head, outputs, dtype, input_scale: Of the graph, where it shall differ from the contract.
    """
    contract = contract or toy_contract(layout="NHWC")
    head, outputs = head or contract.head, outputs or contract.output_channels
    dtype = dtype or contract.dtype
    graph = Graph()
    low = head in ("logits", "probability")
    plane = (size[0] // 4, size[1] // 4) if low else size
    quantised = dtype != "float32"
    zero = {"uint8": 128}.get(dtype, 0)
    scaled: dict[str, Any] = {"scale": input_scale, "zero": zero} if quantised else {}
    given = graph.tensor("image", (1, *size, 3), dtype, **scaled)
    x = given
    if dtype == "uint8":  # integer kernels are signed
        signed = graph.tensor("signed", (1, *size, 3), "int8", scale=input_scale)
        x = graph.node("QUANTIZE", [x], signed, "QuantizeOptions")
    if low:
        kind = "int8" if quantised else "float32"
        pooled = graph.tensor("pooled", (1, *plane, 3), kind, **({"scale": input_scale} if quantised else {}))
        x = graph.node(
            "AVERAGE_POOL_2D",
            [x],
            pooled,
            "Pool2DOptions",
            **dict.fromkeys(("strideH", "strideW", "filterHeight", "filterWidth"), 4),
            padding=1,
        )
    weight = np.zeros((outputs, 1, 1, 3), np.float32)
    if outputs == 1:
        weight[0] = 4 / 3
    else:
        weight[1:4, 0, 0] = np.eye(3)[: outputs - 1]
    x = _convolution(graph, x, weight, plane, quantised=quantised, input_scale=input_scale)
    x = _head(graph, x, head, outputs, plane, contract)
    if quantised and dtype == "uint8" and head != "classmap":
        unsigned = graph.tensor("output", (1, *plane, outputs), "uint8", scale=OUT_SCALE, zero=OUT_ZERO + 128)
        x = graph.node("QUANTIZE", [x], unsigned, "QuantizeOptions")
    for name, text in ({METADATA_KEY: contract.to_json()} if metadata is None else metadata).items():
        graph.metadata(name, text)
    path.write_bytes(graph.to_bytes(given, x))
    return path


def _convolution(
    graph: Graph,
    x: int,
    weight: NDArray[np.float32],
    plane: tuple[int, ...],
    *,
    quantised: bool,
    input_scale: float,
) -> int:
    outputs = len(weight)
    shape = (1, *plane, outputs)
    stride = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": 1}
    if not quantised:
        kernel = graph.tensor("weight", weight.shape, value=weight)
        bias = graph.tensor("bias", (outputs,), value=np.zeros(outputs))
        logits = graph.tensor("logits", shape)
        return graph.node("CONV_2D", [x, kernel, bias], logits, "Conv2DOptions", **stride)
    step = float(weight.max()) / 127
    kernel = graph.tensor(
        "weight", weight.shape, "int8", scale=step, value=(weight / step).round().astype(np.int8)
    )
    bias = graph.tensor("bias", (outputs,), "int32", scale=step * input_scale, value=np.zeros(outputs))
    logits = graph.tensor("logits", shape, "int8", scale=OUT_SCALE, zero=OUT_ZERO)
    return graph.node("CONV_2D", [x, kernel, bias], logits, "Conv2DOptions", **stride)


def _head(
    graph: Graph, x: int, head: Head, outputs: int, plane: tuple[int, ...], contract: InputContract
) -> int:
    if head == "probability":
        name, options = ("LOGISTIC", "") if outputs == 1 else ("SOFTMAX", "SoftmaxOptions")
        values = {"beta": 1.0} if options else {}
        return graph.node(name, [x], graph.tensor("probability", (1, *plane, outputs)), options, **values)
    if head != "classmap":
        return x
    axis = graph.tensor("axis", (1,), "int32", value=np.array([3]))
    ids = graph.tensor("ids", (1, *plane), "int32")
    if outputs == 1:
        cut = graph.tensor("cut", (1,), value=np.array([contract.logit_threshold]))
        planes = graph.tensor("planes", (1, *plane, 1), "bool")
        graph.node("GREATER_EQUAL", [x, cut], planes, "GreaterEqualOptions")
        whole = graph.tensor("whole", (1, *plane, 1), "int32")
        graph.node("CAST", [planes], whole, "CastOptions")
        graph.node("REDUCE_MAX", [whole, axis], ids, "ReducerOptions", keepDims=False)
    else:
        graph.node("ARG_MAX", [x, axis], ids, "ArgMaxOptions", outputType=graph.schema.TensorType.INT32)
    return graph.node("CAST", [ids], graph.tensor("labels", (1, *plane), "uint8"), "CastOptions")
