"""The contract of all runtimes, on the doubles; on a machine with a GPU tests/runtimes has the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_deeplab.export.trt_settings import TrtSettings
from edge_deeplab.runtimes import Runtime, open_model
from tests.runtimes.test_contract import *  # noqa: F403
from tests.trt.cuda_double import CudaDouble, modules
from tests.trt.double import TensorRTDouble
from tests.trt.engines import make_engine

CASES = [("10.3.0", {}), ("11.4.0.106", {"dynamic": ("batch",)})]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{'any' if case[1] else 'one'}")
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An engine, while TensorRT and CUDA are doubles."""
    version, changes = request.param
    cuda = CudaDouble()
    doubles = {**modules(cuda), "tensorrt": TensorRTDouble(version, cuda)}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in doubles.items():
            patch.setitem(sys.modules, name, module)
        if "torch" in sys.modules:
            patch.setattr(sys.modules["torch"].cuda, "is_available", lambda: False)
        settings = TrtSettings(batch=(1, 2, 3)) if changes else None
        yield make_engine(tmp_path_factory.mktemp("engine"), settings=settings, **changes)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Runtime]:
    with open_model(path, threads=1) as opened:
        yield opened
