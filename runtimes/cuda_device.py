"""One NVIDIA GPU: pinned buffers, a stream and CUDA graphs, through cuda-python or a loaded torch.

TensorRT takes device addresses and a stream; who allocates them is the caller's choice. torch is used
where the process has imported it already, so that both share one allocator; else ``cuda.bindings``,
a small package without a framework.
"""

from __future__ import annotations

import ctypes
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs


class CudaError(UserError):
    """A call into CUDA failed: no usable GPU, not enough memory, a lost device."""


@dataclass
class Buffer:
    """Memory on both sides.

    Attributes:
        host: Pinned (page-locked) array, which the GPU copies from and to by itself.
        pointer: Address of as many bytes on the GPU.
        owners: Kept alive as long as the buffer is.
    """

    host: NDArray[Any]
    pointer: int
    owners: tuple[Any, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Graph:
    """Recorded work: ``replay()`` queues all of it with one call, ``close()`` frees it."""

    replay: Callable[[], None]
    close: Callable[[], None]


class Device(ABC):
    """A GPU and one stream on it. Not safe to share between threads without a lock.

    Attributes:
        name: As the driver calls it, e.g. ``Orin``.
        capability: Compute capability, e.g. (8, 7).
        library: Who talks to CUDA, with its version.
        stream: The stream's handle, for ``execute_async_v3``.
    """

    name: str
    capability: tuple[int, int]
    library: str
    stream: int

    @abstractmethod
    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """Zeroed pinned memory, and room for it on the GPU."""

    @abstractmethod
    def upload(self, buffer: Buffer, count: int) -> None:
        """Queue the copy of the first ``count`` rows to the GPU."""

    @abstractmethod
    def download(self, buffer: Buffer, count: int) -> None:
        """Queue the copy of the first ``count`` rows from the GPU."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything queued is done."""

    @abstractmethod
    def elapsed(self, work: Callable[[], None]) -> float:
        """Run what ``work`` queues, wait for it, and answer the milliseconds between events around it."""

    @abstractmethod
    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what ``work`` queues, without running it, as a CUDA graph."""

    @abstractmethod
    def activate(self) -> None:
        """Make this the calling thread's GPU."""

    @abstractmethod
    def close(self) -> None:
        """Free buffers and stream."""


def open_device(index: int = 0) -> Device:
    """The GPU of that number.

    Raises:
        MissingExtra: Neither cuda-bindings is installed nor torch loaded.
        CudaError: There is no such GPU or no driver for it.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return TorchDevice(torch, index)
    return BindingsDevice(index)


class BindingsDevice(Device):
    """CUDA through ``cuda.bindings.runtime``, the low-level part of cuda-python."""

    def __init__(self, index: int = 0) -> None:
        with needs("trt"):
            import cuda.bindings as bindings
            from cuda.bindings import runtime
        self._cuda: Any = runtime
        self._index = index
        self._freed_by: list[tuple[str, Any]] = []
        self._events: tuple[Any, ...] = ()
        found = self._call("cudaGetDeviceCount")
        if index >= found:
            raise CudaError(f"there is no GPU {index}: CUDA sees {found} of them, numbered from 0")
        self.activate()
        properties = self._call("cudaGetDeviceProperties", index)
        self.name = bytes(properties.name).partition(b"\0")[0].decode()
        self.capability = (properties.major, properties.minor)
        self.library = f"cuda-bindings {bindings.__version__}"
        # A stream of its own: graphs cannot be captured on the default one.
        self._stream = self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        self._freed_by.append(("cudaStreamDestroy", self._stream))
        self.stream = int(self._stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call and return what comes after the error code."""
        error, *values = getattr(self._cuda, function)(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            _, text = self._cuda.cudaGetErrorString(error)
            raise CudaError(f"the GPU cannot be used: {text.decode()} ({function}); see nvidia-smi")
        return values[0] if values else None

    def activate(self) -> None:
        """Make this the calling thread's GPU."""
        self._call("cudaSetDevice", self._index)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """Zeroed pinned memory, and room for it on the GPU."""
        size = int(np.prod(shape)) * dtype.itemsize
        pinned = int(self._call("cudaHostAlloc", size, self._cuda.cudaHostAllocDefault))
        self._freed_by.append(("cudaFreeHost", pinned))
        pointer = int(self._call("cudaMalloc", size))
        self._freed_by.append(("cudaFree", pointer))
        raw = (ctypes.c_uint8 * size).from_address(pinned)
        host = np.frombuffer(memoryview(raw), dtype).reshape(shape)
        host[:] = 0
        return Buffer(host, pointer)

    def upload(self, buffer: Buffer, count: int) -> None:
        """Queue the copy of the first ``count`` rows to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        rows = buffer.host[:count]
        self._call("cudaMemcpyAsync", buffer.pointer, rows.ctypes.data, rows.nbytes, kind, self._stream)

    def download(self, buffer: Buffer, count: int) -> None:
        """Queue the copy of the first ``count`` rows from the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        rows = buffer.host[:count]
        self._call("cudaMemcpyAsync", rows.ctypes.data, buffer.pointer, rows.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        self._call("cudaStreamSynchronize", self._stream)

    def elapsed(self, work: Callable[[], None]) -> float:
        """Run what ``work`` queues, wait for it, and answer the milliseconds between events around it."""
        if not self._events:
            self._events = (self._call("cudaEventCreate"), self._call("cudaEventCreate"))
            self._freed_by += [("cudaEventDestroy", event) for event in self._events]
        start, end = self._events
        self._call("cudaEventRecord", start, self._stream)
        work()
        self._call("cudaEventRecord", end, self._stream)
        self.synchronize()
        return float(self._call("cudaEventElapsedTime", start, end))

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what ``work`` queues, without running it, as a CUDA graph."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            # The stream must leave capture mode; that the graph is no good is known already.
            self._cuda.cudaStreamEndCapture(self._stream)
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        return Graph(
            lambda: self._call("cudaGraphLaunch", executable, self._stream),
            lambda: self._call("cudaGraphExecDestroy", executable),
        )

    def close(self) -> None:
        """Free buffers and stream, the last made first."""
        while self._freed_by:
            function, handle = self._freed_by.pop()
            self._call(function, handle)


class TorchDevice(Device):
    """CUDA through a torch that the process has loaded anyway."""

    def __init__(self, torch: Any, index: int = 0) -> None:
        self._torch = torch
        found = torch.cuda.device_count()
        if index >= found:
            raise CudaError(f"there is no GPU {index}: torch sees {found} of them, numbered from 0")
        self._device = torch.device("cuda", index)
        self.name = torch.cuda.get_device_name(self._device)
        self.capability = torch.cuda.get_device_capability(self._device)
        self.library = f"torch {torch.__version__}"
        self._stream = torch.cuda.Stream(self._device)
        self.stream = self._stream.cuda_stream

    def activate(self) -> None:
        """Make this the calling thread's GPU."""
        self._torch.cuda.set_device(self._device)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """Zeroed pinned memory, and room for it on the GPU."""
        kind = self._torch.from_numpy(np.empty(0, dtype)).dtype
        host = self._torch.zeros(shape, dtype=kind, pin_memory=True)
        there = self._torch.empty(shape, dtype=kind, device=self._device)
        return Buffer(host.numpy(), there.data_ptr(), (host, there))

    def upload(self, buffer: Buffer, count: int) -> None:
        """Queue the copy of the first ``count`` rows to the GPU."""
        host, there = buffer.owners
        with self._torch.cuda.stream(self._stream):
            there[:count].copy_(host[:count], non_blocking=True)

    def download(self, buffer: Buffer, count: int) -> None:
        """Queue the copy of the first ``count`` rows from the GPU."""
        host, there = buffer.owners
        with self._torch.cuda.stream(self._stream):
            host[:count].copy_(there[:count], non_blocking=True)

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        self._stream.synchronize()

    def elapsed(self, work: Callable[[], None]) -> float:
        """Run what ``work`` queues, wait for it, and answer the milliseconds between events around it."""
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(self._stream)
        work()
        end.record(self._stream)
        self.synchronize()
        return float(start.elapsed_time(end))

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what ``work`` queues, without running it, as a CUDA graph."""
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()

        def replay() -> None:
            with self._torch.cuda.stream(self._stream):
                graph.replay()

        return Graph(replay, graph.reset)

    def close(self) -> None:
        """Nothing to do: torch frees what nobody refers to."""
