"""The worker from its bundle alone: no installation, no torch, no weights."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.bench.bundle import bundle, files
from edge_deeplab.bench.record import Contender, Job, Plan, Result

SAFELY: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Older Pythons 3.10 and 3.11 have no filters; newer ones want one."""


def test_it_is_small_and_holds_no_weights() -> None:
    names = files()
    assert "edge_deeplab/bench/worker.py" in names
    assert all(name.endswith(".py") for name in names)
    assert not any(part in name for name in names for part in ("/models/", "/training/", "/cli/", "/export/"))
    assert len(bundle()) < 200_000


def test_it_is_enough(toy: Path, frames: tuple[str, ...], tmp_path: Path) -> None:
    """In a Python that sees numpy, OpenCV and ONNX Runtime only, and no installed edge-deeplab."""
    onnxruntime = pytest.importorskip("onnxruntime")
    with tarfile.open(fileobj=io.BytesIO(bundle())) as archive:
        archive.extractall(tmp_path / "there", **SAFELY)
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for module in (np, cv2, onnxruntime):
        package = Path(module.__file__).parent
        for path in package.parent.glob(f"{package.name}*"):  # the package, its metadata and its libraries
            (libraries / path.name).symlink_to(path)
    job = Job((Contender("toy", str(toy)),), Plan(min_queries=5, min_seconds=0.01, rounds=2, loads=1), frames)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "edge_deeplab.bench.worker", "-"],
        input=job.to_json(),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path / 'there'}:{libraries}", "PYTHONNOUSERSITE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = Result.from_json(json.dumps(json.loads(done.stdout.splitlines()[-1])["result"]))
    assert result.entries[0].error is None, result.entries[0].error
    assert result.entries[0].stages["pipeline"].count >= 5
