"""``edge-deeplab bench``: a real run, what it writes, its comparison for CI, and mistakes in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.bench.record import Plan, Result
from tests.bench.conftest import make_entry, make_result, quiet_turns
from tests.cli.support import Run
from tests.conftest import MakePeople

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

QUICK = ["--min-queries", "5", "--min-seconds", "0.01", "--rounds", "3", "--loads", "1", "--frame", "60x40"]


def test_a_run_writes_all_reports(run: Run, toy: Path, tmp_path: Path, make_people: MakePeople) -> None:
    data = make_people(tmp_path / "people", train=1, val=2)
    out = tmp_path / "out"
    done = run("bench", toy, "--threads", "1,2", "--data", f"folder:{data}", "--output", out, *QUICK)
    assert done.status == 0, done.err
    assert {p.name for p in out.iterdir()} == {"bench.json", "bench.md", "bench.html"}
    result = Result.load(out / "bench.json")
    assert [e.name for e in result.entries] == ["toy.onnx, 1 thread", "toy.onnx, 2 threads"]
    assert [e.threads for e in result.entries] == [1, 2]
    assert result.frame == (40, 60)
    assert all(e.accuracy[0].images == 2 for e in result.entries)
    for report in (done.out, (out / "bench.md").read_text(), (out / "bench.html").read_text()):
        assert f"{result.entries[0].stages['pipeline'].p90:.2f}" in report
        assert f"{result.entries[0].accuracy[0].foreground_iou:.4f}" in report
    assert f"written to {out}" in done.out


def test_json_alone(run: Run, toy: Path, tmp_path: Path) -> None:
    assert run("bench", toy, "--json", tmp_path / "r.json", *QUICK).status == 0
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    assert json.loads((tmp_path / "r.json").read_text())["format"] == 1


def test_who_stops_the_scoring_keeps_the_timing(
    run: Run, toy: Path, tmp_path: Path, make_people: MakePeople, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    data = make_people(tmp_path / "people", train=1, val=1)
    monkeypatch.setattr("edge_deeplab.bench.accuracy.with_accuracy", stopped)
    done = run("bench", toy, "--data", f"folder:{data}", "--json", tmp_path / "r.json", *QUICK)
    assert done.status == 130
    (entry,) = Result.load(tmp_path / "r.json").entries
    assert entry.stages["pipeline"].count >= 5 and entry.accuracy == ()


def test_reports_of_several_results(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    for name in "ab":
        make_result(make_entry(name, quiet_turns(rng, 7.0))).save(tmp_path / f"{name}.json")
    done = run("bench", "report", tmp_path / "a.json", tmp_path / "b.json", "--output", tmp_path / "out")
    assert done.status == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"bench.md", "bench.html"}
    assert (tmp_path / "out" / "bench.html").read_text().count("<h2>Figures</h2>") == 2


# -- comparison ------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path, rng: np.random.Generator) -> Callable[[float], Path]:
    def at(level: float) -> Path:
        path = tmp_path / f"{level}.json"
        make_result(make_entry("m", quiet_turns(rng, level))).save(path)
        return path

    return at


@pytest.mark.parametrize(
    ("after", "options", "status", "verdict"),
    [
        (12.0, ["--fail-above", "5%"], 1, "slower"),
        (12.0, ["--fail-above", "30"], 0, "same"),
        (12.0, [], 0, "slower"),
        (10.0, ["--fail-above", "5%"], 0, "same"),
        (8.0, ["--fail-above", "5%"], 0, "faster"),
    ],
)
def test_compare_for_ci(
    run: Run, results: Callable[[float], Path], after: float, options: list[str], status: int, verdict: str
) -> None:
    done = run("bench", "compare", results(10.0), results(after), *options)
    assert (done.status, done.err) == (status, "")
    assert verdict in done.out.splitlines()[1]


def test_a_model_that_no_longer_runs_fails_ci(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    kept, gone = (make_entry(name, quiet_turns(rng, 10.0)) for name in ("kept", "gone"))
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    make_result(kept, gone).save(a)
    make_result(kept).save(b)
    assert run("bench", "compare", a, b).status == 0
    done = run("bench", "compare", a, b, "--fail-above", "50%")
    assert done.status == 1 and "- B has no figures for gone: not in it" in done.out
    assert run("bench", "compare", b, a, "--fail-above", "50%").status == 0


def test_the_preset_asks_for_mlperfs_lengths() -> None:
    from edge_deeplab.cli import parser
    from edge_deeplab.cli.cmd_bench import _plan

    def planned(*words: str) -> Plan:
        args = parser().parse_args(["bench", "m", "--mlperf", *words])
        args.left.settle(args)
        return _plan(args)

    plan = planned("--scenario", "offline")
    assert (plan.min_queries, plan.min_seconds, plan.scenario) == (1024, 60.0, "offline")
    plan = planned("--min-seconds", "600")
    assert (plan.min_queries, plan.min_seconds) == (1024, 600.0)


# -- mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing to measure"]),
        (["gone"], ["no model 'gone'"]),
        (["TOY", "--device", "ftp://host"], ["no device 'ftp://host'", "local"]),
        (["TOY", "--device", "local:1"], ["this machine is just local"]),
        (["TOY", "--threads", "0"], ["--threads", "at least 1"]),
        (["TOY", "--threads", "1,,2"], ["--threads"]),
        (["TOY", "--frame", "640"], ["no frame size", "WIDTHxHEIGHT"]),
        (["TOY", "--size", "10x10"], ["--size", "between 32 and 8192"]),
        (["TOY", "--cpus", "3-1"], ["no list of cores"]),
        (["TOY", "--cpus", "4095"], ["cannot pin to cores 4095"]),
        (["TOY", "--min-seconds", "-1"], ["must be a number above 0"]),
        (["TOY", "--fps", "nan"], ["must be a number above 0"]),
        (["TOY", "--scenario", "server"], ["--scenario"]),
        (["TOY", "--frames", "gone.png"], ["cannot read gone.png"]),
        (["TOY", "--data", "folder:gone"], ["gone"]),
        (["TOY", "--peer", "gone.tflite"], ["no peer gone.tflite"]),
        (["TOY", "--peer", "TOY"], ["say how to feed and read it"]),
        (["TOY", "--provider", "warp"], ["nothing could be measured", "no warp"]),
        (["TOY", "--size", "128x128"], ["nothing could be measured", "fixed input of 64x96"]),
        (["compare", "a.json"], ["compare takes two results"]),
        (["compare", "a.json", "b.json"], ["cannot read a.json"]),
        (["compare", "TOY", "TOY"], ["is no result", "not UTF-8 text"]),
        (["compare", "a.json", "b.json", "--output", "out"], ["writes nothing"]),
        (["report"], ["report takes results"]),
        (["report", "a.json", "b.json", "--json", "c.json"], ["writes none"]),
        (["TOY", "--fail-above", "much"], ["no percentage"]),
        (["TOY", "--fail-above", "5%"], ["--fail-above has no effect without compare: leave it away"]),
        (["TOY", "--fps", "15"], ["--fps has no effect without --scenario stream"]),
        (["TOY", "--fps", "30"], ["--fps has no effect without --scenario stream"]),
        (["TOY", "--scenario", "stream", "--batch", "2"], ["--batch has no effect without"]),
        (["TOY", "--split", "test", "--data-limit", "2"], ["--data-limit", "; --split has no effect"]),
        (["TOY", "--engine", "--trtexec"], ["--engine has no effect without --device ssh; --trtexec"]),
        (["TOY", "--cores", "big"], ["--cores has no effect without --device adb"]),
        (["TOY", "--torch", "eager"], ["--torch has no effect without a .safetensors file"]),
        (["TOY", "--torch-device", "cuda"], ["--torch-device has no effect without a .safetensors file"]),
        (["compare", "a.json", "b.json", "--threads", "2"], ["--threads has no effect in bench compare"]),
        (["report", "a.json", "--fail-above", "5"], ["--fail-above has no effect in bench report"]),
    ],
)
def test_a_mistake_is_one_line(
    run: Run,
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = [str(toy) if word == "TOY" else word for word in arguments]
    short = [] if arguments[:1] in (["compare"], ["report"]) else QUICK
    if "--frame" in typed:
        short = short[:-2]
    for option in {"--min-seconds"} & set(typed):
        at = short.index(option)
        short = short[:at] + short[at + 2 :]
    run("bench", *typed, *short).refused(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_places_that_cannot_be_written_are_told_before_measuring(
    run: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    run("bench", toy, "--output", tmp_path / "file", *QUICK).refused("is a file; give a folder")
    run("bench", toy, "--json", tmp_path, *QUICK).refused("is a folder; give a file name")
    measured: list[object] = []
    monkeypatch.setattr("edge_deeplab.bench.device_local.Local.measure", lambda *_: measured.append(1))
    run("bench", toy, "--json", "/proc/none/r.json", *QUICK).refused("cannot write /proc/none/r.json")
    run("bench", toy, "--output", "/proc/none", *QUICK).refused("cannot write /proc/none")
    assert measured == []


def test_a_full_disk_leaves_nothing(
    run: Run, toy: Path, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with full_disk(2000):
        run("bench", toy, "--output", tmp_path / "out", *QUICK).refused("cannot write", "bench.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_ctrl_c_ends_everything(toy: Path, tmp_path: Path) -> None:
    """The command, the worker and the contender's process are all gone, and nothing is written."""
    token = f"EDGE_DEEPLAB_TEST={tmp_path.name}"
    name, _, value = token.partition("=")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_deeplab", "bench", str(toy), "--min-seconds", "600", "--output", "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, name: value},
    )

    def family() -> list[bytes]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if token.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes())
            except OSError:
                continue
        return [command for command in found if command]

    while not any(b"edge_deeplab.bench.child" in command for command in family()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "stopped\n")
    for _ in range(200):
        if not family():
            break
        time.sleep(0.05)
    assert family() == []
    assert list(tmp_path.iterdir()) == []
