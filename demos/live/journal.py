"""Figures of a run as JSON lines, one a second: for long runs, and for whoever measures from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import IO, Any

from edge_deeplab.demos.live.loop import Live
from edge_deeplab.demos.live.statistics import Histogram
from edge_deeplab.errors import UserError, because
from edge_deeplab.runtimes import Times

EVERY_S = 1.0
"""Seconds between two lines."""


class Journal:
    """Writes a line a second, so that the file can be read while the demo runs. Use as a context manager.

    A line counts ``captured``, ``shown`` and ``dropped`` frames since the start; ``fps``, ``latency_ms``,
    ``stages_ms`` (medians) and ``cores`` (processor time by time) belong to the time since the line before;
    ``frames_ms`` holds the latency of each frame since then and ``pipeline_ms`` what the model took for those
    that it was asked about, so that a run's own percentiles can be taken.

    Args:
        path: Written anew.

    Raises:
        UserError: The place cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file: IO[str] = self.path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UserError(f"cannot write {path}: {because(error)}; choose another place") from error
        self._begin = self._since = time.perf_counter()
        self._cpu = time.process_time()
        self._shown = 0
        self._clear()

    def note(self, latency: float, stages: Mapping[str, float], live: Live) -> None:
        """Take in one frame that was shown.

        Args:
            latency: From the frame being there to its result on the screen, ms.
            stages: Milliseconds by name.
            live: Counts what was captured and dropped.

        Raises:
            UserError: The disk is full.
        """
        self._shown += 1
        self._latency.add(latency)
        self._frames.append(round(latency, 1))
        for name, milliseconds in stages.items():
            self._stages.setdefault(name, []).append(milliseconds)
        if time.perf_counter() - self._since >= EVERY_S:
            self._write(live)

    def _write(self, live: Live) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        span = now - self._since
        line = {
            "seconds": round(now - self._begin, 3),
            "captured": live.captured,
            "shown": self._shown,
            "dropped": live.dropped,
            "fps": round(self._latency.count / span, 3),
            "latency_ms": percentiles(self._latency),
            "frames_ms": self._frames,
            "pipeline_ms": [round(sum(times), 3) for times in zip(*self._model_stages(), strict=True)],
            "stages_ms": {name: round(median(times), 3) for name, times in self._stages.items()},
            "cores": round((cpu - self._cpu) / span, 3),
        }
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {because(error)}; free some room") from error
        self._since, self._cpu = now, cpu
        self._clear()

    def _clear(self) -> None:
        self._latency = Histogram()
        self._frames: list[float] = []
        self._stages: dict[str, list[float]] = {}

    def _model_stages(self) -> list[list[float]]:
        return [self._stages.get(field.name, []) for field in fields(Times)]

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def percentiles(times: Histogram) -> dict[str, Any]:
    """The usual ones, ms."""
    return {f"p{percent}": round(times.percentile(percent), 1) for percent in (50, 90, 99)}
