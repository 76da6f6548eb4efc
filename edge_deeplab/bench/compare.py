"""Two results against each other, for CI: slower, faster, the same, or not decided by these figures.

The two runs happened at different times, so nothing pairs up as within one run. The interval of the
ratio therefore has two parts: the bootstrap over the turns of each run, and how far the thirds of each
run lie apart (``stats.parts_apart``), which stands in for what changed between the runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_deeplab.bench.record import Entry, Ratio, Result
from edge_deeplab.bench.stats import interval, parts_apart, percentile_draws, split_turns
from edge_deeplab.bench.tally import MAIN_STAGE
from edge_deeplab.errors import UserError

Verdict = Literal["slower", "faster", "same", "undecided"]

PERCENT = {"single": 90, "stream": 90, "offline": 50}
"""Percentile that is compared: the headline's; the median batch stands for throughput."""


@dataclass(frozen=True)
class Line:
    """One contender that both results have.

    Attributes:
        name: Its name.
        before, after: Milliseconds of the compared percentile.
        ratio: after / before with its 95 % interval, both parts.
        verdict: ``slower`` if the whole interval lies above 1 + limit, ``faster`` if it lies below
            1 - limit, ``same`` if it lies between, ``undecided`` if it crosses one of them.
        iou: Change of foreground IoU by data set.
        notes: What is different besides, and marks of noise.
    """

    name: str
    before: float
    after: float
    ratio: Ratio
    verdict: Verdict
    iou: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """All contenders of both.

    Attributes:
        lines: One for each.
        differences: Of the conditions.
        lost: Contenders of the first that the second could not measure, each with the reason.
        added: Contenders that only the second has.
        stage: What is compared, e.g. ``pipeline p90``.
        limit: As a share.
    """

    lines: tuple[Line, ...]
    differences: tuple[str, ...]
    lost: tuple[str, ...]
    added: tuple[str, ...]
    stage: str
    limit: float

    @property
    def failed(self) -> bool:
        """Whether something is slower beyond doubt, or does not run any more."""
        return bool(self.lost) or any(line.verdict == "slower" for line in self.lines)


def compare(before: Result, after: Result, *, limit: float = 0.05) -> Comparison:
    """Compare two runs, contender by contender.

    Args:
        before, after: Of the same scenario.
        limit: Change that matters, as a share.

    Raises:
        UserError: Other scenarios, another camera or other batches, or no contender in common.
    """
    scenario = before.plan.scenario
    if after.plan.scenario != scenario:
        raise UserError(
            f"one result is of the scenario {scenario}, the other of {after.plan.scenario}; "
            "compare results of one scenario"
        )
    what = {"stream": "fps", "offline": "batch"}.get(scenario)
    if what and getattr(before.plan, what) != getattr(after.plan, what):
        a, b = getattr(before.plan, what), getattr(after.plan, what)
        raise UserError(f"one result was measured with --{what} {a:g}, the other with {b:g}; use the same")
    stage, percent = MAIN_STAGE[scenario], PERCENT[scenario]
    old, new = ({e.name: e for e in r.entries if e.error is None} for r in (before, after))
    common = [name for name in old if name in new]
    if not common:
        raise UserError(f"the results have no model in common: {_listed(old)} against {_listed(new)}")
    lines = [_line(old[name], new[name], stage, percent, limit) for name in common]
    reasons = {e.name: e.error for e in after.entries if e.error is not None}
    return Comparison(
        lines=tuple(lines),
        differences=differences(before, after),
        lost=tuple(f"{name}: {reasons.get(name, 'not in it')}" for name in old if name not in common),
        added=tuple(name for name in new if name not in common),
        stage=f"{stage} p{percent}",
        limit=limit,
    )


def _line(old: Entry, new: Entry, stage: str, percent: int, limit: float) -> Line:
    stage = stage if stage in old.stages and stage in new.stages else "inference"
    if stage not in old.stages or stage not in new.stages:
        raise UserError(f"{old.name}: the results have no stage in common")
    figure = _figure(old, new, stage, percent)
    before, after = (getattr(e.stages[stage], figure) for e in (old, new))
    ratio = _ratio(old, new, stage, after / before, percent)
    changes = {a.data: a.foreground_iou for a in old.accuracy}
    iou = {
        b.data: b.foreground_iou - was
        for b in new.accuracy
        if b.foreground_iou is not None and (was := changes.get(b.data)) is not None
    }
    notes = [] if stage != "inference" else ["inference only"]
    notes += [] if figure == f"p{percent}" else [f"compared by the {figure}, which both have"]
    notes += [f"{what}: {a} -> {b}" for what, (a, b) in _settings(old, new).items() if a != b]
    notes += ["another file"] if old.sha256 != new.sha256 else []
    notes += [f"{name}: {old.versions[name]} -> {v}" for name, v in new.versions.items()
              if old.versions.get(name, v) != v]  # fmt: skip
    for title, entry in (("A", old), ("B", new)):
        notes += [f"{title} is marked: {mark.text}" for mark in entry.marks]
    return Line(old.name, before, after, ratio, verdict(ratio, limit), iou, tuple(notes))


def _settings(old: Entry, new: Entry) -> dict[str, tuple[object, object]]:
    """What a contender was run with, by name: (in A, in B)."""
    sizes = ["x".join(map(str, e.input)) for e in (old, new)]
    return {
        "threads": (old.threads or "all", new.threads or "all"),
        "input": (sizes[0], sizes[1]),
        **{
            key: (old.used.get(key, "unknown"), new.used.get(key, "unknown"))
            for key in dict.fromkeys((*old.used, *new.used))
            if key not in ("threads", "GPU memory", "memory added")
        },
    }


def verdict(ratio: Ratio, limit: float) -> Verdict:
    """What an interval says about a limit; see :attr:`Line.verdict`."""
    if ratio.low > 1 + limit:
        return "slower"
    if ratio.high < 1 - limit:
        return "faster"
    if 1 - limit <= ratio.low and ratio.high <= 1 + limit:
        return "same"
    return "undecided"


def _ratio(old: Entry, new: Entry, stage: str, value: float, percent: int) -> Ratio:
    """after / before with an interval of both parts; wide open where a tool gave no samples."""
    if stage not in old.samples or stage not in new.samples:
        return _from_summaries(old, new, stage, value)
    turns = [split_turns(e.samples[stage], e.turns) for e in (old, new)]
    draws = [percentile_draws(t, percent, seed=k) for k, t in enumerate(turns)]
    low, high = interval(draws[1] / draws[0])
    apart = math.hypot(*(parts_apart(t) for t in turns))
    return Ratio(value, low / (1 + apart), high * (1 + apart))


def _from_summaries(old: Entry, new: Entry, stage: str, value: float) -> Ratio:
    """Without samples, the spread of single queries stands for that of a repetition: wide, but honest."""
    a, b = (
        1.0 if s.std is None or not s.mean else s.std / s.mean for s in (old.stages[stage], new.stages[stage])
    )
    apart = 1.96 * math.hypot(a, b)
    return Ratio(value, value / (1 + apart), value * (1 + apart))


def _figure(old: Entry, new: Entry, stage: str, percent: int) -> str:
    """The percentile that is compared, or the next figure that both have."""
    for name in (f"p{percent}", "p50", "mean"):
        if all(getattr(e.stages[stage], name) is not None for e in (old, new)):
            return name
    raise UserError(f"{old.name}: the results have no figure for {stage} in common")


def differences(before: Result, after: Result) -> tuple[str, ...]:
    """What makes two runs no repetition of each other."""
    found = []
    for name in ("device", "board", "soc", "cpu", "cores", "gpu", "system"):
        a, b = getattr(before.machine, name), getattr(after.machine, name)
        if a != b:
            found.append(f"{name}: {a or 'unknown'} against {b or 'unknown'}")
    if before.frame != after.frame:
        found.append(f"frame: {before.frame[1]}x{before.frame[0]} against {after.frame[1]}x{after.frame[0]}")
    pins = [r.conditions.affinity if r.conditions.pinned else () for r in (before, after)]
    if pins[0] != pins[1]:
        a, b = (",".join(map(str, cores)) or "not pinned" for cores in pins)
        found.append(f"cores: {a} against {b}")
    for name, a in before.machine.versions.items():
        b = after.machine.versions.get(name, "none")
        if a != b:
            found.append(f"{name}: {a} against {b}")
    for title, result in (("A", before), ("B", after)):
        found += [f"{title} is marked: {mark.text}" for mark in result.marks]
    found += _clocks(before, after)
    return tuple(found)


def _clocks(before: Result, after: Result) -> list[str]:
    """The fixed piece of work took another time: the machine itself was slower or faster."""
    a, b = (
        np.median(r.conditions.reference_ms) if r.conditions.reference_ms else None for r in (before, after)
    )
    if a is None or b is None or abs(b / a - 1) <= 0.05:
        return []
    return [f"a fixed piece of work took {a:.3f} ms against {b:.3f} ms: clock or neighbours changed"]


def _listed(names: Sequence[str] | dict[str, Entry]) -> str:
    return ", ".join(names) or "none"
