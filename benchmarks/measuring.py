"""What the benchmarks share: interleaved timing, paired ratios with their uncertainty, tables.

Milliseconds belong to one machine at one moment: its clock, its heat and its other processes move
them by more than the differences of interest. So alternatives always take turns within one run, and
what is compared are the pairs of times that were taken side by side.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.cli.arguments import bar
from edge_deeplab.errors import UserError
from edge_deeplab.version import __version__

Milliseconds = NDArray[np.float64]
"""Times of one alternative, (rounds,); equal indices of two alternatives form a pair."""

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


# -- timing ------------------------------------------------------------------------------------


def interleaved(
    calls: Mapping[str, Callable[[int], object]],
    *,
    rounds: int,
    warmup: int = 3,
    lead_in: int = 0,
    title: str = "timing",
) -> dict[str, Milliseconds]:
    """Time every call once a round.

    The order within a round is drawn anew each time, so that nobody always follows the same
    neighbour; garbage collection waits until the end.

    Args:
        calls: By name; each is given the number of the round.
        rounds: Rounds that count.
        warmup: Rounds before them that do not.
        lead_in: Calls before each timed one that are not timed: they bring back the weights that the
            others pushed out of the caches, as the frame before does in a running video.
        title: For the progress bar.
    """
    order = random.Random(0)
    times = {name: np.empty(rounds) for name in calls}
    gc.collect()
    gc.disable()
    try:
        for number in bar(range(-warmup, rounds), desc=title, unit="round"):
            for name in order.sample(list(calls), len(calls)):
                call = calls[name]
                for _ in range(lead_in):
                    call(number)
                begin = time.perf_counter_ns()
                call(number)
                end = time.perf_counter_ns()
                if number >= 0:
                    times[name][number] = (end - begin) / 1e6
    finally:
        gc.enable()
    return times


@dataclass(frozen=True)
class Ratio:
    """How many times as long something takes, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def paired_ratio(times: Milliseconds, base: Milliseconds, *, resamples: int = 2000) -> Ratio:
    """Median over rounds of ``times / base``.

    Each quotient is of two times taken in the same round, so whatever slows a whole round cancels.
    Drawing the rounds again with replacement shows how far the median hangs on which rounds we got;
    that takes rounds as independent, so a slow drift that favours one side would go unseen.

    Args:
        times, base: (rounds,) each, same rounds in the same order.
        resamples: Bootstrap draws.
    """
    quotients = times / base
    draws = np.random.default_rng(0).integers(0, len(quotients), (resamples, len(quotients)))
    low, high = np.percentile(np.median(quotients[draws], axis=1), (2.5, 97.5))
    return Ratio(float(np.median(quotients)), float(low), float(high))


# -- surroundings ------------------------------------------------------------------------------


def machine() -> dict[str, str | int]:
    """What the figures depend on, without names of people, hosts or folders."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "edge_deeplab": __version__,
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":  # absent on most ARM kernels
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load_average() -> float:
    """Processes that wanted a core in the last minute; NaN where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def warn_if_busy() -> None:
    """Say so before the run when someone else is using the cores."""
    load = load_average()
    if load > 0.5:
        print(f"load average {load:.1f}: something else is running; wait, or trust the ratios only")


def shared_folder(path: Path) -> Path:
    """The folder with peers, data and clips.

    Raises:
        UserError: It is not there.
    """
    if not path.is_dir():
        raise UserError(f"no folder {path}: the data are not part of the project; name theirs with --shared")
    return path


# -- tables ------------------------------------------------------------------------------------

Rows = Sequence[Sequence[str]]
"""Cells; the first row holds the titles, the first column the names."""


def as_text(rows: Rows) -> str:
    """The table for a terminal: names to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{c:<{w}}" if k == 0 else f"{c:>{w}}" for k, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_markdown(rows: Rows) -> str:
    """The same table in Markdown."""
    ruler = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ruler, *rows[1:]))


# -- scripts -----------------------------------------------------------------------------------


def exit_status(script: str, run: Callable[[], None]) -> int:
    """Run a script's body; what the user can mend becomes one line and status 2."""
    try:
        run()
    except UserError as error:
        print(f"{script}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
