"""What the benchmark scripts share: interleaved timing; ratios and tables are ``edge_deeplab.bench``'s.

Milliseconds belong to one machine at one moment: its clock, its heat and its other processes move
them by more than the differences of interest. So alternatives always take turns within one run, and
what is compared are the pairs of times that were taken side by side.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edge_deeplab.bench import conditions
from edge_deeplab.bench.stats import Milliseconds, paired_ratio
from edge_deeplab.bench.tables import as_text
from edge_deeplab.cli.arguments import bar
from edge_deeplab.errors import UserError

__all__ = [
    "ROOT",
    "SHARED",
    "Milliseconds",
    "as_text",
    "bar",
    "exit_status",
    "interleaved",
    "machine",
    "paired_ratio",
    "shared_folder",
    "warn_if_busy",
]

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


# -- surroundings ------------------------------------------------------------------------------


def machine() -> dict[str, str | int]:
    """What the figures depend on, without names of people, hosts or folders."""
    here = conditions.machine()
    return {"cpu": here.cpu, "cores": here.cores or 0, "system": here.system, **here.versions}


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
