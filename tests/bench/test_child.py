"""One contender's turns: the three scenarios on a clock of our own, and the process with a real model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.bench import child, loop
from edge_deeplab.bench.child import Turns
from edge_deeplab.bench.record import Contender
from edge_deeplab.bench.stats import Steadiness
from edge_deeplab.bench.subject import Facts
from edge_deeplab.bench.typed import to_plain
from edge_deeplab.imaging import Frame, Labels
from edge_deeplab.runtimes import Times

FRAMES = [np.full((4, 6, 3), value, np.uint8) for value in range(10)]


class Clock:
    """Time passes only when somebody sleeps, works or looks at the clock (a microsecond each)."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Worker:
    """A subject that takes given milliseconds, and remembers the frames it saw."""

    def __init__(self, clock: Clock, *milliseconds: float) -> None:
        self.clock, self.milliseconds = clock, milliseconds
        self.seen: list[int] = []

    def segment(self, frame: Frame) -> tuple[Labels, Times]:
        ms = self.milliseconds[len(self.seen) % len(self.milliseconds)]
        self.seen.append(int(frame[0, 0, 0]))
        self.clock.now += ms / 1e3
        return frame[..., 0], Times(0.1 * ms, 0.8 * ms, 0.1 * ms)

    def batch(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self.segment(frame)

    def facts(self) -> Facts:
        return Facts("worker", "Python", (4, 6))

    def accelerator_ms(self) -> float | None:
        return None

    def inspect(self) -> dict[str, str]:
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(child, "Clock", found)
    monkeypatch.setattr(loop, "Clock", found)
    monkeypatch.setattr(child.time, "sleep", found.sleep)
    return found


def test_single_times_every_query_but_the_lead_in(clock: Clock) -> None:
    worker = Worker(clock, 50, 5, 6, 7)
    answer = Turns(worker, FRAMES).single(queries=3, lead_in=1)
    assert answer["stages"]["pipeline"] == pytest.approx([5, 6, 7], abs=0.01)
    assert answer["stages"]["inference"] == pytest.approx([4, 4.8, 5.6])
    assert answer["wall"] == pytest.approx(0.018, abs=1e-4)
    assert "device" not in answer["stages"]
    assert worker.seen == [0, 1, 2, 3]


def test_frames_go_on_where_the_last_turn_ended(clock: Clock) -> None:
    worker = Worker(clock, 1)
    turns = Turns(worker, FRAMES[:3])
    turns.single(queries=2, lead_in=0)
    turns.single(queries=2, lead_in=0)
    assert worker.seen == [0, 1, 2, 0]


def test_a_window_is_five_queries_or_fifty_milliseconds(clock: Clock) -> None:
    assert len(Turns(Worker(clock, 100), FRAMES).window()["times"]) == Steadiness.QUERIES
    assert len(Turns(Worker(clock, 2), FRAMES).window()["times"]) == pytest.approx(25, abs=1)


def test_a_stream_that_keeps_up_drops_nothing(clock: Clock) -> None:
    worker = Worker(clock, 10)
    answer = Turns(worker, FRAMES).stream(queries=6, lead_in=0, fps=50)
    assert answer["stream"] == {"offered": 6, "met": 6, "late": 0, "dropped": 0}
    assert answer["stages"]["latency"] == pytest.approx([10] * 6, abs=0.1)
    assert worker.seen == [0, 1, 2, 3, 4, 5]
    assert answer["wall"] == pytest.approx(5 / 50 + 0.01, abs=1e-3)


def test_a_stream_that_does_not_takes_the_newest_frame(clock: Clock) -> None:
    """A frame every 20 ms, a mask every 50: frames 0, 2, 5, 7, 10 ... are looked at."""
    worker = Worker(clock, 50)
    answer = Turns(worker, FRAMES).stream(queries=4, lead_in=0, fps=50)
    assert worker.seen == [0, 2, 5, 7]
    assert answer["stream"] == {"offered": 8, "met": 0, "late": 4, "dropped": 4}
    # Captured at 0, 40, 100 and 140 ms; looked at from 0, 50, 100 and 150 on.
    assert answer["stages"]["latency"] == pytest.approx([50, 60, 50, 60], abs=0.1)
    assert answer["stages"]["pipeline"] == pytest.approx([50] * 4, abs=0.1)


def test_one_slow_mask_makes_a_stream_late_once(clock: Clock) -> None:
    worker = Worker(clock, 5, 30, 5, 5, 5)
    answer = Turns(worker, FRAMES).stream(queries=5, lead_in=0, fps=50)
    # The slow one is out at 50 ms, after frame 2 came at 40; that one is then late by nobody's fault.
    assert answer["stream"] == {"offered": 5, "met": 4, "late": 1, "dropped": 0}
    assert answer["stages"]["latency"] == pytest.approx([5, 30, 15, 5, 5], abs=0.1)


def test_masks_a_second_are_never_more_than_the_camera_has_frames(clock: Clock) -> None:
    answer = Turns(Worker(clock, 10), FRAMES).stream(queries=4, lead_in=1, fps=50)
    assert 4 / answer["wall"] == pytest.approx(50, rel=0.001)
    slow = Turns(Worker(clock, 50), FRAMES).stream(queries=4, lead_in=1, fps=50)
    assert 4 / slow["wall"] == pytest.approx(20, rel=0.001)


def test_the_lead_in_of_a_stream_is_a_part_of_it(clock: Clock) -> None:
    """Frame 0 is not timed; 2, 5, 7 and 10 are, as in the middle of a long stream."""
    worker = Worker(clock, 50)
    answer = Turns(worker, FRAMES[:3] * 4).stream(queries=4, lead_in=1, fps=50)
    assert answer["stages"]["latency"] == pytest.approx([60, 50, 60, 50], abs=0.1)
    assert answer["stream"] == {"offered": 10, "met": 0, "late": 4, "dropped": 6}


def test_who_wakes_late_takes_the_newest_frame(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child.time, "sleep", lambda seconds: clock.sleep(seconds + 0.045))
    worker = Worker(clock, 1)
    answer = Turns(worker, FRAMES).stream(queries=2, lead_in=0, fps=50)
    # Waiting for frame 1, due at 20 ms, it woke at 65: frame 3 was there.
    assert worker.seen == [0, 3]
    assert answer["stages"]["latency"] == pytest.approx([1, 6], abs=0.1)


def test_offline_times_whole_batches(clock: Clock) -> None:
    worker = Worker(clock, 2)
    answer = Turns(worker, FRAMES).offline(queries=3, lead_in=1, size=4)
    assert answer["stages"]["batch"] == pytest.approx([8, 8, 8], abs=0.01)
    assert len(worker.seen) == 16


# -- the process -----------------------------------------------------------------------------------


def talk(*lines: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    done = subprocess.run(
        [sys.executable, "-m", "edge_deeplab.bench.child"],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def test_the_process_answers_line_by_line(toy: Path, frames: tuple[str, ...]) -> None:
    first = {"contender": to_plain(Contender("toy", str(toy))), "frames": list(frames)}
    answers, status = talk(first, {"do": "single", "queries": 3, "lead_in": 1}, {"do": "finish"})
    assert status == 0
    loaded, turn, last = answers
    assert set(loaded["times"]) == {"import", "load", "first"}
    assert loaded["facts"]["model"] == "toy"
    assert loaded["facts"]["input"] == [64, 96]
    assert len(turn["stages"]["pipeline"]) == 3
    for k, total in enumerate(turn["stages"]["pipeline"]):
        inside = sum(turn["stages"][name][k] for name in ("preprocess", "inference", "postprocess"))
        assert 0 < inside <= total
    assert last["peak"] >= last["steady"] > 0
    assert last["used"]["nodes"].startswith("CPUExecutionProvider ")


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path: Path, frames: tuple[str, ...]) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    first = {"contender": to_plain(Contender("x", str(tmp_path / "x.onnx"))), "frames": list(frames)}
    answers, status = talk(first)
    assert status == 2
    assert "damaged or no ONNX model" in answers[0]["error"]
    assert "\n" not in answers[0]["error"]


def test_it_ends_with_its_input(toy: Path, frames: tuple[str, ...]) -> None:
    first = {"contender": to_plain(Contender("toy", str(toy))), "frames": list(frames)}
    answers, status = talk(first)
    assert (len(answers), status) == (1, 0)
