"""What a contender has gathered so far, and the records made of it in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_deeplab.bench import noise
from edge_deeplab.bench.frames import decode
from edge_deeplab.bench.record import (
    Conditions,
    Contender,
    Entry,
    Job,
    Machine,
    Memory,
    Plan,
    Result,
    Stream,
    Warmup,
)
from edge_deeplab.bench.stats import Milliseconds, Steadiness, paired_ratio, split_turns, summary
from edge_deeplab.files import sha256

HEADLINES = {"single": "pipeline p90", "stream": "latency p90", "offline": "throughput"}
MAIN_STAGE = {"single": "pipeline", "stream": "latency", "offline": "batch"}
"""What ratios and the marks of noise are about."""


class Tally:
    """One contender's samples.

    Args:
        contender: Who.
        plan: The job's.

    Attributes:
        error: Why it dropped out; else None.
        meter: What its energy is counted of.
        steadiness: Its warm-up.
    """

    def __init__(self, contender: Contender, plan: Plan) -> None:
        self.contender, self.plan = contender, plan
        self.name = contender.name
        self.error: str | None = None
        self.meter = ""
        self.steadiness = Steadiness()
        self._once: dict[str, list[float]] = {"import": [], "load": [], "first": []}
        self._facts: dict[str, Any] = {}
        self._memory: dict[str, int | None] = {}
        self._samples: dict[str, list[float]] = {}
        self._turns: list[int] = []
        self._wall = self._cpu = 0.0
        self._joules: list[float] = []
        self._stream: dict[str, int] = {}

    # -- what comes in -------------------------------------------------------------------------

    def load(self, answer: dict[str, Any]) -> None:
        """A process has loaded the model."""
        for stage, ms in answer["times"].items():
            self._once[stage].append(ms)
        self._facts = answer["facts"]
        self._memory = {"base": answer["base"], "loaded": answer["loaded"]}

    def turn(self, answer: dict[str, Any], joules: float | None) -> None:
        """A turn is over."""
        stages = answer["stages"]
        for stage, times in stages.items():
            self._samples.setdefault(stage, []).extend(times)
        self._turns.append(len(stages[self.main_stage]))
        self._wall += answer["wall"]
        self._cpu += answer["cpu"]
        if joules is not None:
            self._joules.append(joules / (self._turns[-1] + self.plan.lead_in))
        for what, count in answer.get("stream", {}).items():
            self._stream[what] = self._stream.get(what, 0) + count

    def finish(self, answer: dict[str, Any]) -> None:
        """The last word of its process."""
        self._memory |= {"steady": answer["steady"], "peak": answer["peak"]}
        self._facts["used"] = {**self._facts["used"], **answer["used"]}
        if self._joules:
            self._facts["used"]["energy"] = f"of {self.meter}"
        elif self.meter:
            self._facts["used"]["energy"] = (
                f"not told: turns too short for the readings of {self.meter}; "
                "fewer --rounds, more --min-seconds"
            )

    # -- what is next --------------------------------------------------------------------------

    @property
    def main_stage(self) -> str:
        """The stage that the scenario is about."""
        return MAIN_STAGE[self.plan.scenario]

    @property
    def done(self) -> bool:
        """Whether both minima and all rounds are reached, or it dropped out."""
        enough = (
            len(self._turns) >= self.plan.rounds
            and sum(self._turns) >= self.plan.min_queries
            and self._wall >= self.plan.min_seconds
        )
        return enough or self.error is not None

    def command(self) -> dict[str, Any]:
        """Its next turn, as keyword arguments of ``Process.ask``."""
        plan = self.plan
        queries = self._queries()
        told: dict[str, Any] = {"what": plan.scenario, "queries": queries, "lead_in": plan.lead_in}
        if plan.scenario == "stream":
            told["fps"] = plan.fps
        elif plan.scenario == "offline":
            told["size"] = plan.batch
        return told

    def _queries(self) -> int:
        plan, steadiness = self.plan, self.steadiness
        if plan.scenario == "stream":  # a query takes at least until the next frame
            waiting = dataclasses.replace(steadiness, medians=[max(steadiness.medians[-1], 1e3 / plan.fps)])
            steadiness = waiting
        return steadiness.queries_per_turn(
            min_queries=plan.min_queries, min_seconds=plan.min_seconds, rounds=plan.rounds
        )

    # -- what comes out ------------------------------------------------------------------------

    def medians(self) -> Milliseconds:
        """The median of every turn, (rounds,), for ratios."""
        turns = split_turns(self._samples[self.main_stage], self._turns)
        return np.array([np.median(turn) for turn in turns])

    def entry(self, conditions: Conditions) -> Entry:
        """Its figures, marked where they are doubtful; ratios are added by :meth:`result`."""
        path = Path(self.contender.path)
        known = Entry(
            name=self.name,
            model=self.name,
            runtime="",
            file=path.name,
            peer=self.contender.peer is not None,
            threads=self.contender.threads,
            bytes=path.stat().st_size if path.is_file() else None,
            sha256=sha256(path) if path.is_file() else "",
            headline=HEADLINES[self.plan.scenario],
        )
        if self._facts:
            facts = {**self._facts, "input": tuple(self._facts["input"])}
            known = dataclasses.replace(known, **facts)
        if self.error is not None:
            # The file's name is known; the folder it lies in is nobody's business.
            return dataclasses.replace(known, error=self.error.replace(self.contender.path, path.name))
        measured = dataclasses.replace(
            known,
            stages={
                stage: summary(times) for stage, times in {**self._once, **self._samples}.items() if times
            },
            fps=self._fps(),
            warmup=self._warmup(),
            memory=Memory(**self._memory),
            energy=1e3 * float(np.median(self._joules)) if self._joules else None,
            stream=Stream(fps=self.plan.fps, **self._stream) if self._stream else None,
            turns=tuple(self._turns),
            samples={stage: tuple(round(v, 4) for v in times) for stage, times in self._samples.items()},
            cpu=self._cpu / self._wall,
        )
        return dataclasses.replace(measured, marks=noise.entry_marks(measured, self.main_stage, conditions))

    def _fps(self) -> float:
        if self.plan.scenario == "single":
            return 1e3 / float(np.mean(self._samples["pipeline"]))
        if self.plan.scenario == "stream":
            return sum(self._turns) / self._wall
        return self.plan.batch * 1e3 / float(np.mean(self._samples["batch"]))

    def _warmup(self) -> Warmup:
        s = self.steadiness
        return Warmup(s.queries, round(s.seconds, 3), s.steady, s.RULE)

    @staticmethod
    def result(tallies: Sequence[Tally], job: Job, where: Machine, conditions: Conditions) -> Result:
        """The whole run."""
        entries = [tally.entry(conditions) for tally in tallies]
        measured = [k for k, tally in enumerate(tallies) if tally.error is None]
        for k in measured[1:]:
            times, base = tallies[k].medians(), tallies[measured[0]].medians()
            pairs = min(len(times), len(base))
            ratio, marks = paired_ratio(times[:pairs], base[:pairs]), noise.ratio_marks(pairs)
            entries[k] = dataclasses.replace(entries[k], ratio=ratio, marks=(*entries[k].marks, *marks))
        height, width = decode(job.frames[:1])[0].shape[:2]
        return Result(
            machine=where,
            conditions=conditions,
            plan=job.plan,
            frame=(height, width),
            entries=tuple(entries),
            marks=noise.run_marks(conditions),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
