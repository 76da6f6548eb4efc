"""TensorRT measured by ``trtexec`` over a connection: for boards without TensorRT's Python package.

Nothing but Python and ``trtexec`` has to be there. Engines are built there from prepared ONNX files, then
run in turns; every query's time comes from ``--exportTimes``. It is inference alone, so every entry is
marked. What 11 changed in its defaults is set back (:func:`edge_deeplab.bench.tools.trtexec.flags`), and
an entry whose run did not obey is marked too.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from edge_deeplab.bench import facts, jetson_state, noise, remote_state
from edge_deeplab.bench.connection import Connection, Greeting
from edge_deeplab.bench.device import Progress, Report
from edge_deeplab.bench.frames import decode
from edge_deeplab.bench.record import Conditions, Contender, Entry, Job, Machine, Mark, Plan, Result, Snapshot
from edge_deeplab.bench.stats import paired_ratio, split_turns, summary
from edge_deeplab.bench.tools import android
from edge_deeplab.bench.tools.trtexec import Output
from edge_deeplab.bench.trtexec_there import Trtexec
from edge_deeplab.errors import UserError
from edge_deeplab.files import sha256

TURNS = 5
"""Runs a contender gets, at most: each one loads the engine anew."""

INFERENCE_ONLY = Mark(
    "incomplete",
    "inference alone, measured by trtexec: it neither resizes frames nor makes masks, feeds random numbers, "
    "and queues the next query's copies while one computes",
)


Texts = dict[str, str]


def measure(
    link: Connection,
    there: Greeting,
    program: str,
    precision: str | None,
    job: Job,
    sent: Job,
    report: Report,
) -> Result:
    """Run a job whose files were copied already.

    Args:
        link: An open connection.
        there: What is at its other end.
        program: ``trtexec`` there.
        precision: Of the engines that are built; None takes the prepared file's own.
        job: With this machine's paths.
        sent: With the paths over there.
        report: Told how far it is.

    Raises:
        UserError: Nothing can be measured: one line.
    """
    if job.plan.scenario != "single":
        raise UserError(f"trtexec runs one inference after the other, no {job.plan.scenario} scenario")
    tool = Trtexec(link, program, job.cpus or ())
    runs = [Runs(here, far.path) for here, far in zip(job.contenders, sent.contenders, strict=True)]
    before, files = _snapshot(link)
    begin = time.monotonic()
    for k, run in enumerate(runs):
        report(Progress("build", k, len(runs), run.contender.name))
        run.prepare(tool, precision)
    _take_turns(tool, runs, job.plan, report)
    if all(run.error is not None for run in runs):
        reasons = "; ".join(f"{run.contender.name}: {run.error}" for run in runs)
        raise UserError(f"nothing could be measured: {reasons}")
    after, _ = _snapshot(link)
    conditions = Conditions(
        before,
        after,
        affinity=job.cpus or tuple(core.index for core in before.cores),
        pinned=job.cpus is not None,
        seconds=round(time.monotonic() - begin, 3),
    )
    frame = decode(job.frames[:1])[0].shape
    return Result(
        machine=_machine(there, files, tool, next(run.gpu for run in runs if run.error is None)),
        conditions=conditions,
        plan=job.plan,
        frame=(frame[0], frame[1]),
        entries=_entries(runs, tool, conditions),
        marks=noise.run_marks(conditions),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _take_turns(tool: Trtexec, runs: Sequence[Runs], plan: Plan, report: Report) -> None:
    turns = min(TURNS, max(1, plan.rounds))
    order = random.Random(plan.seed)
    for turn in range(turns):
        for run in order.sample(runs, len(runs)):
            if run.error is None:
                report(Progress("measure", turn, turns, run.contender.name))
                run.turn(tool, plan, turns)


def _entries(runs: Sequence[Runs], tool: Trtexec, conditions: Conditions) -> tuple[Entry, ...]:
    base = next(run for run in runs if run.error is None)
    return tuple(run.entry(tool, conditions, None if run is base else base) for run in runs)


# -- one contender ---------------------------------------------------------------------------------


class Runs:
    """One contender's engine and its runs.

    Args:
        contender: Who, with this machine's path.
        place: Its path there.

    Attributes:
        error: Why it dropped out; else None.
        gpu: What it ran on.
    """

    def __init__(self, contender: Contender, place: str) -> None:
        self.contender, self.gpu = contender, ""
        self.error: str | None = None
        self._place = self._engine = place
        self._facts = facts.of_file(Path(contender.path))
        self._bytes: int | None = None
        self._outputs: list[Output] = []
        self._times: dict[str, list[float]] = {"latency": [], "compute": []}
        self._turns: list[int] = []

    def prepare(self, tool: Trtexec, precision: str | None) -> None:
        """Build its engine, unless it is one."""
        suffix = Path(self._place).suffix
        if suffix not in (".onnx", ".engine"):
            self.error = f"trtexec runs engines and ONNX files, not {suffix}"
        elif "size" in self.contender.options:
            self.error = "an engine has one input size; prepare the file with --size"
        elif suffix == ".onnx":
            graph = self._facts.get("precision") or "fp32"
            self._engine = f"{self._place}.engine"
            self.error = tool.build(self._place, self._engine, graph, precision or graph)
            self._facts["precision"] = precision or graph
        if self.error is None:
            self._bytes = tool.size(self._engine)

    def turn(self, tool: Trtexec, plan: Plan, turns: int) -> None:
        """Run it once."""
        try:
            found, times = tool.time(self._engine, plan, turns)
        except UserError as error:
            self.error = str(error)
            return
        self.gpu = found.device
        self._outputs.append(found)
        self._turns.append(len(times["latency"]))
        for name, values in times.items():
            self._times[name] += values

    def medians(self) -> list[float]:
        """Of every turn, for ratios."""
        return [float(np.median(turn)) for turn in split_turns(self._times["latency"], self._turns)]

    def entry(self, tool: Trtexec, conditions: Conditions, base: Runs | None) -> Entry:
        """Its figures; ``base`` is whom ratios are to."""
        path = Path(self.contender.path)
        known = Entry(
            name=self.contender.name,
            runtime=f"TensorRT {tool}",
            file=path.name,
            threads=self.contender.threads,
            bytes=self._bytes,
            sha256=sha256(path),
            headline="inference p90",
            versions={"tensorrt": ".".join(map(str, tool.version))},
            **self._facts,
        )
        if self.error is not None:
            return dataclasses.replace(known, error=self.error)
        samples = {"inference": self._times["latency"], "device": self._times["compute"]}
        measured = dataclasses.replace(
            known,
            used=self._used(),
            stages={stage: summary(times) for stage, times in samples.items()},
            ratio=paired_ratio(np.array(self.medians()), np.array(base.medians())) if base else None,
            turns=tuple(self._turns),
            samples={stage: tuple(round(v, 4) for v in times) for stage, times in samples.items()},
        )
        marks = noise.entry_marks(measured, "inference", conditions)
        if base:
            marks += noise.ratio_marks(len(self._turns))
        return dataclasses.replace(measured, marks=(INFERENCE_ONLY, *self._disobeyed(tool), *marks))

    def _used(self) -> dict[str, str]:
        settings = self._outputs[-1].settings
        words = {True: "yes", False: "no", None: "not told"}
        warnings = dict.fromkeys(text for output in self._outputs for text in output.warnings)
        return {
            "GPU": self.gpu,
            "data transfers": words[settings.transfers],
            "spin-wait": words[settings.spin],
            "CUDA graph": words[settings.graph],
            **({"trtexec warns": " ".join(warnings)} if warnings else {}),
        }

    def _disobeyed(self, tool: Trtexec) -> list[Mark]:
        if all(output.settings.comparable for output in self._outputs):
            return []
        return [
            Mark("incomplete", f"{tool} did not measure as 8.6 and 10 do: see its settings; no comparison")
        ]


# -- the machine -----------------------------------------------------------------------------------


def _snapshot(link: Connection) -> tuple[Snapshot, Texts]:
    script = remote_state.script((*remote_state.FILES, *jetson_state.FILES))
    files = android.parse_files("\n".join(link.run(["sh", "-c", script])))
    found = remote_state.snapshot(files)
    if not jetson_state.is_jetson(files):
        return found, files
    answers = {
        name: "\n".join(link.run(["sh", "-c", command])) for name, command in jetson_state.COMMANDS.items()
    }
    return jetson_state.snapshot(found, files, answers), files


def _machine(there: Greeting, files: Texts, tool: Trtexec, gpu: str) -> Machine:
    found = Machine(
        device="ssh",
        board=files.get("/proc/device-tree/model", "").strip(),
        cpu=remote_state.cpu_name(files),
        cores=len(remote_state.online(files)) or None,
        memory=remote_state.memory(files, "MemTotal"),
        system=there.system,
        gpu=gpu,
        versions={"trtexec": ".".join(map(str, tool.version))},
    )
    return jetson_state.machine(found, files) if jetson_state.is_jetson(files) else found
