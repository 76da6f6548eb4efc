"""The real cuda.bindings without a GPU: its functions take what the double takes, and no GPU is said."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_deeplab.runtimes.cuda_device import BindingsDevice, CudaError, open_device
from tests.trt.cuda_double import CaptureMode, CopyKind, CudaDouble, Error

runtime: Any = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")

FUNCTIONS = [
    name for name, value in vars(CudaDouble).items() if name.startswith("cuda") and inspect.isfunction(value)
]


def parameters(doc: str) -> int:
    """``cudaMalloc(size_t size)`` -> 1."""
    inside = doc.splitlines()[0].partition("(")[2].rpartition(")")[0]
    return len([part for part in inside.split(",") if part.strip()])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_double_takes_what_the_real_one_takes(name: str) -> None:
    ours = len(inspect.signature(vars(CudaDouble)[name]).parameters) - 1
    assert parameters(getattr(runtime, name).__doc__) == ours


@pytest.mark.parametrize(
    ("double", "real"),
    [(Error, "cudaError_t"), (CopyKind, "cudaMemcpyKind"), (CaptureMode, "cudaStreamCaptureMode")],
)
def test_the_numbers_are_the_real_ones(double: Any, real: str) -> None:
    for member in double:
        assert int(getattr(getattr(runtime, real), member.name)) == member


def test_constants() -> None:
    assert runtime.cudaStreamNonBlocking == CudaDouble.cudaStreamNonBlocking
    assert runtime.cudaHostAllocDefault == CudaDouble.cudaHostAllocDefault


def test_properties_have_the_fields_that_are_read() -> None:
    fields = dir(runtime.cudaDeviceProp)
    assert {"name", "major", "minor"} <= set(fields)


def test_no_gpu_is_one_line() -> None:
    error, count = runtime.cudaGetDeviceCount()
    if error == runtime.cudaError_t.cudaSuccess and count:
        pytest.skip("there is a GPU here")
    with pytest.raises(CudaError, match=r"the GPU cannot be used: .+ \(cudaGetDeviceCount\); see nvidia-smi"):
        BindingsDevice()


# -- the device on the double --------------------------------------------------------------------


def test_memory_goes_there_and_back(cuda: CudaDouble) -> None:
    device = BindingsDevice()
    there, back = (device.buffer((2, 3), np.dtype(np.float32)) for _ in range(2))
    assert not there.host.any()  # what was in memory before is not shown to anybody
    there.host[:] = np.arange(6).reshape(2, 3)
    device.upload(there, 2)
    back.pointer = there.pointer
    device.download(back, 1)
    assert not back.host.any()  # nothing has happened yet
    device.synchronize()
    np.testing.assert_array_equal(back.host, [[0, 1, 2], [0, 0, 0]])


def test_events_around_what_was_queued(cuda: CudaDouble) -> None:
    """Two copies, a millisecond each on the double; nothing is timed that was queued before."""
    device = BindingsDevice()
    buffer = device.buffer((1,), np.dtype(np.uint8))

    def two_copies() -> None:
        device.upload(buffer, 1)
        device.download(buffer, 1)

    device.upload(buffer, 1)
    assert device.elapsed(two_copies) == 2
    assert device.elapsed(two_copies) == 2
    assert len(cuda.events) == 2  # made once
    device.close()
    assert not cuda.events


def test_an_exception_while_recording_leaves_a_usable_stream(cuda: CudaDouble) -> None:
    device = BindingsDevice()
    buffer = device.buffer((1,), np.dtype(np.uint8))

    def work() -> None:
        device.upload(buffer, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.capture(work)
    device.upload(buffer, 1)
    device.synchronize()
    device.close()
    assert not cuda.memory
    assert not cuda.streams


def test_not_enough_memory(cuda: CudaDouble) -> None:
    device = BindingsDevice()
    cuda.failures["cudaMalloc"] = Error.cudaErrorMemoryAllocation
    with pytest.raises(CudaError, match=r"out of memory \(cudaMalloc\)"):
        device.buffer((1,), np.dtype(np.uint8))
    device.close()
    assert not cuda.memory


def test_a_loaded_torch_is_preferred(cuda: CudaDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not imported for it."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert isinstance(open_device(), BindingsDevice)
    assert "torch" not in sys.modules
    seen = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, device_count=lambda: 0))
    monkeypatch.setitem(sys.modules, "torch", seen)  # type: ignore[arg-type]
    with pytest.raises(CudaError, match="there is no GPU 0: torch sees 0"):
        open_device()
    seen.cuda.is_available = lambda: False
    assert isinstance(open_device(), BindingsDevice)


def test_torchs_names_exist() -> None:
    torch = pytest.importorskip("torch")
    for name in (
        "is_available",
        "device_count",
        "get_device_name",
        "get_device_capability",
        "Stream",
        "stream",
        "set_device",
        "CUDAGraph",
        "Event",
        "graph",
    ):
        assert hasattr(torch.cuda, name), name
    assert "capture_error_mode" in inspect.signature(torch.cuda.graph.__init__).parameters
    assert "stream" in inspect.signature(torch.cuda.graph.__init__).parameters
    assert hasattr(torch.cuda.CUDAGraph, "replay")
    assert hasattr(torch.cuda.CUDAGraph, "reset")
    assert hasattr(torch.cuda.Stream, "synchronize")
