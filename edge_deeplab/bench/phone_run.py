"""Runs of ``benchmark_model``: the command line, and the entry that several runs make."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np

from edge_deeplab.bench import facts, noise
from edge_deeplab.bench.record import Contender, Entry, Mark, Plan, Summary
from edge_deeplab.bench.stats import paired_ratio
from edge_deeplab.bench.tools import benchmark_model
from edge_deeplab.bench.tools.benchmark_model import Output, Statistics
from edge_deeplab.files import sha256

INFERENCE_ONLY = Mark(
    "incomplete", "inference alone: the tool neither resizes frames nor makes masks, and feeds random numbers"
)

MERGED = Mark(
    "incomplete", "percentiles are the medians of several runs' own; the tool does not tell single queries"
)


def share(plan: Plan, turns: int) -> Plan:
    """The part of a plan that one of several runs does."""
    return dataclasses.replace(
        plan, min_queries=math.ceil(plan.min_queries / turns), min_seconds=plan.min_seconds / turns
    )


def mask(cores: Sequence[int]) -> str:
    """``taskset``'s word for cores: 4..7 -> ``f0``; empty for none."""
    return f"{sum(1 << core for core in cores):x}" if cores else ""


def command(
    tool: str, model: str, contender: Contender, plan: Plan, cores: str, further: Sequence[str] = ()
) -> str:
    """The shell line of one run."""
    words = [
        *(["taskset", cores] if cores else []),
        tool,
        f"--graph={model}",
        f"--num_runs={plan.min_queries}",
        f"--min_secs={plan.min_seconds:g}",
        f"--max_secs={max(150.0, 10 * plan.min_seconds):g}",
        "--warmup_runs=5",
        "--warmup_min_secs=1",
        *([f"--num_threads={contender.threads}"] if contender.threads is not None else []),
        *further,
    ]
    return " ".join(shlex.quote(word) for word in words)


class Runs:
    """One contender's runs.

    Args:
        contender: Who.
        error: Why it cannot be measured at all.

    Attributes:
        error: Why it dropped out; else None.
    """

    def __init__(self, contender: Contender, error: str | None = None) -> None:
        self.contender, self.error = contender, error
        self._outputs: list[Output] = []
        self._litert = False

    def add(self, status: int, text: str) -> None:
        """Take what a run printed."""
        found = benchmark_model.parse(text)
        if status != 0 or found.inference is None or found.inference.mean is None:
            self.error = _failure(status, text, found)
            return
        self._outputs.append(found)
        self._litert = "BENCHMARK RESULTS" in text

    def means(self) -> list[float]:
        """Mean inference of every run, for ratios."""
        return [phase.mean for phase in self._phases() if phase.mean is not None]

    def entry(self, base: Runs | None) -> Entry:
        """Its figures; ``base`` is whom ratios are to."""
        path = Path(self.contender.path)
        known = Entry(
            name=self.contender.name,
            runtime="LiteRT benchmark_model" if self._litert else "TFLite benchmark_model",
            file=path.name,
            peer=self.contender.peer is not None,
            threads=self.contender.threads,
            bytes=path.stat().st_size,
            sha256=sha256(path),
            headline="inference p50",
            **facts.of_file(path),
        )
        if self.error is not None:
            return dataclasses.replace(known, error=self.error)
        inference = merged(self._phases())
        marks = [INFERENCE_ONLY]
        if len(self._outputs) > 1 and inference.p50 is not None:
            marks.append(MERGED)
        if base:
            marks += noise.ratio_marks(len(self._outputs))
        return dataclasses.replace(
            known,
            used=self._used(),
            stages={
                **_once("load", [output.init for output in self._outputs]),
                **_once("first", [output.first for output in self._outputs]),
                "inference": inference,
            },
            headline="inference p50" if inference.p50 is not None else "inference mean",
            ratio=paired_ratio(np.array(self.means()), np.array(base.means())) if base else None,
            turns=tuple(phase.count for phase in self._phases()),
            marks=tuple(marks),
        )

    def _phases(self) -> list[Statistics]:
        return [output.inference for output in self._outputs if output.inference is not None]

    def _used(self) -> dict[str, str]:
        last = self._outputs[-1]
        found = {
            "threads": "the tool's choice" if self.contender.threads is None else str(self.contender.threads)
        }
        if last.delegations:
            final = last.delegations[-1]
            found["delegate"] = final.delegate
            found["share"] = f"{final.nodes} of {final.total} nodes in {final.partitions} partitions"
        if last.memory_steady is not None:
            found["memory added"] = f"{last.memory_steady / 2**20:.1f} MiB"
        return found


def merged(phases: Sequence[Statistics]) -> Summary:
    """One summary of several runs.

    Count, mean, standard deviation and extremes are exact; percentiles are the medians of the runs' own.
    """
    count = sum(phase.count for phase in phases)
    mean = sum(phase.count * (phase.mean or 0.0) for phase in phases) / count
    squares = [phase.count * ((phase.std or 0.0) ** 2 + (phase.mean or 0.0) ** 2) for phase in phases]
    known = all(phase.std is not None for phase in phases)

    def middle(values: list[float | None]) -> float | None:
        told = [value for value in values if value is not None]
        return median(told) if len(told) == len(values) else None

    lows = [phase.minimum for phase in phases if phase.minimum is not None]
    highs = [phase.maximum for phase in phases if phase.maximum is not None]
    return Summary(
        count=count,
        mean=mean,
        std=math.sqrt(max(0.0, sum(squares) / count - mean**2)) if known else None,
        minimum=min(lows, default=None),
        maximum=max(highs, default=None),
        p50=middle([phase.median for phase in phases]),
        p95=middle([phase.p95 for phase in phases]),
    )


def _once(stage: str, times: Sequence[float | None]) -> dict[str, Summary]:
    told = [time for time in times if time is not None]
    if not told:
        return {}
    return {stage: Summary(len(told), fmean(told), None, min(told), max(told), median(told))}


def _failure(status: int, text: str, found: Output) -> str:
    """Why a run gave no figures, in the tool's or the shell's words."""
    if found.errors:
        return f"benchmark_model refuses it: {found.errors[0]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if status == 137:
        return "benchmark_model was killed (signal 9); most likely the memory ran out"
    last = lines[-1] if lines else "it said nothing"
    return f"benchmark_model ended with status {status}: {last}"
