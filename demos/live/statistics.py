"""Figures of a run that may last for days: constant memory, whatever the length."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

STEP_MS, TOP_MS = 0.1, 2000.0


class Histogram:
    """Milliseconds, counted in steps of 0.1 ms up to 2 s; what is longer counts as 2 s."""

    def __init__(self) -> None:
        self._counts = np.zeros(int(TOP_MS / STEP_MS) + 1, np.int64)

    def add(self, milliseconds: float) -> None:
        """Count one."""
        self._counts[min(max(0, round(milliseconds / STEP_MS)), len(self._counts) - 1)] += 1

    @property
    def count(self) -> int:
        """How many were counted."""
        return int(self._counts.sum())

    def percentile(self, percent: float) -> float:
        """The value that ``percent`` of all do not exceed; NaN when there are none."""
        if not self.count:
            return float("nan")
        wanted = self.count * percent / 100
        return float(np.searchsorted(np.cumsum(self._counts), wanted) * STEP_MS)


class Rate:
    """Events per second over the last few of them."""

    def __init__(self, window: int = 31) -> None:
        self._times: deque[float] = deque(maxlen=window)

    def tick(self, now: float | None = None) -> None:
        """One event."""
        self._times.append(time.perf_counter() if now is None else now)

    @property
    def value(self) -> float:
        """Events per second; 0 before the second one."""
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(1e-6, self._times[-1] - self._times[0])
