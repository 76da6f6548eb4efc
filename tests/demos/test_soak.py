"""``benchmarks/soak.py``: that it would notice, and that it drives the real command."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_deeplab.errors import UserError
from tests.demos.support import frames_of, make_film
from tests.runtimes.artefacts import toy_onnx

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SAID = "3000 frames in 100.0 s, 30.0 a second; 0 of 3000 dropped\nstopped\n"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("soak")


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("webcam_process")


def watched(soak: ModuleType, *, growth: float = 0.0, last_fps: float = 30.0) -> list[Any]:
    """A run of 220 s: memory grows evenly, the frame rate changes in its middle."""
    lines: list[dict[str, Any]] = []
    shown = 0.0
    for second in range(1, 220):
        fps = 30.0 if second < 110 else last_fps
        shown += fps
        latency = {"p50": 15.0, "p90": 18.0, "p99": 20.0}
        lines.append(
            {
                "seconds": second,
                "shown": shown,
                "dropped": second,
                "fps": fps,
                "latency_ms": latency,
                "cores": 0.6,
            }
        )
    samples = [soak.Sample(s, 200 + growth * s / 220, 100) for s in range(5, 221, 5)]
    return list(soak.parts_of(lines, samples, 20))


def test_a_steady_run_passes(soak: ModuleType) -> None:
    parts = watched(soak)
    assert len(parts) == soak.PARTS
    assert parts[-1].fps == pytest.approx(30)
    assert parts[-1].dropped == pytest.approx(19, abs=1)
    assert parts[-1].cpu_ms == pytest.approx(20)
    assert all(verdict.good for verdict in soak.judge(parts, 130, SAID))


@pytest.mark.parametrize(
    ("changed", "status", "said", "bad"),
    [
        ({"growth": 15.0}, 130, SAID, 0),
        ({"last_fps": 29.5}, 130, SAID, 1),
        ({}, 0, SAID, 2),
        ({}, 130, SAID + "Traceback (most recent call last):", 2),
        ({}, 130, "stopped\n", 2),
    ],
)
def test_what_is_wrong_is_noticed(
    soak: ModuleType, changed: dict[str, float], status: int, said: str, bad: int
) -> None:
    verdicts = soak.judge(watched(soak, **changed), status, said)
    assert [k for k, verdict in enumerate(verdicts) if not verdict.good] == [bad]


def test_a_cut_recording_is_noticed(soak: ModuleType, tmp_path: Path) -> None:
    film = make_film(tmp_path / "x.mp4", 20)
    assert soak.whole(film).good
    (tmp_path / ".part-x.mp4").write_bytes(b"x")
    assert not soak.whole(film).good


def test_too_short_a_run_is_not_judged(soak: ModuleType) -> None:
    with pytest.raises(UserError, match="too short"):
        soak.parts_of([], [soak.Sample(5, 1, 1)], 1)


def test_the_real_command_is_watched_and_stopped(
    process: ModuleType, soak: ModuleType, tmp_path: Path
) -> None:
    clips = [make_film(tmp_path / f"{k}.mp4", 6) for k in range(2)]
    film = process.joined(clips, tmp_path / "joined.mp4")
    assert len(frames_of(film)) == 12
    model = toy_onnx(tmp_path / "toy.onnx")
    with process.Webcam([str(film), "--headless", "--loop", "--model", str(model)]) as webcam:
        deadline = time.monotonic() + 180
        while not webcam.lines() and webcam.running() and time.monotonic() < deadline:
            time.sleep(0.1)
        sample = soak.memory(webcam.process.pid, 1.0)
        status, said = webcam.interrupt()
        lines = webcam.lines()
    assert (status, said.splitlines()[-1]) == (130, "stopped"), said
    assert 10 < sample.own <= sample.resident
    assert lines[0]["shown"] > 0
    assert lines[0]["captured"] >= lines[0]["shown"]
    assert set(lines[0]["latency_ms"]) == {"p50", "p90", "p99"}
    with pytest.raises(UserError, match="it has ended"):
        soak.memory(webcam.process.pid, 1.0)
