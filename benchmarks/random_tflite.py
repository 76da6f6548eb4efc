"""INT8 DeepLab graphs with random weights, written straight into TFLite files.

Time does not depend on weights, so an architecture's speed can be known before it is trained, and in
milliseconds instead of the half minute a conversion takes. The operators, their order, types and padding
are those that ``edge-deeplab export --target tflite --int8 --io int8`` writes; a test compares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.models.mobilenetv2 import LOW_LEVEL_BLOCK, STAGES, scaled, strides_and_rates
from edge_deeplab.models.variants import Architecture
from edge_deeplab.spec import METADATA_KEY, InputContract

INPUT_SCALE = 1 / 128
RELU6_SCALE, RELU6_ZERO = 6 / 255, -128
LINEAR_SCALE, LINEAR_ZERO = 0.05, 0
WEIGHT_SCALE = 0.01
NONE, RELU, RELU6 = 0, 1, 3  # ActivationFunctionType


def deeplab(architecture: Architecture, contract: InputContract) -> bytes:
    """A whole network: int8 (1, height, width, 3) -> int8 logits (1, h, w, K).

    Args:
        architecture: Of the network.
        contract: Goes into the file; gives size and number of outputs.
    """
    graph = _Graph()
    image = graph.tensor((1, contract.height, contract.width, 3), INPUT_SCALE, 0)
    low_level, x = _backbone(graph, image, architecture)
    x = _pyramid(graph, x, architecture)
    if architecture.decoder_channels:
        low_level = graph.convolution(low_level, architecture.low_level_channels, activation=RELU)
        x = graph.resize(x, *graph.shapes[low_level][1:3])
        x = graph.concatenate([x, low_level])
        for channels in architecture.decoder_channels:
            x = graph.depthwise(x, activation=RELU)
            x = graph.convolution(x, channels, activation=RELU)
    graph.describe(METADATA_KEY, contract.to_json())
    return graph.to_bytes(image, graph.convolution(x, contract.output_channels, activation=NONE))


def _backbone(graph: _Graph, x: int, architecture: Architecture) -> tuple[int, int]:
    x = low_level = graph.convolution(x, scaled(32, architecture.width), kernel=3, stride=2)
    plan = iter(strides_and_rates(architecture.output_stride))
    block = 0
    for stage in STAGES:
        for repeat in range(stage.n):
            stride, rate = next(plan)
            before, channels = x, graph.shapes[x][3]
            if stage.t > 1:
                x = graph.convolution(x, channels * stage.t)
            x = graph.depthwise(x, stride=stride, rate=rate)
            x = graph.convolution(x, scaled(stage.c, architecture.width), activation=NONE)
            if repeat and graph.shapes[x][3] == channels:
                x = graph.add(before, x)
            block += 1
            low_level = x if block == LOW_LEVEL_BLOCK else low_level
    return low_level, x


def _pyramid(graph: _Graph, x: int, architecture: Architecture) -> int:
    channels, (_, height, width, _) = architecture.aspp_channels, graph.shapes[x]
    branches = [graph.convolution(x, channels, activation=RELU)]
    for rate in (6, 12, 18) if architecture.atrous else ():
        wide = graph.depthwise(x, rate=rate * 16 // architecture.output_stride, activation=RELU)
        branches.append(graph.convolution(wide, channels, activation=RELU))
    pooled = graph.convolution(graph.mean(x), channels, activation=RELU)
    branches.append(graph.resize(pooled, height, width))
    return graph.convolution(graph.concatenate(branches), channels, activation=RELU)


class _Graph:
    """One subgraph; methods add an operator and give the number of its output tensor."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated

        self.schema: Any = schema_py_generated
        self.random = np.random.default_rng(0)
        self.model = self.schema.ModelT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [self.schema.BufferT()], []
        self.graph = self.schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]
        self.shapes: list[tuple[int, ...]] = []
        self.ranges: list[tuple[float, int]] = []
        self.codes: dict[tuple[str, int], int] = {}

    def tensor(
        self,
        shape: tuple[int, ...],
        scale: float,
        zero: int,
        value: NDArray[Any] | None = None,
        axis: int = 0,
    ) -> int:
        """An int8 tensor, or a constant of ``value``'s type with one scale for every channel."""
        kinds, tensor = self.schema.TensorType, self.schema.TensorT()
        tensor.shape, tensor.name = np.array(shape, np.int32), f"tensor {len(self.shapes)}"
        tensor.type, tensor.buffer = kinds.INT8, 0
        quantization = self.schema.QuantizationParametersT()
        count = 1
        if value is not None:
            tensor.type = {"int8": kinds.INT8, "int32": kinds.INT32}[value.dtype.name]
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer, count = len(self.model.buffers) - 1, shape[axis]
        if scale:
            quantization.scale = np.full(count, scale, np.float32)
            quantization.zeroPoint = np.full(count, zero, np.int64)
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self.graph.tensors.append(tensor)
        self.shapes.append(shape)
        self.ranges.append((scale, zero))
        return len(self.shapes) - 1

    def node(
        self, name: str, version: int, inputs: list[int], output: int, options: str, **values: Any
    ) -> int:
        """Append an operator; ``options`` is the schema's name of its settings."""
        if (name, version) not in self.codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode = getattr(self.schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
            self.model.operatorCodes.append(code)
            self.codes[name, version] = len(self.model.operatorCodes) - 1
        node = self.schema.OperatorT()
        node.opcodeIndex = self.codes[name, version]
        node.inputs, node.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        node.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        node.builtinOptions = getattr(self.schema, f"{options}T")()
        for key, value in values.items():
            setattr(node.builtinOptions, key, value)
        self.graph.operators.append(node)
        return output

    def convolution(
        self, x: int, channels: int, *, kernel: int = 1, stride: int = 1, activation: int = RELU6
    ) -> int:
        shape = (channels, kernel, kernel, self.shapes[x][3])
        return self._convolve("CONV_2D", "Conv2DOptions", x, shape, 0, stride, 1, activation)

    def depthwise(self, x: int, *, stride: int = 1, rate: int = 1, activation: int = RELU6) -> int:
        shape = (1, 3, 3, self.shapes[x][3])
        return self._convolve(
            "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", x, shape, 3, stride, rate, activation
        )

    def _convolve(
        self,
        name: str,
        options: str,
        x: int,
        shape: tuple[int, ...],
        axis: int,
        stride: int,
        rate: int,
        activation: int,
    ) -> int:
        batch, height, width, _ = self.shapes[x]
        weight = self.tensor(shape, WEIGHT_SCALE, 0, self.random.integers(-127, 128, shape, np.int8), axis)
        channels = shape[axis]
        bias_scale = float(np.float32(WEIGHT_SCALE) * np.float32(self.ranges[x][0]))
        bias = self.tensor((channels,), bias_scale, 0, np.zeros(channels, np.int32))
        span = (LINEAR_SCALE, LINEAR_ZERO) if activation == NONE else (RELU6_SCALE, RELU6_ZERO)
        y = self.tensor((batch, -(-height // stride), -(-width // stride), channels), *span)
        extra = {"depthMultiplier": 1} if axis else {}
        return self.node(
            name,
            3,
            [x, weight, bias],
            y,
            options,
            padding=self.schema.Padding.SAME if shape[1] > 1 else self.schema.Padding.VALID,
            strideH=stride,
            strideW=stride,
            dilationHFactor=rate,
            dilationWFactor=rate,
            fusedActivationFunction=activation,
            **extra,
        )

    def add(self, a: int, b: int) -> int:
        return self.node("ADD", 2, [a, b], self.tensor(self.shapes[a], *self.ranges[a]), "AddOptions")

    def concatenate(self, parts: list[int]) -> int:
        channels = sum(self.shapes[part][3] for part in parts)
        y = self.tensor((*self.shapes[parts[0]][:3], channels), *self.ranges[parts[0]])
        return self.node("CONCATENATION", 2, parts, y, "ConcatenationOptions", axis=3)

    def resize(self, x: int, height: int, width: int) -> int:
        size = self.tensor((2,), 0, 0, np.array([height, width], np.int32))
        batch, _, _, channels = self.shapes[x]
        y = self.tensor((batch, height, width, channels), *self.ranges[x])
        return self.node("RESIZE_BILINEAR", 3, [x, size], y, "ResizeBilinearOptions", halfPixelCenters=True)

    def mean(self, x: int) -> int:
        axes = self.tensor((2,), 0, 0, np.array([1, 2], np.int32))
        batch, _, _, channels = self.shapes[x]
        y = self.tensor((batch, 1, 1, channels), *self.ranges[x])
        return self.node("MEAN", 2, [x, axes], y, "ReducerOptions", keepDims=True)

    def describe(self, name: str, text: str) -> None:
        entry, buffer = self.schema.MetadataT(), self.schema.BufferT()
        buffer.data = np.frombuffer(text.encode(), np.uint8)
        self.model.buffers.append(buffer)
        entry.name, entry.buffer = name, len(self.model.buffers) - 1
        self.model.metadata = [entry]

    def to_bytes(self, given: int, answered: int) -> bytes:
        import flatbuffers

        self.graph.inputs, self.graph.outputs = np.array([given], np.int32), np.array([answered], np.int32)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
