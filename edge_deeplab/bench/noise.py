"""When to trust a figure less. Nothing is hidden: a doubtful run is reported with its marks.

The limits are chosen so that a run without marks repeats within about 3 % (docs/benchmarking.md tells
how that was tried); a marked one may still be right, but should not be quoted without its mark.
"""

from __future__ import annotations

import numpy as np

from edge_deeplab.bench.record import Conditions, Entry, Mark, Snapshot
from edge_deeplab.bench.stats import interval, parts_apart, percentile_draws, split_turns

OTHERS = 0.05
"""Share of the cores that others may take."""

STOLEN = 0.02
"""Share that the hypervisor may take."""

DRIFT = 0.03
"""How far the medians of a run's thirds may lie apart."""

MEDIAN_INTERVAL = 0.03
"""Half the 95 % interval of p50 may be this share of it."""

TAIL = 0.25
"""p90 may lie this far above p50."""

CLOCK = 0.05
"""How much the fastest core's clock may fall from before to after, and the reference work may spread."""

HOT = 85.0
"""Degrees from which most CPUs hold themselves back or soon will."""

FEWEST_FOR_P99 = 100
"""Below, p99 is an interpolation towards the slowest query."""

FEWEST_ROUNDS = 5
"""Below, a bootstrap over rounds is far too sure; with one, it has no width at all."""


def entry_marks(entry: Entry, stage: str, conditions: Conditions) -> tuple[Mark, ...]:
    """Marks of one contender.

    Args:
        entry: With samples and turns.
        stage: What the scenario is about: ``pipeline``, ``latency`` or ``batch``.
        conditions: Of the run.
    """
    marks = []
    if entry.warmup and not entry.warmup.steady:
        marks.append(Mark("not-steady", f"not steady after {entry.warmup.queries} warm-up queries"))
    s = entry.stages[stage]
    if s.count < FEWEST_FOR_P99:
        marks.append(Mark("few-queries", f"{s.count} queries: p99 needs at least {FEWEST_FOR_P99}"))
    if s.p50 and s.p90 and s.p90 > s.p50 * (1 + TAIL):
        marks.append(Mark("variation", f"p90 is {s.p90 / s.p50 - 1:.0%} above p50"))
    turns = split_turns(entry.samples[stage], entry.turns)
    low, high = interval(percentile_draws(turns, 50, resamples=400))
    if s.p50 and (high - low) / 2 > MEDIAN_INTERVAL * s.p50:
        marks.append(Mark("variation", f"p50 is known to within {(high - low) / 2 / s.p50:.1%} only"))
    apart = parts_apart(turns)
    if apart > DRIFT:
        marks.append(Mark("drift", f"the medians of the run's thirds lie {apart:.1%} apart"))
    marks += _fallback(entry)
    return tuple(marks)


def ratio_marks(rounds: int) -> tuple[Mark, ...]:
    """Marks of a ratio: the bootstrap sees nothing where there is nothing to draw from."""
    if rounds >= FEWEST_ROUNDS:
        return ()
    words = f"{rounds} round{'s' * (rounds > 1)}: the ratio's interval needs at least {FEWEST_ROUNDS}"
    return (Mark("few-queries", words),)


def run_marks(conditions: Conditions) -> tuple[Mark, ...]:
    """Marks of the whole run, from its circumstances."""
    marks = []
    before, after = conditions.before, conditions.after
    if conditions.others is not None and conditions.others > OTHERS:
        marks.append(Mark("busy", f"others took {conditions.others:.0%} of the cores meanwhile"))
    if conditions.stolen is not None and conditions.stolen > STOLEN:
        marks.append(Mark("busy", f"the hypervisor took {conditions.stolen:.0%} of the cores"))
    seen = held_back(before, after)
    if seen:
        marks.append(Mark("throttled", f"throttling seen: {', '.join(seen)}"))
    marks += _clock(conditions)
    hottest = max(after.temperatures.items(), key=lambda item: item[1], default=None)
    if hottest and hottest[1] >= HOT:
        marks.append(Mark("hot", f"{hottest[0]} at {hottest[1]:.0f} °C in the end"))
    if after.power and after.power.startswith("battery") and "discharging" in after.power:
        marks.append(Mark("power", f"on {after.power}"))
    return tuple(marks)


def held_back(before: Snapshot, after: Snapshot) -> dict[str, tuple[int, int]]:
    """Counters of throttling that rose and flags that are set in the end: name -> (before, after).

    A flag "... now" is no counter: set before and after, it was most likely set all the time.
    """
    seen = {k: (before.throttled.get(k, 0), v) for k, v in after.throttled.items()}
    return {k: (a, b) for k, (a, b) in seen.items() if b > (0 if k.endswith(" now") else a)}


def _clock(conditions: Conditions) -> list[Mark]:
    marks = []
    used = [
        [core for core in snapshot.cores if core.index in conditions.affinity]
        for snapshot in (conditions.before, conditions.after)
    ]
    # The fastest alone: a core that has nothing to do sleeps at any clock.
    fastest = [max((core.mhz for core in cores if core.mhz), default=0.0) for cores in used]
    if 0 < fastest[1] < fastest[0] * (1 - CLOCK):
        text = f"the fastest of the cores used fell from {fastest[0]:.0f} to {fastest[1]:.0f} MHz"
        marks.append(Mark("clock", text))
    admitted = {core.index: core.max_mhz for core in used[0]}
    for core in used[1]:
        was = admitted.get(core.index)
        if was and core.max_mhz and core.max_mhz < was * (1 - CLOCK):
            text = f"core {core.index} is held at {core.max_mhz:.0f} MHz, {was:.0f} before"
            marks.append(Mark("throttled", text))
            break
    if len(conditions.reference_ms) >= 4:
        fast, slow = np.percentile(conditions.reference_ms, (10, 90))
        if slow > fast * (1 + CLOCK):
            marks.append(
                Mark("clock", f"a fixed piece of work took from {fast:.2f} to {slow:.2f} ms (p10, p90)")
            )
    return marks


def _fallback(entry: Entry) -> list[Mark]:
    """Something else than what was asked for ran the model, or only a part of it."""
    text = entry.used.get("fallback")
    return [Mark("fallback", text)] if text else []
