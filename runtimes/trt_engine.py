"""A deserialised TensorRT engine: tensors by name, pinned buffers, one CUDA graph per batch size.

Only names that exist in TensorRT 8.6, 10 and 11 alike are used here (``num_io_tensors``,
``set_tensor_address``, ``execute_async_v3``); what differs between them concerns building, and stands
in ``export/trt_builder.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import MissingExtra, UserError
from edge_deeplab.runtimes.cuda_device import Buffer, CudaError, Device, Graph

DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
}
"""TensorRT's own ``nptype`` fails in 8.6 with numpy 1.24 and newer: it names ``numpy.bool``."""

LANES = 8
"""Batch sizes whose contexts and graphs are kept; the least recently used one goes."""


class EngineError(UserError):
    """TensorRT refused an engine or an inference."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: its name, numpy dtype, and shape with -1 for a dynamic axis."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def import_tensorrt() -> Any:
    """The ``tensorrt`` module.

    Raises:
        MissingExtra: It is not installed. It names both ways to get it.
    """
    try:
        import tensorrt
    except ImportError as error:  # also: the package is there, its libraries are not
        raise MissingExtra(
            f"TensorRT is not installed ({error}); cure: on a Jetson apt install python3-libnvinfer, "
            "elsewhere pip install 'edge-deeplab[trt]'"
        ) from error
    return tensorrt


def make_logger(trt: Any) -> Any:
    """A logger that keeps what TensorRT complained about instead of printing it.

    Its ``complaints`` are the errors since they were last cleared, ``doubts`` the warnings.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.complaints: list[str] = []
            self.doubts: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from its own threads too."""
            kinds = trt.ILogger.Severity
            if severity in (kinds.ERROR, kinds.INTERNAL_ERROR):
                self.complaints.append(message)
            elif severity == kinds.WARNING:
                self.doubts.append(message)

        def reason(self) -> str:
            """The first complaint, in one line; later ones follow from it."""
            return " ".join(self.complaints[0].split()) if self.complaints else "TensorRT gave no reason"

    return Log()


class Engine:
    """An engine ready to run, with one input and one output.

    Args:
        trt: The ``tensorrt`` module.
        data: The serialised engine. It must come from somebody you trust: it is machine code.
        device: The GPU.
        source: Name for messages.
        largest: Largest batch; more rows are run in several goes.
        smallest: Smallest batch; fewer rows are filled up.
        host_code: Allow the host code that version-compatible engines carry.
        dla_core: DLA core the engine was built for.
        graph: Record inferences as CUDA graphs and replay them.

    Attributes:
        watched: Time every run by CUDA events too.
        accelerator_ms: GPU time of the last run while watched, both copies included.

    Raises:
        EngineError: TensorRT cannot read it.
    """

    def __init__(
        self,
        trt: Any,
        data: bytes,
        device: Device,
        *,
        source: str,
        smallest: int = 1,
        largest: int = 1,
        host_code: bool = False,
        dla_core: int | None = None,
        graph: bool = True,
    ) -> None:
        self._trt, self._device, self._source = trt, device, source
        self._smallest, self._largest = smallest, largest
        self._log = make_logger(trt)
        self.graph_refused = "" if graph else "switched off"
        self.watched, self.accelerator_ms = False, 0.0
        try:
            runtime = trt.Runtime(self._log)
        except TypeError as error:  # pybind11's way to say that the factory returned null
            raise EngineError(f"{source}: TensorRT cannot start: {self._log.reason()}") from error
        runtime.engine_host_code_allowed = host_code
        if dla_core is not None:
            runtime.DLA_core = dla_core
        self._runtime = runtime
        self._engine = runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(f"{source} was refused by TensorRT {trt.__version__}: {self._log.reason()}")
        self.input, self.output = self._tensors()
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()
        self._made = 0
        self._given = device.buffer(self._sized(self.input.shape, largest), self.input.dtype)
        self._answered = device.buffer(self._sized(self.output.shape, largest), self.output.dtype)

    def _tensors(self) -> tuple[TensorInfo, TensorInfo]:
        engine, mode = self._engine, self._trt.TensorIOMode
        found: dict[Any, list[TensorInfo]] = {mode.INPUT: [], mode.OUTPUT: []}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kind = engine.get_tensor_dtype(name).name
            if kind not in DTYPES:
                raise EngineError(f"{self._source}: tensor {name!r} has type {kind}, which is not supported")
            shape = tuple(engine.get_tensor_shape(name))
            found[engine.get_tensor_mode(name)].append(TensorInfo(name, DTYPES[kind], shape))
        inputs, outputs = found[mode.INPUT], found[mode.OUTPUT]
        if len(inputs) != 1 or len(outputs) != 1:
            raise EngineError(
                f"{self._source} has {len(inputs)} inputs and {len(outputs)} outputs; one of each is expected"
            )
        return inputs[0], outputs[0]

    @staticmethod
    def _sized(shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
        return (batch if shape[0] < 0 else shape[0], *shape[1:])

    @property
    def dynamic(self) -> bool:
        """The batch may change."""
        return self.input.shape[0] < 0

    def run(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Input tensor (N, ...) of any N -> output tensor (N, ...), the caller's own copy.

        Raises:
            UserError: The tensor has another shape or dtype than the engine's input.
        """
        if tensor.dtype != self.input.dtype or tensor.shape[1:] != self.input.shape[1:]:
            raise UserError(
                f"{self._source} takes {self.input.dtype} {list(self.input.shape)}, "
                f"not {tensor.dtype} {list(tensor.shape)}"
            )
        if self._engine is None:
            raise UserError(f"{self._source} was closed; open the model again")
        self._device.activate()
        self.accelerator_ms = 0.0
        most = self._given.host.shape[0]
        parts = [self._part(tensor[start : start + most]) for start in range(0, len(tensor), most)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _part(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """At most the largest batch."""
        rows = len(tensor)
        batch = max(rows, self._smallest) if self.dynamic else self._given.host.shape[0]
        self._given.host[:rows] = tensor  # rows beyond are leftovers; their answers are dropped
        work = self._lane(batch)
        if self.watched:
            self.accelerator_ms += self._device.elapsed(work)
        else:
            work()
            self._device.synchronize()
        return self._answered.host[:rows].copy()

    def _lane(self, batch: int) -> Callable[[], None]:
        """What queues copy, inference and copy back for this batch size."""
        lane = self._lanes.get(batch)
        if lane is None:
            while len(self._lanes) >= LANES:
                self._lanes.popitem(last=False)[1].close()
            lane = self._lanes[batch] = self._new_lane(batch)
        self._lanes.move_to_end(batch)
        return lane.go

    def _new_lane(self, batch: int) -> _Lane:
        """A context of its own: a graph replays what its context held when it was recorded."""
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"{self._source}: no execution context: {self._log.reason()}")
        if self.dynamic:
            # Only an engine's first context has its profile set already.
            if self._made and not context.set_optimization_profile_async(0, self._device.stream):
                raise EngineError(f"{self._source}: no optimization profile: {self._log.reason()}")
            if not context.set_input_shape(self.input.name, (batch, *self.input.shape[1:])):
                raise EngineError(f"{self._source} does not take a batch of {batch}: {self._log.reason()}")
        self._made += 1
        for info, buffer in ((self.input, self._given), (self.output, self._answered)):
            if not context.set_tensor_address(info.name, buffer.pointer):
                raise EngineError(f"{self._source}: tensor {info.name!r} was refused: {self._log.reason()}")
        lane = _Lane(context, self._device, self._given, self._answered, batch, self._refused)
        if not self.graph_refused:
            self.graph_refused = lane.record()
        return lane

    def _refused(self) -> EngineError:
        return EngineError(f"{self._source}: inference failed: {self._log.reason()}")

    def close(self) -> None:
        """Free contexts, engine and buffers, in the order TensorRT asks for."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()
        self._engine = self._runtime = None
        self._device.close()


@dataclass
class _Lane:
    """One batch size: its context, and its graph once recorded."""

    context: Any
    device: Device
    given: Buffer
    answered: Buffer
    batch: int
    refused: Callable[[], EngineError]
    graph: Graph | None = None

    def go(self) -> None:
        """Queue copy, inference and copy back."""
        if self.graph is None:
            self._queue()
        else:
            self.graph.replay()

    def close(self) -> None:
        """Free graph and context, in that order."""
        if self.graph is not None:
            self.graph.close()
        self.graph = self.context = None

    def _queue(self) -> None:
        self.device.upload(self.given, self.batch)
        if not self.context.execute_async_v3(self.device.stream):
            raise self.refused()
        self.device.download(self.answered, self.batch)

    def record(self) -> str:
        """Record a graph; the answer says why there is none, and is empty when there is one."""
        # TensorRT finishes setting up in the first call, with operations that no graph can hold.
        self._queue()
        self.device.synchronize()
        try:
            self.graph = self.device.capture(self._queue)
        except (CudaError, EngineError, RuntimeError) as error:
            return str(error)
        return ""
