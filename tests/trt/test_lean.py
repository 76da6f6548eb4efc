"""TensorRT's lean runtime 11.4, which can be installed without the rest: what really happens without a GPU.

Skips where ``tensorrt-lean-cu13-bindings`` and ``-libs`` are not installed, or where there is a GPU.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(f"tensorrt_lean_{part}") is None for part in ("bindings", "libs")),
    reason="needs: pip install tensorrt-lean-cu13-bindings tensorrt-lean-cu13-libs",
)

AS_TENSORRT = """
import sys
import tensorrt_lean_bindings as trt
sys.modules["tensorrt"] = trt
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS_TENSORRT + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.fixture(scope="module", autouse=True)
def no_gpu() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    error, count = runtime.cudaGetDeviceCount()
    if error == runtime.cudaError_t.cudaSuccess and count:
        pytest.skip("there is a GPU here")


def test_it_is_the_real_one() -> None:
    assert run("print(trt.__version__, hasattr(trt, 'Builder'))").stdout.split() == ["11.4.0.106", "False"]


def test_our_logger_hears_that_there_is_no_gpu() -> None:
    script = """
from edge_deeplab.runtimes.trt_engine import make_logger
log = make_logger(trt)
kept = trt.Runtime(log)
print(log.reason(), flush=True)
"""
    done = run(script)
    assert "CUDA initialization failure with error: 35" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    "use",
    ["", "made.deserialize_cuda_engine(b'')", "made.deserialize_cuda_engine(b'garbage' * 100)"],
    ids=["nothing", "empty", "garbage"],
)
def test_without_a_gpu_it_crashes(use: str) -> None:
    """Why the project asks CUDA for a GPU first: even freeing a runtime is a segmentation fault."""
    done = run(f"made = trt.Runtime(trt.Logger())\n{use}\ndel made\nprint('alive', flush=True)")
    assert done.returncode < 0, done.stdout + done.stderr
    assert "alive" not in done.stdout


OPEN = """
from edge_deeplab.errors import UserError
from edge_deeplab.runtimes import open_model
try:
    open_model(sys.argv[1])
except UserError as error:
    print(type(error).__name__, error)
"""


def engine(folder: Path, data: bytes) -> Path:
    """A file that a sidecar vouches for, as far as bytes go."""
    import hashlib

    from edge_deeplab.runtimes.trt_sidecar import write_sidecar
    from tests.trt.test_sidecar import sidecar

    path = folder / "x.engine"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    write_sidecar(path, sidecar(engine_sha256=digest, tensorrt="11.4.0.106"))
    return path


def test_the_runtime_says_that_there_is_no_gpu(tmp_path: Path) -> None:
    done = run(OPEN, engine(tmp_path, b"garbage" * 100))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CudaError the GPU cannot be used: ")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_an_empty_engine_never_gets_that_far(tmp_path: Path) -> None:
    path = engine(tmp_path, b"garbage")
    path.write_bytes(b"")
    assert "the file is empty (0 bytes)" in run(OPEN, path).stdout


def test_a_garbage_engine_never_gets_that_far(tmp_path: Path) -> None:
    path = engine(tmp_path, b"the engine")
    path.write_bytes(b"garbage")
    assert "is damaged or not the engine that x.engine.json describes" in run(OPEN, path).stdout
