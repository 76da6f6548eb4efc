"""``benchmarks/webcam.py``: its arithmetic, and one real window."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest

from edge_deeplab.errors import UserError
from tests.demos.support import make_film
from tests.runtimes.artefacts import toy_onnx

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def webcam(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("webcam")


def line(seconds: float, frames_ms: list[float], captured: int, dropped: int) -> dict[str, Any]:
    stages = {"view": 3.0, "matte": 2.0, "preprocess": 0.5, "inference": 9.0, "postprocess": 0.5}
    return {
        "seconds": seconds, "frames_ms": frames_ms, "captured": captured, "dropped": dropped,
        "stages_ms": stages, "cores": 0.5,
    }  # fmt: skip


def test_runs_are_pooled_frame_by_frame(webcam: ModuleType) -> None:
    fast = [line(3.0, [999.0], 90, 5), line(4.0, [10.0] * 30, 120, 5), line(5.0, [10.0] * 30, 150, 5)]
    slow = [line(3.0, [999.0], 90, 40), line(4.0, [50.0] * 20, 120, 50)]
    found = webcam.figures("m", "all", "blur", [fast, slow])
    assert found.fps == pytest.approx(80 / 3)
    assert (found.captured, found.dropped) == (90, 10)
    assert (found.p50, found.p90) == (10.0, 50.0)
    assert (found.inference, found.matte, found.view) == (10.0, 2.0, 3.0)
    assert "10 of 90" in webcam.table([found])[1]


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="Xvfb is not installed")
def test_a_real_window_is_measured_and_seen(webcam: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    film, model = make_film(tmp_path / "film.mp4", 30), toy_onnx(tmp_path / "toy.onnx")
    words = [str(model), "--clip", str(film), "--mode", "side-by-side", "--seconds", "2.5", "--shots"]
    assert webcam.main([*words, "--output", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "webcam.json").read_text())["together"]
    assert 0 < row["fps"] <= 31
    assert row["p50"] <= row["p90"]
    shot = cv2.imread(str(tmp_path / "out" / "toy-film-side-by-side.png"))
    assert shot is not None
    assert shot.shape == (120, 320, 3)
    assert shot[60].max() > 200  # the disc


def test_a_demo_that_fails_is_one_line(webcam: ModuleType, tmp_path: Path) -> None:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    (tmp_path / "film.mp4").write_text("no film")
    args = [str(toy_onnx(tmp_path / "toy.onnx")), "--clip", str(tmp_path / "film.mp4")]
    assert webcam.main([*args, "--mode", "mask", "--output", str(tmp_path / "out")]) == 2


def test_without_a_virtual_screen(webcam: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(UserError, match="apt install xvfb"),
        importlib.import_module("screens").virtual_screen(),
    ):
        pass
