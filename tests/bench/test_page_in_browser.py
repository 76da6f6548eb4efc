"""The page in a real Chromium: nothing sticks out of a window or lies on something else."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.bench.page import page
from edge_deeplab.bench.record import Accuracy, Entry
from tests.bench.conftest import make_entry, make_result, quiet_turns

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'edge-deeplab[dev]'"
)


def test_both_windows_light_and_dark(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many contenders that are nearly alike, one far off, long names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    if importlib.import_module("fake_camera").chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    everything = importlib.import_module("everything")

    def entry(name: str, level: float, iou: float, *, peer: bool = False) -> Entry:
        scores = tuple(Accuracy(data, 150, iou, iou, 0.8) for data in ("eg/val", "ccp_upper/val"))
        return make_entry(name, quiet_turns(rng, level), accuracy=scores, peer=peer)

    alike = [entry(f"portrait-tflite-int8-dynamic-{k}.tflite", 9 + 0.05 * k, 0.967) for k in range(9)]
    others = [entry("slim 512", 24.0, 0.9671, peer=True), entry("aiseg 513", 220.0, 0.90, peer=True)]
    path = tmp_path / "bench.html"
    path.write_text(page([make_result(*alike, *others)]), encoding="utf-8")
    assert everything.shots(path) == []
    assert len(list(tmp_path.glob("bench-*.png"))) == 4
    path.write_text('<body style="margin:0"><p style="width: 500px">too wide</p>', encoding="utf-8")
    assert any("telephone" in text for text in everything.shots(path))
