"""The one timed call, and the loop around it: what the harness, the demos' counters and tests agree on.

*Pipeline* is from a frame in memory to its mask at the frame's own size: resizing, scaling, inference,
resizing back and thresholding. Reading from a camera, drawing and showing are not in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from edge_deeplab.bench.record import Summary
from edge_deeplab.bench.stats import summary
from edge_deeplab.imaging import Frame, Labels
from edge_deeplab.runtimes import Runtime, Times

Clock = time.perf_counter

Stages = dict[str, list[float]]
"""Stage -> milliseconds of every query, in order."""


class Segments(Protocol):
    """Whatever turns a frame into a mask and tells what each stage took."""

    def segment(self, frame: Frame) -> tuple[Labels, Times]:
        """BGR uint8 (H, W, 3) -> labels uint8 (H, W), stage times."""


def timed(subject: Segments, frame: Frame) -> tuple[float, Times]:
    """Milliseconds of one call from outside, and what it tells of its stages."""
    begin = Clock()
    _, times = subject.segment(frame)
    return 1e3 * (Clock() - begin), times


def as_stages(pipeline: list[float], times: list[Times]) -> Stages:
    """The same by stage."""
    return {
        "preprocess": [t.preprocess for t in times],
        "inference": [t.inference for t in times],
        "postprocess": [t.postprocess for t in times],
        "pipeline": pipeline,
    }


def measure_frames(runtime: Runtime, frames: Iterable[Frame], *, warmup: int = 10) -> dict[str, Summary]:
    """Time an open model on given frames, in this process, one after the other.

    The loop that ``edge-deeplab bench`` runs in a process of its own, for programs that measure
    themselves: a demo's counter on the same frames shows the same pipeline.

    Args:
        runtime: From ``open_model``.
        frames: BGR uint8 (H, W, 3); at least one.
        warmup: Calls on the first frame before the timed ones.

    Returns:
        ``preprocess``, ``inference``, ``postprocess`` and ``pipeline``.

    Raises:
        ValueError: There are no frames.
    """
    subject = _Opened(runtime)
    pipeline: list[float] = []
    times: list[Times] = []
    for frame in frames:
        if not pipeline:
            for _ in range(warmup):
                subject.segment(frame)
        total, stages = timed(subject, frame)
        pipeline.append(total)
        times.append(stages)
    if not pipeline:
        raise ValueError("no frames to measure")
    return {stage: summary(ms) for stage, ms in as_stages(pipeline, times).items()}


class _Opened:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def segment(self, frame: Frame) -> tuple[Labels, Times]:
        answer = self._runtime.segment(frame)
        return answer.labels, answer.times
