"""A whole run on the machine it runs on: load, warm up, take turns, and write down the circumstances.

All contenders are alive at once, each in its own process, asleep while another has its turn. The order
within a round is drawn anew each time, so that nobody always follows the same neighbour; slow changes of
clock and heat then hit all alike, and ratios are taken within rounds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

from edge_deeplab.bench.conditions import Neighbours, machine, reference_work, snapshot
from edge_deeplab.bench.device import Progress, Report
from edge_deeplab.bench.energy import Meter, open_meter
from edge_deeplab.bench.record import Conditions, Contender, Job, Plan, Result
from edge_deeplab.bench.tally import Tally
from edge_deeplab.bench.typed import to_plain
from edge_deeplab.errors import UserError

Answer = dict[str, Any]

READINGS = 5
"""A turn must last this many readings of a board's power, or it is told the energy of the turn before."""


class ContenderError(UserError):
    """One contender cannot go on; the others can."""


class Process:
    """A contender's process.

    Args:
        contender: Whom it loads.
        frames: The job's frames.
    """

    def __init__(self, contender: Contender, frames: Sequence[str]) -> None:
        self.contender = contender
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_deeplab.bench.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("EDGE_DEEPLAB_BENCH_DEBUG") else None,
            text=True,
        )
        self.loaded: Answer = {}
        self._first = {"contender": to_plain(contender), "frames": list(frames)}

    def load(self) -> Answer:
        """Wait until the model is there and has seen its first frame."""
        self.loaded = self._exchange(self._first)
        return self.loaded

    def ask(self, what: str, **told: Any) -> Answer:
        """One command, one answer.

        Raises:
            ContenderError: It failed, or the process died.
        """
        return self._exchange({"do": what, **told})

    def close(self) -> None:
        """End it: it leaves when its input does, and is told to when that is not enough."""
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        self.close()

    def _exchange(self, told: Answer) -> Answer:
        with suppress(BrokenPipeError):  # it ended: the missing answer says so
            pipe = _pipe(self._process.stdin)
            pipe.write(json.dumps(told) + "\n")
            pipe.flush()
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise ContenderError(_died(self._process.wait()))
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer


def run_job(job: Job, report: Report) -> Result:
    """Measure all contenders here.

    Raises:
        UserError: The job cannot be run at all, e.g. none of its contenders can.
    """
    tallies = [Tally(contender, job.plan) for contender in job.contenders]
    with ExitStack() as stack:
        stack.enter_context(pinned(job.cpus))
        begin = time.perf_counter()
        before = snapshot()
        processes: dict[str, Process] = {}
        for k, tally in enumerate(tallies):
            report(Progress("load", k, len(tallies), tally.name))
            with failing_alone(tally):
                processes[tally.name] = stack.enter_context(_loaded(tally, job))
        running = _alive(tallies)
        _warm_up(running, processes, job.plan, report)
        affinity = allowed_cpus()
        neighbours = Neighbours(affinity)
        reference, seconds = _take_turns(running, processes, job.plan, neighbours, report)
        after = snapshot()  # at once: clocks fall and flags of throttling go when the load is gone
        others, stolen = neighbours.shares(seconds)
        for tally in running:
            if tally.error is None:
                with failing_alone(tally):
                    tally.finish(processes[tally.name].ask("finish"))
        _alive(running)
        conditions = Conditions(
            before,
            after,
            others,
            stolen,
            affinity,
            job.cpus is not None,
            tuple(round(v, 4) for v in reference),
            round(time.perf_counter() - begin, 3),
        )
    return Tally.result(tallies, job, machine(), conditions)


# -- the phases ----------------------------------------------------------------------------------


@contextmanager
def _loaded(tally: Tally, job: Job) -> Iterator[Process]:
    """Time loading in ``loads`` fresh processes; the last of them stays."""
    for _ in range(job.plan.loads - 1):
        with Process(tally.contender, job.frames) as once:
            tally.load(once.load())
    with Process(tally.contender, job.frames) as process:
        tally.load(process.load())
        yield process


def _warm_up(tallies: Sequence[Tally], processes: dict[str, Process], plan: Plan, report: Report) -> None:
    """Windows in turn until everyone is steady; who is steady early waits for the others."""
    command: Answer = {"what": "window"}
    if plan.scenario == "offline":
        command = {"what": "batch_window", "size": plan.batch}
    while any(tally.error is None and not tally.steadiness.over for tally in tallies):
        for tally in tallies:
            if tally.error is None and not tally.steadiness.over:
                done = sum(t.steadiness.over for t in tallies)
                report(Progress("warm-up", done, len(tallies), tally.name))
                with failing_alone(tally):
                    tally.steadiness.add(processes[tally.name].ask(**command)["times"])


def _take_turns(
    tallies: Sequence[Tally],
    processes: dict[str, Process],
    plan: Plan,
    neighbours: Neighbours,
    report: Report,
) -> tuple[list[float], float]:
    """All timed turns. Returns the reference work of every round, and the seconds of all turns."""
    order, seconds = random.Random(plan.seed), 0.0
    reference: list[float] = []
    meter = open_meter()
    try:
        while not all(tally.done for tally in tallies):
            number = len(reference)
            reference.append(reference_work())
            active = [tally for tally in tallies if tally.error is None]
            for tally in order.sample(active, len(active)):
                report(Progress("measure", number, max(plan.rounds, number + 1), tally.name))
                with failing_alone(tally):
                    energy = meter.joules() if meter else None
                    neighbours.skip()
                    begin = time.perf_counter()
                    answer = processes[tally.name].ask(**tally.command())
                    lasted = time.perf_counter() - begin
                    seconds += lasted
                    neighbours.turn(answer["busy"])
                    # The first reading of a turn still belongs to whoever had the one before.
                    long_enough = meter and (len(active) == 1 or lasted >= READINGS * meter.period)
                    tally.turn(answer, _spent(meter, energy) if long_enough else None)
                    tally.meter = meter.what if meter else ""
    finally:
        if meter:
            meter.close()
    return reference, seconds


def _spent(meter: Meter | None, before: float | None) -> float | None:
    """Joules since ``before``; None without a meter, or when it stopped meanwhile."""
    now = meter.joules() if meter else None
    return None if now is None or before is None else now - before


def _alive(tallies: Sequence[Tally]) -> list[Tally]:
    """Those that have not dropped out.

    Raises:
        UserError: There are none.
    """
    found = [tally for tally in tallies if tally.error is None]
    if not found:
        reasons = "; ".join(f"{tally.name}: {tally.error}" for tally in tallies)
        raise UserError(f"nothing could be measured: {reasons}")
    return found


# -- small helpers -------------------------------------------------------------------------------


@contextmanager
def failing_alone(tally: Tally) -> Iterator[None]:
    """A contender that cannot go on drops out; the run goes on."""
    try:
        yield
    except ContenderError as error:
        tally.error = str(error)


@contextmanager
def pinned(cpus: Sequence[int] | None) -> Iterator[None]:
    """Within the block, this process and those it starts run on ``cpus`` only.

    Raises:
        UserError: A core that is not there, or the system cannot pin.
    """
    if cpus is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("this system cannot pin processes to cores; leave --cpus out")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot pin to cores {','.join(map(str, cpus))}; this machine offers "
            f"{','.join(map(str, sorted(before)))}"
        ) from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allowed_cpus() -> tuple[int, ...]:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise ValueError("the process was started without pipes")
    return pipe


def _died(status: int) -> str:
    if status == -9:
        return "its process was killed (signal 9); most likely the memory ran out"
    if status < 0:
        return f"its process died of signal {-status}"
    return f"its process ended early with status {status}"
