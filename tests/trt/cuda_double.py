"""CUDA for machines without a GPU, as ``cuda.bindings.runtime`` looks: memory is host memory, time is order.

What is queued on a stream runs when the stream is waited for, not before: who reads an answer without
waiting reads zeros. Copies must lie within one allocation of the right kind. Everything is recorded.
"""

# ruff: noqa: N802, N815  # CUDA's own names

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any


class Error(IntEnum):
    """The error codes used here, with CUDA's numbers."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNotReady = 600
    cudaErrorStreamCaptureUnsupported = 900


class CopyKind(IntEnum):
    """Directions of a copy."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class CaptureMode(IntEnum):
    """Whose calls a capture forbids."""

    cudaStreamCaptureModeThreadLocal = 1


@dataclass
class Stream:
    """What is queued, and what is being captured."""

    number: int
    queued: list[Callable[[], None]] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None
    broken: bool = False

    def __int__(self) -> int:
        return self.number

    def add(self, work: Callable[[], None]) -> None:
        """Queue, or while capturing only record."""
        (self.queued if self.captured is None else self.captured).append(work)


@dataclass
class Allocation:
    """A piece of memory."""

    data: Any
    kind: str
    size: int


class CudaDouble:
    """The functions of ``cuda.bindings.runtime`` that the project calls, on host memory.

    Attributes:
        calls: (function, arguments) in order.
        failures: Function -> error it shall answer with.
        capturable: Whether work can be recorded as a graph.
    """

    cudaError_t = Error
    cudaMemcpyKind = CopyKind
    cudaStreamCaptureMode = CaptureMode
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def __init__(self, *, name: str = "Orin", capability: tuple[int, int] = (8, 7), devices: int = 1) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.failures: dict[str, Error] = {}
        self.capturable = True
        self.memory: dict[int, Allocation] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: set[int] = set()
        self.events: dict[int, int] = {}
        self.done = 0
        self._name, self._capability, self._devices = name, capability, devices
        self._handles = 1000

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if not name.startswith("cuda") or not callable(value) or isinstance(value, type):
            return value

        def recorded(*arguments: Any) -> Any:
            self.calls.append((name, arguments))
            if name in self.failures:
                return (self.failures[name], None)
            return value(*arguments)

        return recorded

    # -- the device ------------------------------------------------------------------------------

    def cudaGetErrorString(self, error: Error) -> Any:
        words = {35: b"CUDA driver version is insufficient for CUDA runtime version", 2: b"out of memory"}
        return Error.cudaSuccess, words.get(int(error), Error(error).name.encode())

    def cudaGetDeviceCount(self) -> Any:
        return Error.cudaSuccess, self._devices

    def cudaSetDevice(self, device: int) -> Any:
        return (Error.cudaSuccess if device < self._devices else Error.cudaErrorInvalidValue,)

    def cudaGetDeviceProperties(self, device: int) -> Any:
        major, minor = self._capability
        name = self._name.encode().ljust(256, b"\0")
        return Error.cudaSuccess, SimpleNamespace(name=name, major=major, minor=minor)

    # -- memory ----------------------------------------------------------------------------------

    def cudaMalloc(self, size: int) -> Any:
        return Error.cudaSuccess, self._allocate(size, "device")

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        return Error.cudaSuccess, self._allocate(size, "host")

    def cudaFree(self, pointer: int) -> Any:
        return self._free(pointer, "device")

    def cudaFreeHost(self, pointer: int) -> Any:
        return self._free(pointer, "host")

    def _allocate(self, size: int, kind: str) -> int:
        data = ctypes.create_string_buffer(b"\xa5" * size, size)
        address = ctypes.addressof(data)
        self.memory[address] = Allocation(data, kind, size)
        return address

    def _free(self, pointer: int, kind: str) -> Any:
        if pointer not in self.memory or self.memory[pointer].kind != kind:
            return (Error.cudaErrorInvalidValue,)
        del self.memory[pointer]
        return (Error.cudaSuccess,)

    def holds(self, address: int, size: int, kind: str) -> bool:
        """Whether these bytes lie in one allocation of that kind."""
        return any(
            start <= address and address + size <= start + a.size and a.kind == kind
            for start, a in self.memory.items()
        )

    def cudaMemcpyAsync(self, target: int, source: int, count: int, kind: CopyKind, stream: Stream) -> Any:
        ends = ("device", "host") if kind == CopyKind.cudaMemcpyHostToDevice else ("host", "device")
        if not (self.holds(target, count, ends[0]) and self.holds(source, count, ends[1])):
            return (Error.cudaErrorInvalidValue,)
        stream.add(lambda: ctypes.memmove(target, source, count) and None)
        return (Error.cudaSuccess,)

    # -- streams and graphs ----------------------------------------------------------------------

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        self._handles += 1
        self.streams[self._handles] = Stream(self._handles)
        return Error.cudaSuccess, self.streams[self._handles]

    def cudaStreamDestroy(self, stream: Stream) -> Any:
        del self.streams[stream.number]
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: Stream) -> Any:
        if stream.captured is not None:
            stream.broken = True
            return (Error.cudaErrorStreamCaptureUnsupported,)
        queued, stream.queued = stream.queued, []
        for work in queued:
            work()
            self.done += work.__name__ != "happen"
        return (Error.cudaSuccess,)

    def cudaEventCreate(self) -> Any:
        self._handles += 1
        self.events[self._handles] = -1
        return Error.cudaSuccess, self._handles

    def cudaEventDestroy(self, event: int) -> Any:
        del self.events[event]
        return (Error.cudaSuccess,)

    def cudaEventRecord(self, event: int, stream: Stream) -> Any:
        """An event happens when the stream comes to it; here its time is the work done before, 1 ms each."""

        def happen() -> None:
            self.events[event] = self.done

        stream.add(happen)
        return (Error.cudaSuccess,)

    def cudaEventElapsedTime(self, start: int, end: int) -> Any:
        if min(self.events[start], self.events[end]) < 0:
            return Error.cudaErrorNotReady, None
        return Error.cudaSuccess, float(self.events[end] - self.events[start])

    def cudaStreamBeginCapture(self, stream: Stream, mode: CaptureMode) -> Any:
        stream.captured, stream.broken = [], not self.capturable
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Stream) -> Any:
        captured, stream.captured = stream.captured, None
        if stream.broken:
            return Error.cudaErrorStreamCaptureUnsupported, None
        return Error.cudaSuccess, captured

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        self._handles += 1
        self.graphs.add(self._handles)
        return Error.cudaSuccess, (self._handles, graph)

    def cudaGraphDestroy(self, graph: Any) -> Any:
        return (Error.cudaSuccess,)

    def cudaGraphLaunch(self, executable: Any, stream: Stream) -> Any:
        number, works = executable
        if number not in self.graphs:
            return (Error.cudaErrorInvalidValue,)
        for work in works:
            stream.add(work)
        return (Error.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable: Any) -> Any:
        self.graphs.remove(executable[0])
        return (Error.cudaSuccess,)


def modules(double: CudaDouble) -> dict[str, Any]:
    """For ``sys.modules``, so that ``from cuda.bindings import runtime`` finds the double."""
    bindings = SimpleNamespace(runtime=double, __version__="double", __path__=[])
    return {
        "cuda": SimpleNamespace(bindings=bindings, __path__=[]),
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": double,
    }
