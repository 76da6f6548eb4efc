"""A TFLite file as objects: read, halve, describe and write it back in one piece."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import needs
from edge_deeplab.runtimes.tflite_file import IDENTIFIER

EXTRA = "export-tflite"

ALIGNMENT = 16
"""The schema wants buffers aligned so; kernels may read them as vectors."""


def _schema() -> Any:
    with needs(EXTRA):
        from ai_edge_litert import schema_py_generated
    return schema_py_generated


class TfliteModel:
    """The one subgraph of a file, with what is needed to change it.

    Attributes:
        model: ``ModelT`` of the TFLite schema, all constants inside.
        graph: Its subgraph.
    """

    def __init__(self, data: bytes) -> None:
        self.schema = _schema()
        self.model = self.schema.ModelT.InitFromObj(self.schema.Model.GetRootAsModel(data, 0))
        self.graph = self.model.subgraphs[0]
        for buffer in self.model.buffers:
            if buffer.offset > 1:
                # Large files and ai-edge-quantizer keep constants behind the tables. Back inside, the
                # file's own check covers them, and readers that know only Buffer.data see them.
                buffer.data = np.frombuffer(data, np.uint8, int(buffer.size), int(buffer.offset))
            buffer.offset = buffer.size = 0

    @classmethod
    def read(cls, path: Path) -> TfliteModel:
        """Read a file."""
        return cls(path.read_bytes())

    # -- looking ---------------------------------------------------------------------------------

    def operator(self, node: Any) -> str:
        """Name of a node's operator, as in the schema: ``CONV_2D``."""
        code = self.model.operatorCodes[node.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        names = vars(self.schema.BuiltinOperator).items()
        return next(name for name, value in names if value == number)

    def constant(self, index: int) -> NDArray[Any] | None:
        """Value of a constant float, int8 or int32 tensor; None for what is computed."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if tensor.buffer == 0 or data is None:
            return None
        kinds = self.schema.TensorType
        dtype = {kinds.FLOAT32: np.float32, kinds.INT8: np.int8, kinds.INT32: np.int32}[tensor.type]
        return np.frombuffer(bytes(data), dtype).reshape(tensor.shape)

    def convolutions(self) -> Iterator[Any]:
        """Nodes with weights, in order."""
        for node in self.graph.operators:
            if self.operator(node) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                yield node

    def makers(self) -> dict[int, Any]:
        """Tensor -> the node that computes it."""
        return {int(tensor): node for node in self.graph.operators for tensor in node.outputs}

    # -- changing --------------------------------------------------------------------------------

    def halve(self) -> None:
        """Store weights and biases of all convolutions as float16.

        Each gets a DEQUANTIZE, which XNNPACK and GPU delegates take as "this is float16" and remove.
        ai-edge-quantizer's own float16 leaves biases in float32; LiteRT 1.2 to 1.4 then delegates a
        fraction of the nodes, or none.
        """
        schema = self.schema
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
        code.version = 3  # the first that reads float16
        self.model.operatorCodes.append(code)
        casts: dict[int, Any] = {}
        for node in self.convolutions():
            for index in (int(i) for i in node.inputs[1:3] if i >= 0):
                value = self.constant(index)
                if index not in casts and value is not None and value.dtype == np.float32:
                    casts[index] = self._cast(index, value, len(self.model.operatorCodes) - 1)
        self.graph.operators = [*casts.values(), *self.graph.operators]
        self._drop_unused()

    def _cast(self, index: int, value: NDArray[Any], code: int) -> Any:
        schema, tensor = self.schema, self.graph.tensors[index]
        half = copy.copy(tensor)
        half.type, half.name = schema.TensorType.FLOAT16, tensor.name + b"_half"
        half.buffer = self.add_buffer(value.astype(np.float16).tobytes())
        self.graph.tensors.append(half)
        tensor.buffer = 0
        node = schema.OperatorT()
        node.opcodeIndex = code
        node.inputs, node.outputs = [len(self.graph.tensors) - 1], [index]
        node.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        node.builtinOptions = schema.DequantizeOptionsT()
        return node

    def add_buffer(self, data: bytes) -> int:
        """Append a buffer and give its number."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def add_metadata(self, name: str, data: bytes) -> None:
        """Add a named metadata buffer, in place of one of the same name."""
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name, self.add_buffer(data)
        kept = [e for e in self.model.metadata or [] if e.name != name.encode()]
        self.model.metadata = [*kept, entry]

    def rename(self, given: str, answered: str) -> None:
        """Call the input and the output so, as tensors and in the signature."""
        for index, name in ((self.graph.inputs[0], given), (self.graph.outputs[0], answered)):
            self.graph.tensors[int(index)].name = name
        for signature in self.model.signatureDefs or []:
            signature.inputs[0].name, signature.outputs[0].name = given, answered

    def _drop_unused(self) -> None:
        """Empty the buffers nothing refers to; their numbers stay."""
        used = {tensor.buffer for tensor in self.graph.tensors}
        used |= {entry.buffer for entry in self.model.metadata or []}
        for index, buffer in enumerate(self.model.buffers):
            if index not in used:
                buffer.data = None

    # -- writing ---------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The file, every constant inside and aligned."""
        with needs(EXTRA):
            import flatbuffers
        for buffer in self.model.buffers:
            buffer.Pack = types.MethodType(_pack_buffer, buffer)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())


def _pack_buffer(buffer: Any, builder: Any) -> Any:
    """``BufferT.Pack`` of the generated schema, with the alignment that it forgets."""
    schema = _schema()
    if buffer.data is not None and len(buffer.data):
        data = bytes(buffer.data)
        builder.StartVector(1, len(data), ALIGNMENT)
        builder.head = builder.head - len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
    else:
        schema.BufferStart(builder)
    return schema.BufferEnd(builder)
