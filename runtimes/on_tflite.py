"""TFLite: ``.tflite`` artefacts in LiteRT, on CPUs through XNNPACK and elsewhere through its delegates."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.files import read_bytes
from edge_deeplab.runtimes import tflite_file
from edge_deeplab.runtimes.base import Runtime
from edge_deeplab.runtimes.tflite_delegation import Delegation, delegation_of
from edge_deeplab.spec import METADATA_KEY, InputContract

PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
"""Modules that bring an interpreter, best first, and the packages they come in."""

XNNPACK, PLAIN = "xnnpack", "none"

LIBRARIES = {
    "gpu": ("libtensorflowlite_gpu_delegate.so", "LiteRT's source, target //tflite/delegates/gpu"),
    "nnapi": ("libnnapi_delegate.so", "an Android build of LiteRT's source with its NNAPI delegate"),
    "edgetpu": ("libedgetpu.so.1", "Coral's package libedgetpu1-std"),
}
"""Short name -> the shared library that LiteRT's Python package does not contain, and where it comes from."""


class TfliteRuntime(Runtime):
    """Runs a TFLite file that carries its input contract.

    Integer outputs come back as the real numbers they stand for, (q - zero point) * scale, so that
    whoever reads them need not know how the file stores them; class maps stay ids.

    Args:
        interpreter: With its tensors allocated.
        contract: The contract read from the file.
        engine: What runs it.
        threads: As asked for; None: the interpreter's choice.
        delegate: ``xnnpack``, ``none``, a name of :data:`LIBRARIES` or the path of a library.
        delegation: Which nodes the delegate runs.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)
    extra: ClassVar[str] = "tflite"
    title: ClassVar[str] = "LiteRT"

    def __init__(
        self,
        interpreter: Any,
        contract: InputContract,
        engine: Engine,
        *,
        threads: int | None,
        delegate: str,
        delegation: Delegation,
    ) -> None:
        super().__init__(contract)
        self.interpreter = interpreter
        self.engine = engine
        self.delegate = delegate
        self.delegation = delegation
        self._threads = threads
        given, answered = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        self._input, self._output = given["index"], answered["index"]
        self._scale, self._zero_point = answered["quantization"]

    @classmethod
    def open(cls, path: str, **options: Any) -> TfliteRuntime:
        """Load a file.

        Args:
            path: ``.tflite`` written by ``edge-deeplab export``.
            **options: ``threads`` (None: the interpreter's choice, one); ``delegate``: ``xnnpack``
                (default), ``none`` for TFLite's own kernels, ``gpu``, ``nnapi``, ``edgetpu``, or the path
                of a library with an external delegate; ``delegate_options``: what that library takes.
        """
        return cls._open(path, **options)

    @classmethod
    def _open(
        cls,
        path: str,
        *,
        threads: int | None = None,
        delegate: str = XNNPACK,
        delegate_options: Mapping[str, str] | None = None,
    ) -> TfliteRuntime:
        engine = _engine(cls.extra)
        data = read_bytes(path)
        text = tflite_file.metadata(data, source=path).get(METADATA_KEY)
        if text is None:
            raise UserError(
                f"{path} is a TFLite model, but not one of edge-deeplab's: it carries no input contract, "
                "and how to feed it is never guessed"
            )
        contract = InputContract.from_json(text.decode(errors="replace"), source=path)
        settings = _settings(engine, delegate, delegate_options or {})
        if contract.precision == "int8" and engine.package == "tflite-runtime" and _on_x86():
            warnings.warn(
                "tflite-runtime has no fast INT8 on x86 (about 15 times as slow as ai-edge-litert); "
                "cure: pip install ai-edge-litert",
                stacklevel=4,
            )
        try:
            interpreter = engine.module.Interpreter(model_content=data, num_threads=threads, **settings)
            # A library takes its nodes at once; XNNPACK takes what is left when tensors are allocated.
            share = delegation_of(interpreter._get_ops_details())
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            where = "" if delegate in (XNNPACK, PLAIN) else f" or not for the delegate {delegate}"
            raise UserError(f"{path} is damaged, no TFLite model{where}: {reason}") from error
        _compare(interpreter, contract, path)
        if delegate in (XNNPACK, PLAIN):
            share = delegation_of(interpreter._get_ops_details())
        return cls(interpreter, contract, engine, threads=threads, delegate=delegate, delegation=share)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Version of LiteRT or tflite-runtime."""
        package = _engine(cls.extra).package
        return {package: importlib.metadata.version(package)}

    def describe(self) -> dict[str, str]:
        """Engine, delegate with its share of the nodes, and threads."""
        return {
            "engine": " ".join([self.engine.package, *self.versions().values()]),
            "delegate": f"{self.delegate}, {self.delegation}" if self.delegate != PLAIN else PLAIN,
            "threads": str(self._threads or "the interpreter's choice"),
        }

    def infer(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Input tensor (1, ...) -> output (1, ...), float32, or uint8 ids of a class map."""
        if len(tensor) != 1:
            return np.concatenate([self.infer(one[None]) for one in tensor])
        self.interpreter.set_tensor(self._input, tensor)
        self.interpreter.invoke()
        output: NDArray[Any] = self.interpreter.get_tensor(self._output)
        if not self._scale:
            return output
        real = output.astype(np.float32)
        real -= np.float32(self._zero_point)
        real *= np.float32(self._scale)
        return real

    def close(self) -> None:
        """Free the interpreter; further calls fail with a clear message."""
        super().close()
        with self._lock:
            self.interpreter = None


# -- what runs it --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Engine:
    """A library with a TFLite interpreter."""

    module: ModuleType
    package: str


def _engine(extra: str) -> Engine:
    """LiteRT, or tflite-runtime where only that is installed."""
    for name, package in PACKAGES.items():
        try:
            return Engine(importlib.import_module(f"{name}.interpreter"), package)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != name:
                raise
    with needs(extra):
        raise ModuleNotFoundError(name=next(iter(PACKAGES.values())))


def _on_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64", "i686")


def _settings(engine: Engine, delegate: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of the interpreter for a delegate.

    Raises:
        UserError: The delegate's library is missing or does not load.
    """
    if delegate == XNNPACK:  # the interpreter's own default
        return {}
    if delegate == PLAIN:
        resolver = engine.module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return {"experimental_op_resolver_type": resolver}
    library, origin = LIBRARIES.get(delegate, (delegate, ""))
    if not origin and not Path(library).is_file():
        known = ", ".join([XNNPACK, PLAIN, *LIBRARIES])
        raise UserError(f"no delegate {delegate!r}: neither one of {known} nor a file")
    try:
        # Once more than needed: LiteRT's own object for a library that does not load complains again
        # when it is thrown away, on the user's terminal.
        ctypes.CDLL(library).tflite_plugin_create_delegate  # noqa: B018
        return {"experimental_delegates": [engine.module.load_delegate(library, dict(options))]}
    except (OSError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        cure = f"; it comes from {origin}: put it on the library path or give its path" if origin else ""
        raise UserError(f"the delegate {library} does not load: {reason}{cure}") from error


# -- contract and file ---------------------------------------------------------------------------


def _compare(interpreter: Any, contract: InputContract, path: str) -> None:
    """Refuse a file whose graph and contract disagree, as after an edit by another tool."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"{path}: it has {len(inputs)} inputs and {len(outputs)} outputs, not one of each")
    size, stride = (contract.height, contract.width), contract.head_stride
    plane = tuple(-(-v // stride) for v in size)
    classmap = contract.head == "classmap"
    real = ("uint8",) if classmap else ("float32", "int8", "uint8")
    channels = contract.output_channels
    answered = plane if classmap else _shape(contract, plane, channels)
    for name, node, kinds, shape in (
        ("input", inputs[0], (contract.dtype,), _shape(contract, size, 3)),
        ("output", outputs[0], real, answered),
    ):
        kind = np.dtype(node["dtype"]).name
        if kind not in kinds or tuple(node["shape"]) != (1, *shape):
            raise UserError(
                f"{path}: its {name} is {kind} {node['shape'].tolist()}, its contract says "
                f"{contract.layout} {kinds[0]} {[1, *shape]}"
            )
    _compare_scale(inputs[0], outputs[0], contract, path)


def _shape(contract: InputContract, size: tuple[int, ...], channels: int) -> tuple[int, ...]:
    return (channels, *size) if contract.layout == "NCHW" else (*size, channels)


def _compare_scale(given: Any, answered: Any, contract: InputContract, path: str) -> None:
    """Integer tensors must stand for what the contract says: pixels in, real numbers out."""
    scale, zero_point = given["quantization"]
    if contract.dtype != "float32":
        shift = 0 if contract.dtype == "uint8" else 128
        wanted = {(1 / std, mean - shift) for mean, std in zip(contract.mean, contract.std, strict=True)}
        if len(wanted) > 1 or not np.allclose((scale, zero_point), next(iter(wanted)), rtol=1e-6):
            raise UserError(
                f"{path}: its input has scale {scale:g} and zero point {zero_point}, its contract says "
                f"(pixel - {contract.mean}) / {contract.std}"
            )
    integer = np.issubdtype(answered["dtype"], np.integer)
    if contract.head != "classmap" and integer and not answered["quantization"][0] > 0:
        raise UserError(f"{path}: its output is an integer without a scale; nobody can tell what it means")


RUNTIME = TfliteRuntime
