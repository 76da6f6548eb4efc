"""Fixtures of the export tests: they need PyTorch and the exporter's packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.runtimes.artefacts import nano_checkpoint

NEEDED = ("torch", "safetensors", "onnx", "onnxscript", "onnxsim", "onnxruntime")
collect_ignore_glob = [] if all(importlib.util.find_spec(name) for name in NEEDED) else ["test_*.py"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's shared models lie."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def checkpoint(folder: Path) -> Path:
    """A checkpoint of a small random network."""
    return nano_checkpoint(folder)
