"""The webcam demo's own counter and the benchmark mean the same by pipeline: the same calls, both clocks."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.imaging import Frame
from edge_deeplab.runtimes import Segmentation, Times, open_model
from tests.runtimes.artefacts import picture

live = pytest.importorskip("edge_deeplab.demos.live.loop", reason="the webcam demo is not there")

FRAMES = 40


class Source:
    """Hands out a frame when the one before has been answered, so that none is dropped."""

    live, title = False, "frames"

    def __init__(self) -> None:
        self.answered = threading.Semaphore(1)
        self.count = 0

    def read(self) -> Frame | None:
        self.answered.acquire()
        self.count += 1
        return picture(480, 640, seed=self.count) if self.count <= FRAMES else None

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        pass


def test_the_demo_shows_the_pipeline_that_the_benchmark_reports(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_deeplab.bench.loop import Clock

    source = Source()
    outside: dict[int, float] = {}
    shown: list[Times] = []
    with open_model(toy, threads=1) as model:
        segment = model.segment

        def watched(frame: Frame) -> Segmentation:
            begin = Clock()
            result = segment(frame)
            outside[id(result.times)] = 1e3 * (Clock() - begin)
            shown.append(result.times)  # keeps it, and with it its id
            source.answered.release()
            return result

        monkeypatch.setattr(model, "segment", watched)
        seen = []
        with live.Live(source, model, live.Settings(), say=lambda _: None) as running:
            while not running.ended:
                answer = running.next(timeout=0.1)
                if answer is not None and answer.times is not None:
                    seen.append(answer.times)
    assert len(shown) == FRAMES
    assert len(seen) > FRAMES // 4  # the demo's own loop may skip answers, not change them
    pairs = np.array([(times.total, outside[id(times)]) for times in seen])
    assert (pairs[:, 0] <= pairs[:, 1]).all()
    assert np.median(pairs[:, 0] / pairs[:, 1]) > 0.95
