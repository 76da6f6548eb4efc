"""Engines built and measured over ssh: by TensorRT's Python package, and by trtexec without it.

The far end is this machine behind a real sshd. TensorRT is the double of ``tests/trt``, trtexec a program
that takes the flags of its version and prints what a real one printed.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.bench.connection import BOOT, Connection
from edge_deeplab.bench.device import Progress
from edge_deeplab.bench.device_ssh import COMMAND, SshDevice
from edge_deeplab.bench.frames import encode
from edge_deeplab.bench.record import Contender, Entry, Job, Plan, Result
from edge_deeplab.bench.trtexec_there import Trtexec
from edge_deeplab.cli import main
from tests.bench.loopback_ssh import MISSING, WHY, Loopback, device_at, loopback_ssh
from tests.bench.recorded import recordings
from tests.bench.refused import ignore, refusal

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.skipif(bool(MISSING), reason=WHY)

ROOT = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).with_name("trtexec_standin.py")
RUNS = recordings("trtexec")
OUTPUTS = {
    8: RUNS["8.6.0, RTX 3090"], 10: RUNS["10.16.0, RTX 6000 Ada"], 11: RUNS["11.0.0, B200, its own defaults"],
}  # fmt: skip
LINE = recordings("tegrastats")["AGX Orin, L4T 36, two GPU clocks"].strip()

QUICK = Plan(min_queries=4, min_seconds=0.0, rounds=2, loads=1, lead_in=0)
FRAME = encode(np.full((48, 64, 3), 90, np.uint8))

Install = Callable[[int], Path]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which programs are found over there."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Loopback]:
    with loopback_ssh(tmp_path_factory.mktemp("ssh"), path=f"{programs}:/usr/bin:/bin") as running:
        yield running


@pytest.fixture
def device(sshd: Loopback, there: Path, monkeypatch: pytest.MonkeyPatch) -> SshDevice:
    return device_at(sshd, there, monkeypatch)


@pytest.fixture
def install(programs: Path) -> Iterator[Install]:
    """Puts trtexec of a version there, and a tegrastats."""

    def put(name: str, text: str) -> Path:
        path = programs / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def write(version: int) -> Path:
        (programs / "version").write_text(str(version))
        (programs / "output").write_text(OUTPUTS[version])
        (programs / "calls").write_text("")
        put("trtexec", f'exec {sys.executable} -S -E {STANDIN} {programs} "$@"')
        put("tegrastats", f"while :; do echo '{LINE}'; sleep 0.05; done")
        return programs / "calls"

    yield write
    for path in programs.iterdir():
        path.unlink()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job((Contender("ours", str(prepared(tmp_path / "ours.onnx"))),), QUICK, (FRAME,))


def prepared(path: Path, graph: str = "fp32") -> Path:
    from tests.trt.toys import toy_prepared

    return toy_prepared(path, graph)


def nothing_left(there: Path) -> bool:
    return not list(there.iterdir())


# -- trtexec ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [8, 10, 11])
def test_trtexec_builds_and_measures(
    device: SshDevice, job: Job, install: Install, there: Path, version: int
) -> None:
    calls = install(version)
    device.trtexec = "trtexec"
    seen: list[Progress] = []
    result = device.measure(job, seen.append)
    (entry,) = result.entries
    assert entry.error is None
    medians = {8: (0.0517578, 0.0439453), 10: (0.06073, 0.0529785), 11: (0.0402832, 0.0402832)}[version]
    assert entry.stages["inference"].p50 == pytest.approx(medians[0], abs=1e-4)
    assert entry.stages["device"].p50 == pytest.approx(medians[1], abs=1e-4)
    assert entry.turns == (3, 3) and len(entry.samples["inference"]) == 6
    assert (entry.headline, entry.fps, entry.energy) == ("inference p90", None, None)
    assert (entry.model, entry.precision) == ("random nano", "fp32")
    assert entry.versions == {"tensorrt": {8: "8.6.0", 10: "10.16.0", 11: "11.0.0"}[version]}
    # 11 measures as the others do once its new defaults are set back; the output tells that it obeyed.
    assert {entry.used[k] for k in ("data transfers", "spin-wait", "CUDA graph")} == {"yes", "no"}
    assert (entry.used["data transfers"], entry.used["CUDA graph"]) == ("yes", "no")
    assert not any("did not measure as" in mark.text for mark in entry.marks)
    assert "inference alone, measured by trtexec" in entry.marks[0].text
    assert result.machine.device == "ssh" and result.machine.gpu.startswith("NVIDIA")
    assert result.machine.versions["trtexec"] == entry.versions["tensorrt"]
    help_, build, *runs = calls.read_text().splitlines()
    assert help_ == "--help" and "--saveEngine=" in build and len(runs) == 2
    assert all(
        ("--includeDataTransfers --noSpinWait --noCudaGraph" in run) == (version == 11) for run in runs
    )
    assert {"copy", "build", "measure"} <= {progress.phase for progress in seen}
    assert Result.from_json(result.to_json()) == result
    assert nothing_left(there)


def test_nothing_but_python_is_needed(
    device: SshDevice, job: Job, install: Install, tmp_path: Path, there: Path
) -> None:
    """No numpy, no OpenCV: a fresh environment without any package."""
    install(10)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True)
    device.python, device.trtexec = str(tmp_path / "empty/bin/python"), "trtexec"
    assert device.measure(job, ignore).entries[0].error is None
    assert nothing_left(there)


def test_trtexec_where_debian_puts_it(device: SshDevice, job: Job, install: Install, programs: Path) -> None:
    install(10)
    elsewhere = (programs / "trtexec").rename(programs / "trtexec-10.16")
    device.trtexec = str(elsewhere)
    assert device.measure(job, ignore).entries[0].error is None


@pytest.fixture
def link() -> Iterator[Connection]:
    """A far side on this machine, without ssh."""
    with Connection([sys.executable, "-u", "-c", BOOT]) as connection:
        connection.hello()
        connection.put("it.onnx", b"a graph")
        yield connection


@pytest.mark.parametrize(
    ("version", "graph", "precision", "flags"),
    [
        (8, "fp32", "fp32", []),
        (8, "fp32", "fp16", ["--fp16"]),
        (8, "int8", "int8", ["--fp16", "--int8"]),
        (8, "fp16", "fp16", ["--fp16"]),
        (10, "fp16", "fp16", ["--stronglyTyped"]),
        (11, "fp16", "fp16", []),
        (11, "int8", "int8", []),
    ],
)
def test_flags_of_precision(
    link: Connection, install: Install, programs: Path,
    version: int, graph: str, precision: str, flags: list[str],
) -> None:  # fmt: skip
    calls = install(version)
    tool = Trtexec(link, str(programs / "trtexec"), ())
    assert tool.build("it.onnx", "it.engine", graph, precision) is None
    (build,) = (line for line in calls.read_text().splitlines() if "--saveEngine" in line)
    assert [word for word in build.split() if word in ("--fp16", "--int8", "--stronglyTyped")] == flags
    assert "engine of" in link.get("it.engine")


@pytest.mark.parametrize(
    ("version", "graph", "precision", "cure"),
    [
        (11, "fp32", "fp16", "--prepare --fp16"),
        (10, "int8", "fp16", "--prepare --fp16"),
        (8, "fp32", "int8", "--prepare --int8"),
    ],
)
def test_a_graph_of_another_precision(
    link: Connection, install: Install, programs: Path,
    version: int, graph: str, precision: str, cure: str,
) -> None:  # fmt: skip
    install(version)
    line = Trtexec(link, str(programs / "trtexec"), ()).build("it.onnx", "it.engine", graph, precision)
    assert line is not None and line.endswith(cure)
    assert f"the graph computes in {graph}, an engine in {precision} needs another one" in line


def test_pinned_to_cores(link: Connection, install: Install, programs: Path) -> None:
    install(10)
    core, path = min(os.sched_getaffinity(0)), programs / "trtexec"
    path.write_text(path.read_text().replace("\n", f"\ntaskset -cp $$ >> {programs / 'masks'}\n", 1))
    assert str(Trtexec(link, str(path), (core,))) == "trtexec 10.16.0"
    assert (programs / "masks").read_text().strip().endswith(f"list: {core}")


def test_what_cannot_be_built_or_run_drops_out_alone(
    device: SshDevice, job: Job, install: Install, tmp_path: Path, there: Path
) -> None:
    install(10)
    device.trtexec = "trtexec"
    (tmp_path / "bad.onnx").write_bytes(b"refused")
    (tmp_path / "old.engine").write_text("engine of 8")
    (tmp_path / "x.tflite").write_bytes(b"x")
    others = [Contender(name, str(tmp_path / name)) for name in ("bad.onnx", "old.engine", "x.tflite")]
    entries = device.measure(dataclasses.replace(job, contenders=(*others, *job.contenders)), ignore).entries
    bad, old, other, good = (entry.error or "" for entry in entries)
    assert bad.startswith("trtexec 10.16.0 cannot build it: ITensor::getDimensions: Error Code 4")
    assert old == "trtexec 10.16.0 cannot run it: Engine deserialization failed"
    assert other == "trtexec runs engines and ONNX files, not .tflite"
    assert good == "" and entries[3].ratio is None
    assert nothing_left(there)
    bad_alone = dataclasses.replace(job, contenders=tuple(others))
    assert refusal(device, bad_alone).startswith("127.0.0.1: nothing could be measured: bad.onnx: trtexec 10")


def test_engines_take_turns(device: SshDevice, job: Job, install: Install, tmp_path: Path) -> None:
    calls = install(10)
    device.trtexec = "trtexec"
    two = (*job.contenders, Contender("other", str(prepared(tmp_path / "other.onnx"))))
    longer = dataclasses.replace(QUICK, rounds=30)
    result = device.measure(dataclasses.replace(job, contenders=two, plan=longer), ignore)
    assert result.entries[1].ratio is not None and result.entries[1].ratio.value == 1.0
    assert not any("ratio's interval" in mark.text for entry in result.entries for mark in entry.marks)
    runs = [line for line in calls.read_text().splitlines() if "--loadEngine" in line]
    assert len(runs) == 10
    rounds = [{line.split()[0] for line in runs[k : k + 2]} for k in range(0, 10, 2)]
    assert all(len(pair) == 2 for pair in rounds)


def test_one_file_is_built_once(device: SshDevice, job: Job, install: Install) -> None:
    calls = install(10)
    device.trtexec = "trtexec"
    two = (*job.contenders, dataclasses.replace(job.contenders[0], name="again"))
    device.measure(dataclasses.replace(job, contenders=two), ignore)
    assert calls.read_text().count("--saveEngine") == 1


def test_a_run_with_other_settings_is_marked(
    device: SshDevice, job: Job, install: Install, programs: Path
) -> None:
    install(8)
    (programs / "output").write_text(OUTPUTS[8].replace("CUDA Graph: Disabled", "CUDA Graph: Enabled"))
    device.trtexec = "trtexec"
    (entry,) = device.measure(job, ignore).entries
    assert any("did not measure as 8.6 and 10 do" in mark.text for mark in entry.marks)


@pytest.mark.parametrize(
    ("engine", "program", "words"),
    [
        ("fp16", "", "has neither TensorRT's Python package nor trtexec; cure: install TensorRT there"),
        ("", "trtexec", "has no trtexec; cure"),
        ("", "/opt/trtexec-9", "has no /opt/trtexec-9; cure"),
    ],
)
def test_no_tensorrt_there(device: SshDevice, job: Job, engine: str, program: str, words: str) -> None:
    device.engine, device.trtexec = engine, program
    assert words in refusal(device, job)


def test_another_program_of_that_name(device: SshDevice, job: Job, install: Install, programs: Path) -> None:
    install(10)
    (programs / "trtexec").write_text("#!/bin/sh\necho 'trtexec: a runner of tests, 0.3'\n")
    device.trtexec = "trtexec"
    assert "does not say which TensorRT it is of (trtexec: a runner of tests, 0.3)" in refusal(device, job)


def test_other_scenarios(device: SshDevice, job: Job, install: Install) -> None:
    install(10)
    device.trtexec = "trtexec"
    stream = dataclasses.replace(job, plan=dataclasses.replace(QUICK, scenario="stream"))
    assert "no stream scenario" in refusal(device, stream)


# -- TensorRT's Python -----------------------------------------------------------------------------

DOUBLE = """
import sys

sys.path.append({root!r})  # the double lies among the tests; edge_deeplab itself comes from PYTHONPATH
sys.modules["torch"] = None
from tests.trt.cuda_double import CudaDouble, modules
from tests.trt.double import TensorRTDouble

cuda = CudaDouble()
sys.modules.update(modules(cuda))
sys.modules["tensorrt"] = TensorRTDouble({version!r}, cuda)
"""


@pytest.fixture
def board(device: SshDevice, tmp_path: Path) -> SshDevice:
    """Python over there has TensorRT's package."""
    folder = tmp_path / "board"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    ours = Path(np.__file__).parents[1]
    (site / "all.pth").write_text(f"{ours}\n")  # its packages, but not its own .pth files
    (site / "tensorrt.py").write_text(DOUBLE.format(root=str(ROOT), version="10.3.0"))
    device.python = str(folder / "bin/python")
    return device


def test_an_engine_is_built_there_and_measured_whole(
    board: SshDevice, job: Job, install: Install, there: Path
) -> None:
    install(10)  # its tegrastats tells the power
    board.engine = "fp16"
    seen: list[Progress] = []
    result = board.measure(job, seen.append)
    (entry,) = result.entries
    assert entry.error is None
    assert (entry.runtime, entry.precision, entry.file) == ("TensorRT", "fp16", "ours.engine")
    assert entry.versions["tensorrt"] == "10.3.0"
    assert entry.stages["pipeline"].count >= 4 and entry.fps
    assert entry.energy is not None and entry.used["energy"] == "of Jetson module (tegrastats)"
    assert "build" in {progress.phase for progress in seen}
    assert nothing_left(there)


def test_an_engine_that_cannot_be_built_drops_out_alone(
    board: SshDevice, job: Job, tmp_path: Path, there: Path
) -> None:
    from tests.runtimes.artefacts import toy_onnx

    raw = Contender("raw", str(toy_onnx(tmp_path / "raw.onnx")))
    board.engine = "own"
    entries = board.measure(dataclasses.replace(job, contenders=(raw, *job.contenders)), ignore).entries
    assert [entry.name for entry in entries] == ["raw", "ours"]
    assert "was not prepared for TensorRT" in (entries[0].error or "")
    assert entries[1].error is None
    alone = dataclasses.replace(job, contenders=(raw,))
    assert refusal(board, alone).startswith("127.0.0.1: nothing could be measured: raw: no engine was built")
    assert nothing_left(there)


def test_the_command(
    sshd: Loopback, job: Job, install: Install, there: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv(COMMAND, sshd.command)
    install(11)
    written = tmp_path / "result.json"
    words = ["bench", job.contenders[0].path, "--device", sshd.address, "--remote-dir", str(there)]
    quick = ["--remote-python", sys.executable, "--min-queries", "4", "--rounds", "1"]
    assert main([*words, *quick, "--trtexec", "--engine", "own", "--json", str(written)]) == 0
    shown = capsys.readouterr().out
    assert "TensorRT trtexec 11.0.0" in shown and "inference alone" in shown
    entry: Entry = Result.load(written).entries[0]
    assert entry.error is None
    assert nothing_left(there)
