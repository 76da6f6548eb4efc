"""Fixtures of the runtimes' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtimes.artefacts import toy_onnx


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The toy as a file, see :func:`tests.runtimes.artefacts.toy_onnx`."""
    return toy_onnx(tmp_path / "toy.onnx")
