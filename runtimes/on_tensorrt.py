"""TensorRT: ``.engine`` files with the sidecar that ``export --target trt`` writes beside them."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from numpy.typing import NDArray

from edge_deeplab.errors import UserError
from edge_deeplab.runtimes.base import Runtime
from edge_deeplab.runtimes.cuda_device import open_device
from edge_deeplab.runtimes.trt_engine import Engine, import_tensorrt
from edge_deeplab.runtimes.trt_sidecar import Sidecar, read_engine


class TensorRTRuntime(Runtime):
    """Runs a TensorRT engine on one GPU.

    Args:
        engine: The engine, deserialised.
        sidecar: The record beside it.
        about: GPU and libraries, for :meth:`describe`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".engine",)
    extra: ClassVar[str] = "trt"
    title: ClassVar[str] = "TensorRT"

    def __init__(self, engine: Engine, sidecar: Sidecar, about: dict[str, str]) -> None:
        super().__init__(sidecar.contract)
        self._engine, self._sidecar, self._about = engine, sidecar, about

    @classmethod
    def open(cls, path: str, **options: Any) -> TensorRTRuntime:
        """Load an engine after checking it against its sidecar, this TensorRT and this GPU.

        Args:
            path: ``.engine`` with ``.engine.json`` beside it. Open only engines from people you trust:
                an engine is machine code, and the sidecar tells damage and mix-ups, not malice.
            **options: ``device``, number of the GPU or ``cuda:0``; ``cuda_graph``, False to queue every
                inference anew; ``threads`` has no meaning here and is not looked at.
        """
        return cls._open(path, **options)

    @classmethod
    def _open(
        cls, path: str, *, threads: int | None = None, device: int | str = 0, cuda_graph: bool = True
    ) -> TensorRTRuntime:
        del threads
        data, sidecar = read_engine(path)
        trt = import_tensorrt()
        # Before TensorRT sees the engine: without a GPU it crashes in deserialize_cuda_engine (11.4).
        gpu = open_device(_number(device))
        try:
            doubts = sidecar.check_host(
                path, tensorrt=trt.__version__, capability=gpu.capability, gpu=gpu.name
            )
            engine = Engine(
                trt,
                data,
                gpu,
                source=path,
                smallest=sidecar.batch[0],
                largest=sidecar.batch[2],
                host_code=sidecar.version_compatible,
                dla_core=sidecar.dla_core,
                graph=cuda_graph,
            )
            _compare(engine, sidecar, path)
        except BaseException:
            gpu.close()
            raise
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=3)
        capability = f"{gpu.capability[0]}.{gpu.capability[1]}"
        about = {"device": f"{gpu.name}, compute capability {capability}", "cuda through": gpu.library}
        if sidecar.dla_core is not None:
            about["dla core"] = str(sidecar.dla_core)
        return cls(engine, sidecar, about)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Version of TensorRT."""
        return {"tensorrt": import_tensorrt().__version__}

    def describe(self) -> dict[str, str]:
        """GPU, batch sizes, and whether CUDA graphs are replayed."""
        refused = self._engine.graph_refused
        smallest, best, largest = self._sidecar.batch
        return {
            **self._about,
            "batch": str(best) if smallest == largest else f"{smallest} to {largest}, built for {best}",
            "cuda graph": f"no: {refused}" if refused else "yes",
        }

    def infer(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Input tensor -> output tensor, both with batch axis; batches over the largest in several goes."""
        return self._engine.run(tensor)

    def watch_accelerator(self) -> None:
        """From now on :attr:`accelerator_ms` is the GPU's time of the last inference, copies included."""
        self._engine.watched = True

    @property
    def accelerator_ms(self) -> float | None:
        """Milliseconds by CUDA events; None before :meth:`watch_accelerator`."""
        return self._engine.accelerator_ms if self._engine.watched else None

    def close(self) -> None:
        """Free engine and buffers on the GPU."""
        with self._lock:
            if not self._closed:
                super().close()
                self._engine.close()


def _number(device: int | str) -> int:
    """``0``, ``"0"``, ``"cuda"`` and ``"cuda:0"`` are the first GPU."""
    text = str(device).lower().removeprefix("cuda").removeprefix(":") or "0"
    if not text.isdecimal():
        raise UserError(f"device {device!r} is no GPU; give its number, e.g. 0 or cuda:0")
    return int(text)


def _compare(engine: Engine, sidecar: Sidecar, path: str) -> None:
    """Refuse an engine whose tensors are not what the contract says."""
    contract = sidecar.contract
    plane = (contract.height, contract.width)
    low = tuple(-(-v // contract.head_stride) for v in plane)
    classmap = contract.head == "classmap"
    for name, info, dtype, channels, size in (
        ("input", engine.input, contract.dtype, 3, plane),
        ("output", engine.output, "uint8" if classmap else "float32", contract.output_channels, low),
    ):
        shape = (channels, *size) if contract.layout == "NCHW" else (*size, channels)
        if name == "output" and classmap:
            shape = size
        batch = -1 if "batch" in contract.dynamic else sidecar.batch[2]
        if info.dtype != dtype or info.shape != (batch, *shape):
            raise UserError(
                f"{path}: its {name} is {info.dtype} {list(info.shape)}, its contract says {dtype} "
                f"{[batch, *shape]}; cure: build it again from its prepared ONNX file"
            )


RUNTIME = TensorRTRuntime
