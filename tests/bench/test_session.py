"""Whole runs of the worker with real models: turns, failures, conditions, stopping."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_deeplab.bench import open_device, session
from edge_deeplab.bench.device import Progress, follow
from edge_deeplab.bench.energy import Meter
from edge_deeplab.bench.record import Contender, Job, Plan, Result, result_schema
from edge_deeplab.bench.session import allowed_cpus, pinned, run_job
from edge_deeplab.errors import UserError

QUICK = Plan(min_queries=20, min_seconds=0.01, rounds=5, loads=1)


@pytest.fixture
def ran(toy: Path, frames: tuple[str, ...], tmp_path: Path) -> tuple[Result, list[Progress]]:
    """The toy twice and a file that is none, on this machine."""
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    contenders = (
        Contender("one", str(toy)),
        Contender("two", str(toy), 2),
        Contender("bad", str(tmp_path / "bad.onnx")),
    )
    seen: list[Progress] = []
    return run_job(Job(contenders, replace(QUICK, loads=2), frames), seen.append), seen


def test_a_run(ran: tuple[Result, list[Progress]], toy: Path) -> None:
    result, seen = ran
    one, two, bad = result.entries
    assert bad.error is not None and "damaged" in bad.error and not bad.stages
    assert "/" not in bad.error  # folders have people's names in them
    assert bad.error.startswith("bad.onnx ")
    for entry in (one, two):
        assert entry.error is None
        assert entry.stages["load"].count == entry.stages["first"].count == 2
        assert entry.stages["pipeline"].count == sum(entry.turns) >= 20
        assert len(entry.turns) >= 5
        assert len(entry.samples["pipeline"]) == sum(entry.turns)
        assert entry.fps == pytest.approx(1e3 / entry.stages["pipeline"].mean)  # type: ignore[operator]
        assert entry.bytes == toy.stat().st_size
        assert entry.warmup is not None and entry.warmup.queries >= 15
        assert entry.memory is not None and entry.memory.peak is not None and entry.memory.base is not None
        assert entry.memory.peak >= entry.memory.base > 0
        assert entry.used["providers"] == "CPUExecutionProvider"
        assert "onnxruntime" in entry.versions
    assert (one.ratio, two.threads) == (None, 2)
    assert two.ratio is not None and two.ratio.low <= two.ratio.value <= two.ratio.high
    assert result.frame == (40, 60)
    assert result.machine.cores == os.cpu_count()
    assert len(result.conditions.reference_ms) == len(one.turns)
    assert {p.phase for p in seen} == {"load", "warm-up", "measure"}


def test_a_ratio_of_few_rounds_is_marked(toy: Path, frames: tuple[str, ...]) -> None:
    """Its interval has no width, and would pass for certain."""
    job = Job((Contender("a", str(toy)), Contender("b", str(toy))), replace(QUICK, rounds=1), frames)
    first, second = run_job(job, lambda _: None).entries
    words = "1 round: the ratio's interval needs at least 5"
    assert second.ratio is not None and second.ratio.low == second.ratio.high
    assert words in [mark.text for mark in second.marks]
    assert words not in [mark.text for mark in first.marks]


def test_a_real_result_is_valid(ran: tuple[Result, list[Progress]]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.validate(json.loads(ran[0].to_json()), result_schema())
    assert Result.from_json(ran[0].to_json()) == ran[0]


def orders(seen: Sequence[Progress]) -> list[tuple[str, ...]]:
    rounds: dict[int, list[str]] = defaultdict(list)
    for progress in seen:
        if progress.phase == "measure":
            rounds[progress.done].append(progress.text)
    return [tuple(order) for order in rounds.values()]


def test_everyone_has_one_turn_a_round_in_changing_order(toy: Path, frames: tuple[str, ...]) -> None:
    job = Job(tuple(Contender(name, str(toy)) for name in "abc"), replace(QUICK, rounds=8), frames)
    runs = []
    for _ in range(2):
        seen: list[Progress] = []
        run_job(job, seen.append)
        runs.append(orders(seen)[:8])
    assert runs[0] == runs[1]  # the seed says who comes when
    assert all(sorted(order) == ["a", "b", "c"] for order in runs[0])
    assert len(set(runs[0])) > 1


@pytest.mark.parametrize("scenario", ["stream", "offline"])
def test_the_other_scenarios(scenario: Any, toy: Path, frames: tuple[str, ...]) -> None:
    plan = replace(QUICK, scenario=scenario, fps=500.0, batch=3)
    (entry,) = run_job(Job((Contender("toy", str(toy)),), plan, frames), lambda _: None).entries
    assert entry.error is None
    if scenario == "stream":
        s = entry.stream
        assert s is not None and s.offered == s.met + s.late + s.dropped
        assert s.met + s.late == sum(entry.turns) == entry.stages["latency"].count
        assert all(a >= b for a, b in zip(entry.samples["latency"], entry.samples["pipeline"], strict=True))
    else:
        assert set(entry.samples) == {"batch"}
        assert entry.fps == pytest.approx(3e3 / entry.stages["batch"].mean)  # type: ignore[operator]


def test_nothing_to_measure_is_the_users_to_mend(frames: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing could be measured: gone: no model"):
        run_job(Job((Contender("gone", str(tmp_path / "gone.onnx")),), QUICK, frames), lambda _: None)


def test_a_contender_that_dies_leaves_the_others(toy: Path, frames: tuple[str, ...]) -> None:
    """Its process is killed while the others are measured, as the kernel does when memory runs out."""
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if progress.phase == "measure" and progress.done == 1 and not killed:
            killed.append(first_child())
            os.kill(killed[0], 9)

    result = run_job(
        Job((Contender("first", str(toy)), Contender("second", str(toy))), QUICK, frames), kill_one
    )
    first, second = result.entries
    assert first.error is not None and "killed (signal 9)" in first.error
    assert second.error is None and second.stages["pipeline"].count >= 20


def test_when_the_last_one_dies_nothing_was_measured(toy: Path, frames: tuple[str, ...]) -> None:
    def kill(progress: Progress) -> None:
        if progress.phase == "measure" and progress.done == 1:
            with suppress(ValueError):  # dead already
                os.kill(first_child(), 9)

    with pytest.raises(UserError, match=r"nothing could be measured: toy: its process was killed"):
        run_job(Job((Contender("toy", str(toy)),), QUICK, frames), kill)


def test_the_state_after_is_that_of_the_last_turn(
    toy: Path, frames: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of an idle machine: ``finish`` may load a model again, which takes seconds."""
    seen: list[str] = []
    look, ask = session.snapshot, session.Process.ask

    def watched(self: session.Process, what: str, **told: Any) -> dict[str, Any]:
        seen.append(what)
        return ask(self, what, **told)

    monkeypatch.setattr(session, "snapshot", lambda: (seen.append("snapshot"), look())[1])
    monkeypatch.setattr(session.Process, "ask", watched)
    run_job(Job((Contender("toy", str(toy)),), QUICK, frames), lambda _: None)
    assert seen[0] == "snapshot"
    assert seen[-3:] == ["single", "snapshot", "finish"]


@pytest.mark.parametrize(
    ("names", "period", "told"),
    [("a", 60.0, True), ("ab", 0.0, True), ("ab", 1e-5, True), ("ab", 60.0, False)],
)
def test_energy_is_not_that_of_the_turn_before(
    names: str,
    period: float,
    told: bool,
    toy: Path,
    frames: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A meter that is read more rarely than contenders change would tell them all the same."""

    class Slow(Meter):
        what = "a board"

        @classmethod
        def open(cls) -> Meter | None:
            return None

        def joules(self) -> float | None:
            return time.perf_counter()

    meter = Slow()
    meter.period = period
    monkeypatch.setattr(session, "open_meter", lambda: meter)
    entries = run_job(
        Job(tuple(Contender(n, str(toy)) for n in names), QUICK, frames), lambda _: None
    ).entries
    assert [entry.energy is not None for entry in entries] == [told] * len(names)
    words = "of a board" if told else "not told: turns too short for the readings of a board"
    assert all(entry.used["energy"].startswith(words) for entry in entries)


def first_child() -> int:
    """The process of ours that was started first and runs a contender."""
    started = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"edge_deeplab.bench.child" in command:
            started[int(fields[19])] = int(folder.name)
    return started[min(started)]


# -- pinning -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_pinning_is_undone(toy: Path, frames: tuple[str, ...]) -> None:
    before = allowed_cpus()
    job = Job((Contender("toy", str(toy)),), QUICK, frames, cpus=before[:1])
    conditions = run_job(job, lambda _: None).conditions
    assert (conditions.affinity, conditions.pinned) == (before[:1], True)
    assert allowed_cpus() == before


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="this system does not tell who uses its cores")
def test_a_neighbour_on_the_same_core_is_noticed(toy: Path, frames: tuple[str, ...]) -> None:
    """Somebody else computes on the core: the run says so by itself."""
    core = allowed_cpus()[0]
    with pinned([core]):  # children inherit it
        neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        longer = replace(QUICK, min_seconds=1.0, min_queries=20)
        job = Job((Contender("toy", str(toy)),), longer, frames, (core,))
        result = run_job(job, lambda _: None)
    finally:
        neighbour.kill()
        neighbour.wait()
    assert result.conditions.others is not None and result.conditions.others > 0.05
    assert "busy" in {mark.kind for mark in result.marks}


def test_a_core_that_is_not_there() -> None:
    with pytest.raises(UserError, match="cannot pin to cores 4095; this machine offers "), pinned([4095]):
        pass


# -- the worker as a program -------------------------------------------------------------------------


def worker(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_deeplab.bench.worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_worker_answers_in_lines(toy: Path, frames: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(Job((Contender("toy", str(toy)),), QUICK, frames).to_json())
    out, err = worker(str(tmp_path / "job.json")).communicate()
    assert err == ""
    *progress, last = [json.loads(line) for line in out.splitlines()]
    assert progress and all(set(line) == {"progress"} for line in progress)
    assert set(last) == {"result"}
    seen: list[Progress] = []
    result = follow(["Welcome to this machine\n", "[1]\n", *out.splitlines()], seen.append)
    assert result.entries[0].name == "toy"
    assert len(seen) == len(progress)


@pytest.mark.parametrize("job", ["nonsense", '{"format": 1}', "[]"])
def test_a_bad_job_is_one_line(job: str) -> None:
    process = worker("-")
    out, err = process.communicate(job)
    assert (process.returncode, err) == (2, "")
    assert set(json.loads(out)) == {"error"}


def test_without_a_result_the_lines_end_in_an_error() -> None:
    with pytest.raises(EOFError):
        follow(['{"progress": {"phase": "load"}}\n'], lambda _: None)
    with pytest.raises(UserError, match="no such thing"):
        follow(['{"error": "no such thing"}\n'], lambda _: None)


def test_the_worker_stops_when_its_input_closes(toy: Path, frames: tuple[str, ...]) -> None:
    """As when an ssh connection is cut: neither it nor its children stay."""
    plan = replace(QUICK, min_seconds=600)
    process = worker("-", "--until-eof")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(Job((Contender("toy", str(toy)),), plan, frames).to_json() + "\n")
    process.stdin.flush()
    while "measure" not in process.stdout.readline():
        assert process.poll() is None
    process.stdin.close()
    assert process.wait(timeout=60) == 130
    process.stdout.read()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stdout.close()
    process.stderr.close()
    for _ in range(100):
        if not orphans():
            break
        time.sleep(0.1)
    assert not orphans()


def orphans() -> list[str]:
    """Children of a worker that lost it: their parent is not one of ours any more."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"edge_deeplab.bench.child" in command and parent == 1:
            found.append(folder.name)
    return found


def test_the_local_device(toy: Path, frames: tuple[str, ...]) -> None:
    seen: list[Progress] = []
    result = open_device("local").measure(Job((Contender("toy", str(toy)),), QUICK, frames), seen.append)
    assert result.machine.device == "local"
    assert result.entries[0].stages["pipeline"].count >= 20
    assert seen
