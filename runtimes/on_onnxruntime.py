"""ONNX Runtime: ``.onnx`` artefacts on CPUs, and on GPUs through its execution providers."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.files import read_bytes
from edge_deeplab.runtimes.base import Runtime
from edge_deeplab.spec import METADATA_KEY, InputContract

SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}

INPUT_TYPES = {"float32": ("tensor(float)",), "uint8": ("tensor(uint8)",)}
OUTPUT_TYPES = {False: ("tensor(float)", "tensor(float16)"), True: ("tensor(uint8)",)}
"""ONNX Runtime's names of what an output may be, by whether it is a class map."""


@cache
def multiplies_bytes_exactly(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether ONNX Runtime's fast product of uint8 and int8 is exact on this processor.

    On x86 without VNNI it saturates at 16 bits, and labels change by the processor. The exact product that
    ``session.x64quantprecision`` asks for takes more than twice as long, on processors that do not need
    it too. Where nobody tells what the processor has (Windows, macOS on x86), False.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not words.isdisjoint({"avx512_vnni", "avx_vnni"})


class OnnxRuntime(Runtime):
    """Runs an ONNX file that carries its input contract.

    Args:
        session: An ``onnxruntime.InferenceSession``.
        contract: The contract read from the file.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    extra: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX Runtime"
    reentrant: ClassVar[bool] = True

    def __init__(self, session: Any, contract: InputContract) -> None:
        super().__init__(contract)
        self.session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    @classmethod
    def open(cls, path: str, **options: Any) -> OnnxRuntime:
        """Load a file.

        Args:
            path: ``.onnx`` written by ``edge-deeplab export``.
            **options: ``threads`` (None: all cores); ``providers``, names in order of preference,
                short (``cpu``, ``cuda``, ``tensorrt``) or ONNX Runtime's own; ``size`` (height,
                width) for a file exported with dynamic size.
        """
        return cls._open(path, **options)

    @classmethod
    def _open(
        cls,
        path: str,
        *,
        threads: int | None = None,
        providers: str | Sequence[str] = ("cpu",),
        size: tuple[int, int] | None = None,
    ) -> OnnxRuntime:
        with needs(cls.extra):
            import onnxruntime as ort
        data = read_bytes(path)
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        if not multiplies_bytes_exactly():
            settings.add_session_config_entry("session.x64quantprecision", "1")
        if threads is not None:
            settings.intra_op_num_threads = threads
        names = [providers] if isinstance(providers, str) else providers
        wanted = [SHORT_NAMES.get(name.lower(), name) for name in names]
        missing = [name for name in wanted if name not in ort.get_available_providers()]
        if missing:
            raise UserError(
                f"this onnxruntime has no {', '.join(missing)}; "
                f"it has {', '.join(ort.get_available_providers())} "
                "(for CUDA and TensorRT: pip install onnxruntime-gpu)"
            )
        try:
            session = ort.InferenceSession(data, settings, providers=wanted)
        except Exception as error:
            reason = str(error).splitlines()[0].removeprefix("[ONNXRuntimeError] : ")
            raise UserError(f"{path} is damaged or no ONNX model: {reason}") from error
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise UserError(
                f"{path} is an ONNX model, but not one of edge-deeplab's: it carries no input contract, "
                "and how to feed it is never guessed"
            )
        contract = InputContract.from_json(text, source=path)
        if size is not None:
            contract = _resized(contract, size, path)
        _compare(session, contract, path)
        return cls(session, contract)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Version of onnxruntime."""
        with needs(cls.extra):
            import onnxruntime as ort
        return {"onnxruntime": ort.__version__}

    def describe(self) -> dict[str, str]:
        """Providers in use and threads."""
        session = self._opened()
        threads = session.get_session_options().intra_op_num_threads
        return {"providers": ", ".join(session.get_providers()), "threads": str(threads or "all")}

    def infer(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Input tensor -> output tensor, both with batch axis."""
        output: NDArray[Any] = self._opened().run([self._output], {self._input: tensor})[0]
        return output

    def close(self) -> None:
        """Give the session's memory back; calls under way in other threads still end well."""
        super().close()
        self.session = None

    def _opened(self) -> Any:
        if self.session is None:
            raise self._was_closed()
        return self.session


def _resized(contract: InputContract, size: tuple[int, int], path: str) -> InputContract:
    if not {"height", "width"} <= set(contract.dynamic):
        raise UserError(
            f"{path} has a fixed input of {contract.height}x{contract.width}; export it with --dynamic size"
        )
    if any(v < 32 or v % 32 for v in size):
        raise UserError(f"size {size[0]}x{size[1]}: height and width must be multiples of 32")
    return contract.replace(height=size[0], width=size[1])


def _compare(session: Any, contract: InputContract, path: str) -> None:
    """Refuse a file whose graph and contract disagree, as after an edit by another tool."""
    size, stride = (contract.height, contract.width), contract.head_stride
    low = tuple(-(-v // stride) for v in size)
    classmap = contract.head == "classmap"
    for name, node, kinds, channels, plane in (
        ("input", session.get_inputs()[0], INPUT_TYPES[contract.dtype], 3, size),
        ("output", session.get_outputs()[0], OUTPUT_TYPES[classmap], contract.output_channels, low),
    ):
        expected = (channels, *plane) if contract.layout == "NCHW" else (*plane, channels)
        if name == "output" and classmap:
            expected = plane
        # Dynamic axes have a name or None instead of a number.
        if (
            node.type not in kinds
            or len(node.shape) != len(expected) + 1
            or any(
                isinstance(n, int) and n != wanted for n, wanted in zip(node.shape[1:], expected, strict=True)
            )
        ):
            raise UserError(
                f"{path}: its {name} is {node.type} {node.shape}, its contract says {contract.layout} "
                f"{kinds[0]} {list(expected)} after the batch axis"
            )


RUNTIME = OnnxRuntime
