"""What runs other people's files: LiteRT and ONNX Runtime, with the tensor to fill in their own memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.files import read_bytes
from edge_deeplab.runtimes.tflite_delegation import delegation_of


class Engine(ABC):
    """A loaded file: a tensor to fill, and the answer to what is in it.

    Attributes:
        title: For people.
        shape: Of the input, batch axis included.
        channels_last: (1, h, w, 3) rather than (1, 3, h, w).
        quantized: (scale, zero point) of an integer input; None for float.
        used: What is really in use: delegate, share of the graph on it.
    """

    title: ClassVar[str]
    shape: tuple[int, ...]
    quantized: tuple[float, int] | None = None
    used: dict[str, str]

    @classmethod
    @abstractmethod
    def versions(cls) -> dict[str, str]:
        """Of the library; importing it is what takes its time."""

    @abstractmethod
    def __init__(self, path: str, threads: int | None) -> None: ...

    @abstractmethod
    def source(self) -> NDArray[Any]:
        """The input tensor without its batch axis; writing to it is all it takes."""

    @abstractmethod
    def run(self) -> NDArray[Any]:
        """The output, (1, ...) in float or as :attr:`quantized` outputs are."""

    @property
    def channels_last(self) -> bool:
        """Read off the shape."""
        return self.shape[-1] == 3

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.shape[1:3] if self.channels_last else self.shape[2:4]  # type: ignore[return-value]


class LiteRt(Engine):
    """``.tflite`` on LiteRT with XNNPACK, its default on CPUs."""

    title = "LiteRT"

    def __init__(self, path: str, threads: int | None) -> None:
        with needs("tflite"):
            from ai_edge_litert.interpreter import Interpreter
        try:
            interpreter = Interpreter(model_content=read_bytes(path), num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{path} is damaged or no TFLite model: {' '.join(str(error).split())}"
            ) from error
        given, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        self.shape = tuple(int(v) for v in given["shape"])
        if np.issubdtype(given["dtype"], np.integer):
            self.quantized = given["quantization"]
        self._dequantize = answer["quantization"] if np.issubdtype(answer["dtype"], np.integer) else None
        # Both give views of the interpreter's own memory: nothing is copied in or out.
        self._in, self._out = interpreter.tensor(given["index"]), interpreter.tensor(answer["index"])
        self._interpreter = interpreter
        self.used = {"threads": str(threads or "default"), "delegate": self._delegate()}

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Version of ai-edge-litert."""
        with needs("tflite"):
            from importlib.metadata import version

            import ai_edge_litert.interpreter as _  # noqa: F401
        return {"ai-edge-litert": version("ai-edge-litert")}

    def source(self) -> NDArray[Any]:
        """A view that must not outlive the next call."""
        return self._in()[0]

    def run(self) -> NDArray[Any]:
        """A view of the output, or its floats where it holds integers."""
        self._interpreter.invoke()
        raw = self._out()
        if self._dequantize is None:
            return raw
        scale, zero = self._dequantize
        return (raw.astype(np.float32) - zero) * np.float32(scale)

    def _delegate(self) -> str:
        found = delegation_of(self._interpreter._get_ops_details())
        return f"XNNPACK, {found}" if found.partitions else "none"


class Ort(Engine):
    """``.onnx`` on ONNX Runtime, on the CPU."""

    title = "ONNX Runtime"

    def __init__(self, path: str, threads: int | None) -> None:
        with needs("onnx"):
            import onnxruntime as ort
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        if threads is not None:
            settings.intra_op_num_threads = threads
        data, note = foldable(read_bytes(path))
        try:
            self._session = ort.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UserError(f"{path} is damaged or no ONNX model: {str(error).splitlines()[0]}") from error
        given = self._session.get_inputs()[0]
        if any(not isinstance(v, int) for v in given.shape[1:]):
            raise UserError(f"{path} has an input {given.shape} of open size; fix its size first")
        self.shape = (1, *given.shape[1:])
        if given.type != "tensor(float)":
            raise UserError(f"{path} takes {given.type}; peers in ONNX need a float input")
        self._name = given.name
        self._tensor = np.empty(self.shape, np.float32)
        self.used = {"threads": str(threads or "all"), "providers": "CPUExecutionProvider", **note}

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Version of onnxruntime."""
        with needs("onnx"):
            import onnxruntime as ort
        return {"onnxruntime": ort.__version__}

    def source(self) -> NDArray[Any]:
        """A buffer of ours that the session reads."""
        return self._tensor[0]

    def run(self) -> NDArray[Any]:
        """The first output."""
        raw: NDArray[Any] = self._session.run(None, {self._name: self._tensor})[0]
        return raw


def foldable(data: bytes) -> tuple[bytes, dict[str, str]]:
    """An ONNX model whose weights ONNX Runtime can fold, and a note for reports.

    Some exporters list the weights as inputs too, which keeps ONNX Runtime from optimising. It says so
    in a warning for each of them; a user who heeds these gets what this returns. Without the library
    ``onnx`` the model stays as it is.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        return data, {"weights": "as in the file: without the library onnx they are not looked at"}
    try:
        model = onnx.load_from_string(data)
    except Exception as error:
        raise UserError(f"damaged or no ONNX model: {str(error).splitlines()[0]}") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) == len(model.graph.input):
        return data, {}
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model.SerializeToString(), {"weights": "taken out of the inputs, so that they are folded"}


ENGINES: Mapping[str, type[Engine]] = {".tflite": LiteRt, ".onnx": Ort}


def engine_for(path: str | Path) -> type[Engine]:
    """What runs a file.

    Raises:
        UserError: No engine for its suffix.
    """
    suffix = Path(path).suffix
    if suffix not in ENGINES:
        raise UserError(f"peer {path}: only {' and '.join(ENGINES)} files can be peers")
    return ENGINES[suffix]
