"""PyTorch in the ways people deploy it: eager, ``torch.compile``, and a captured CUDA graph.

On a GPU the network alone is timed by CUDA events too (stage ``device``), beside the time end to end that
includes the copies there and back. The CUDA graph was written against PyTorch's documentation and its
capture rules; see docs/benchmarking.md for what has been run on real hardware.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from edge_deeplab.errors import UserError
from edge_deeplab.runtimes.base import Runtime
from edge_deeplab.runtimes.on_torch import TorchRuntime

Mode = Literal["eager", "compiled", "cuda-graph"]
MODES: tuple[str, ...] = get_args(Mode)


class TorchMode(TorchRuntime):
    """A PyTorch model whose network is called in one of :data:`MODES`.

    Attributes:
        accelerator_ms: GPU time of the last inference by CUDA events; None on a CPU.
    """

    accelerator_ms: float | None = None

    def start(self, mode: Mode) -> None:
        """Prepare the network.

        Raises:
            UserError: The mode needs a GPU, or a compiler that is missing.
        """
        torch = self._torch
        self.mode = mode
        self._on_gpu = self.device.type == "cuda"
        if mode == "cuda-graph" and not self._on_gpu:
            raise UserError("a CUDA graph needs a GPU: give --torch-device cuda")
        if self._on_gpu:
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        self._network: Any = self.model
        if mode == "compiled":
            self._network = torch.compile(self.model)
        elif mode == "cuda-graph":
            self._network = self._captured()

    def describe(self) -> dict[str, str]:
        """Device, threads and mode."""
        found = {**super().describe(), "mode": self.mode}
        if self._on_gpu:
            found["gpu"] = self._torch.cuda.get_device_name(self.device)
        return found

    def accelerator_bytes(self) -> int | None:
        """The most GPU memory that tensors ever took; None on a CPU."""
        return int(self._torch.cuda.max_memory_allocated(self.device)) if self._on_gpu else None

    def infer(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """As :meth:`TorchRuntime.infer`, with the network timed by events where there are any."""
        torch = self._torch
        try:
            with torch.inference_mode():
                x = torch.from_numpy(tensor).to(self.device)
                y = self._timed(x) if self._on_gpu else self._network(x)
                y = y.cpu()
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UserError(
                f"torch.compile failed: {' '.join(str(error).split())[:200]}; "
                "it needs a C++ compiler (apt install g++) and on GPUs triton"
            ) from error
        output: NDArray[Any] = (y.float() if y.is_floating_point() else y).numpy()
        return output

    def _timed(self, x: Any) -> Any:
        start, end = self._events
        start.record()
        y = self._network(x)
        end.record()
        end.synchronize()
        self.accelerator_ms = start.elapsed_time(end)
        return y

    def _captured(self) -> Any:
        """The network as one CUDA graph: fixed memory in, fixed memory out, one launch."""
        torch, contract = self._torch, self.contract
        x = torch.zeros(1, 3, contract.height, contract.width, device=self.device)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.inference_mode(), torch.cuda.stream(side):
            for _ in range(3):  # lets cuDNN choose its algorithms outside the capture
                self.model(x)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            y = self.model(x)

        def replay(given: Any) -> Any:
            if given.shape != x.shape:
                raise UserError(f"the CUDA graph was captured for {list(x.shape)}, not {list(given.shape)}")
            x.copy_(given)
            graph.replay()
            return y

        return replay


def open_mode(path: str, *, mode: str, **options: Any) -> Runtime:
    """Open a checkpoint in one of :data:`MODES`; the other options are ``open_model``'s.

    Raises:
        UserError: Not a checkpoint, no such mode, or it cannot be used here.
    """
    if Path(path).suffix not in TorchRuntime.suffixes:
        raise UserError(f"{path} does not run in PyTorch; modes are for checkpoints")
    if mode not in MODES:
        raise UserError(f"no mode {mode!r}; PyTorch runs {', '.join(MODES)}")
    runtime = TorchMode.open(path, **options)
    if not isinstance(runtime, TorchMode):
        raise TypeError(f"{type(runtime).__name__} is no TorchMode")
    runtime.start(mode)  # type: ignore[arg-type]
    return runtime
