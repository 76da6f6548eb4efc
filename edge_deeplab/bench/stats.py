"""The arithmetic of a benchmark: summaries, the warm-up rule, ratios with their uncertainty. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.bench.record import Ratio, Summary

Milliseconds = NDArray[np.float64]

RESAMPLES = 2000


def summary(samples: Sequence[float] | Milliseconds) -> Summary:
    """Every sample counts; percentiles are numpy's, interpolated linearly.

    Args:
        samples: Milliseconds, at least one.
    """
    ms = np.asarray(samples, np.float64)
    p50, p90, p95, p99 = (float(v) for v in np.percentile(ms, (50, 90, 95, 99)))
    spread = float(ms.std(ddof=1)) if len(ms) > 1 else None
    return Summary(len(ms), float(ms.mean()), spread, float(ms.min()), float(ms.max()), p50, p90, p95, p99)


# -- warm-up -----------------------------------------------------------------------------------


@dataclass
class Steadiness:
    """The warm-up rule, fed one window of queries at a time.

    A window is at least five queries and at least 50 ms. A contender is steady when the medians of its
    last three windows lie within 5 % of the lowest of the three. The three must agree, not only fall no
    further: a machine that is heating up rises.

    Attributes:
        medians: Of the windows so far.
        queries, seconds: Spent so far.
    """

    medians: list[float] = field(default_factory=list)
    queries: int = 0
    seconds: float = 0.0

    QUERIES = 5
    WINDOW_MS = 50.0
    WINDOWS = 3
    WITHIN = 0.05
    LIMIT_SECONDS = 10.0
    RULE = (
        "medians of the last 3 windows (each at least 5 queries and 50 ms) within 5 % of the lowest; "
        "given up after 10 s"
    )

    def add(self, window: Sequence[float]) -> None:
        """Take a window's times in milliseconds."""
        self.medians.append(float(np.median(window)))
        self.queries += len(window)
        self.seconds += sum(window) / 1e3

    @property
    def steady(self) -> bool:
        """Whether the rule is met."""
        last = self.medians[-self.WINDOWS :]
        return len(last) == self.WINDOWS and max(last) <= min(last) * (1 + self.WITHIN)

    @property
    def over(self) -> bool:
        """Whether warming up ends: steady, or out of patience."""
        return self.steady or (len(self.medians) >= self.WINDOWS and self.seconds >= self.LIMIT_SECONDS)

    def queries_per_turn(self, *, min_queries: int, min_seconds: float, rounds: int) -> int:
        """How many queries of a turn spread both minima over ``rounds`` turns."""
        by_time = min_seconds * 1e3 / rounds / max(self.medians[-1], 1e-3)
        return max(1, math.ceil(min_queries / rounds), math.ceil(by_time))


# -- uncertainty -------------------------------------------------------------------------------


def split_turns(samples: Sequence[float], turns: Sequence[int]) -> list[Milliseconds]:
    """The samples of every turn."""
    return np.split(np.asarray(samples, np.float64), np.cumsum(turns)[:-1])


def paired_ratio(times: Milliseconds, base: Milliseconds, *, resamples: int = RESAMPLES) -> Ratio:
    """Median over rounds of ``times / base``.

    Each quotient is of two times taken in the same round, so whatever slows a whole round cancels.
    Drawing the rounds again with replacement shows how far the median hangs on which rounds we got;
    that takes rounds as independent, so a slow drift that favours one side would go unseen.

    Args:
        times, base: (rounds,) each, same rounds in the same order.
        resamples: Bootstrap draws.
    """
    quotients = np.asarray(times, np.float64) / np.asarray(base, np.float64)
    draws = np.random.default_rng(0).integers(0, len(quotients), (resamples, len(quotients)))
    low, high = np.percentile(np.median(quotients[draws], axis=1), (2.5, 97.5))
    return Ratio(float(np.median(quotients)), float(low), float(high))


def percentile_draws(
    turns: Sequence[Milliseconds], percent: float, *, resamples: int = RESAMPLES, seed: int = 0
) -> Milliseconds:
    """Bootstrap draws of a percentile, (resamples,): whole turns are drawn again with replacement.

    Queries of one turn share clock and neighbours, so they are no independent draws; turns nearly are.
    """
    rng = np.random.default_rng(seed)
    parts = list(turns)
    if len(parts) == 1:  # nothing to draw but the queries themselves
        parts = list(parts[0].reshape(-1, 1))
    picks = rng.integers(0, len(parts), (resamples, len(parts)))
    return np.array([np.percentile(np.concatenate([parts[k] for k in pick]), percent) for pick in picks])


def interval(draws: Milliseconds) -> tuple[float, float]:
    """The 95 % interval of bootstrap draws."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def parts_apart(turns: Sequence[Milliseconds], parts: int = 3) -> float:
    """How far the medians of the run's thirds lie apart, as a share of the lowest.

    A quick guess at what a repetition would show: slow changes of clock, heat and neighbours act
    between thirds as they act between runs, and the bootstrap over turns does not see them.
    """
    if len(turns) < parts:
        return 0.0
    edges = np.linspace(0, len(turns), parts + 1).astype(int)
    medians = [float(np.median(np.concatenate(turns[a:b]))) for a, b in pairwise(edges)]
    return max(medians) / min(medians) - 1
