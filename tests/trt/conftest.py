"""Fixtures of the TensorRT tests: TensorRT and CUDA as doubles, prepared toy graphs, a cache of their own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.trt.cuda_double import CudaDouble
    from tests.trt.double import TensorRTDouble

NEEDED = ("onnx", "onnxruntime")
collect_ignore_glob = [] if all(importlib.util.find_spec(name) for name in NEEDED) else ["test_*.py"]

VERSIONS = ("8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads what another run cached."""
    monkeypatch.setenv("EDGE_DEEPLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    """CUDA on host memory instead of a GPU, and no torch that would be preferred."""
    from tests.trt.cuda_double import CudaDouble, modules

    double = CudaDouble()
    for name, module in modules(double).items():
        monkeypatch.setitem(sys.modules, name, module)
    if "torch" in sys.modules:
        monkeypatch.setattr(sys.modules["torch"].cuda, "is_available", lambda: False)
    return double


@pytest.fixture(params=VERSIONS)
def trt(
    request: pytest.FixtureRequest, cuda: CudaDouble, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TensorRTDouble]:
    """TensorRT of every version, one after the other; after the test nothing is left on the GPU."""
    from tests.trt.double import TensorRTDouble

    double = TensorRTDouble(request.param, cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", double)  # type: ignore[arg-type]
    yield double
    assert not cuda.memory, "memory on the GPU was not freed"
    assert not cuda.streams, "a stream was not destroyed"
    assert not cuda.graphs, "a graph was not destroyed"
