"""The adb device against a stand-in phone, through the real adb client and server."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.bench.adb import parse_devices
from edge_deeplab.bench.device import Progress, open_device
from edge_deeplab.bench.device_adb import AdbDevice
from edge_deeplab.bench.frames import encode
from edge_deeplab.bench.phone import GUARD
from edge_deeplab.bench.record import Contender, Job, Plan, Result
from edge_deeplab.cli import main
from tests.bench.phone import ADB, WHY, Phone, adb_server, furnish
from tests.bench.recorded import recordings
from tests.bench.refused import ignore, refusal
from tests.runtimes.artefacts import toy_contract
from tests.runtimes.tflite_toys import toy_tflite

pytestmark = pytest.mark.skipif(ADB is None, reason=WHY)

FRAME = encode(np.full((48, 64, 3), 90, np.uint8))
PLAN = Plan(min_queries=50, min_seconds=1.0, rounds=2)
ANDROID = recordings("android")
DUMPSYS = (
    f"case $1 in battery) cat <<'E'\n{ANDROID['battery, Samsung on USB']}\nE\n;; "
    f"thermalservice) cat <<'E'\n{ANDROID['thermal, Shield TV Pro 2019']}\nE\n;; esac"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with adb_server(tmp_path_factory.mktemp("adb")) as environment:
        yield environment


Connect = Callable[..., Phone]


@pytest.fixture
def connect(server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """``connect()`` plugs in a phone."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    phones: list[Phone] = []

    def plug_in(*, allowed: bool = True, space: int = 1 << 30, state: str = "device") -> Phone:
        root = tmp_path / f"phone{len(phones)}"
        furnish(root, {"dumpsys": DUMPSYS})
        phone = Phone(root, allowed=allowed, space=space)
        phones.append(phone)
        adb("connect", phone.serial)
        wanted = state if allowed else "unauthorized"
        assert eventually(lambda: f"{phone.serial} {wanted}" in " ".join(adb("devices").split()))
        return phone

    yield plug_in
    for phone in phones:
        phone.unplug()
        adb("disconnect", phone.serial)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    model = tmp_path / "portrait-int8.tflite"
    model.write_bytes(b"TFL3 as far as the stand-in is concerned")
    return Job((Contender("portrait", str(model), threads=4),), PLAN, (FRAME,))


def adb(*words: str) -> str:
    return subprocess.run([str(ADB), *words], capture_output=True, text=True, check=False).stdout


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def tool(
    folder: Path, recording: str = "2025, phone, through logcat", *, before: str = "", status: int = 0
) -> Path:
    """A program that prints recorded real output, as ``benchmark_model``; it notes what it was told."""
    text = recordings("benchmark_model").get(recording, recording)
    path = folder / "benchmark_model"
    path.write_text(
        f'#!/bin/sh\necho "$@" >> "$PHONE/arguments"\n{before}\ncat <<\'E\'\n{text}\nE\nexit {status}\n'
    )
    return path


def device_for(phone: Phone | None, benchmark_model: Path | None) -> AdbDevice:
    found = open_device(f"adb:{phone.serial if phone else ''}")
    assert isinstance(found, AdbDevice)
    found.tool = str(benchmark_model) if benchmark_model else None
    return found


def left_on(phone: Phone) -> list[Path]:
    return list((phone.root / "data/local/tmp").iterdir())


# -- it works --------------------------------------------------------------------------------------


def test_end_to_end(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect()
    seen: list[Progress] = []
    result = device_for(phone, tool(tmp_path)).measure(job, seen.append)
    (entry,) = result.entries
    assert entry.error is None
    inference = entry.stages["inference"]
    # Two runs of 25 queries, each as recorded.
    assert (inference.count, inference.mean, inference.p50, inference.p95) == (
        50, pytest.approx(145.528), 141.253, 187.533,
    )  # fmt: skip
    assert (inference.minimum, inference.maximum, inference.std) == (140.071, 195.121, pytest.approx(13.583))
    assert entry.stages["load"].mean == pytest.approx(92.318)
    assert entry.stages["first"].mean == pytest.approx(187.533)
    assert entry.headline == "inference p50" and entry.fps is None and "pipeline" not in entry.stages
    assert entry.used["delegate"] == "TfLiteXNNPackDelegate"
    assert entry.used["share"] == "539 of 548 nodes in 19 partitions"
    assert "inference alone" in entry.marks[0].text
    assert entry.turns == (25, 25)
    assert {progress.phase for progress in seen} == {"copy", "measure"}
    assert left_on(phone) == []
    assert Result.from_json(result.to_json()) == result


def test_the_command_measures_a_file_of_ours(
    connect: Connect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy_tflite(tmp_path / "toy.tflite")
    contract = toy_contract()
    phone, written = connect(), tmp_path / "phone.json"
    status = main(
        ["bench", str(model), "--device", f"adb:{phone.serial}", "--benchmark-model", str(tool(tmp_path)),
         "--cores", "big", "--tool-arg=--use_gpu=true", "--min-queries", "10", "--min-seconds", "0.5",
         "--rounds", "1", "--json", str(written)]
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert status == 0
    assert "Google Pixel 9 Pro" in shown and "inference alone" in shown
    (entry,) = Result.load(written).entries
    assert (entry.model, entry.precision, entry.input) == (
        contract.name, "fp32", (contract.height, contract.width),
    )  # fmt: skip
    (told,) = (phone.root / "arguments").read_text().splitlines()
    assert "--use_gpu=true" in told and "--num_runs=10" in told
    assert (phone.root / "masks").read_text().split() == ["f0"]
    assert left_on(phone) == []


def test_machine_and_conditions(connect: Connect, job: Job, tmp_path: Path) -> None:
    result = device_for(connect(), tool(tmp_path)).measure(job, ignore)
    machine = result.machine
    assert (machine.device, machine.board, machine.soc) == ("adb", "Google Pixel 9 Pro", "Google Tensor G4")
    assert machine.system == "Android 16, 6.1.99-android14-11 aarch64"
    assert (machine.cpu, machine.cores, machine.memory) == ("4x Cortex-A520", 8, 15888204 * 1024)
    before = result.conditions.before
    assert [core.capacity for core in before.cores] == [250] * 4 + [1024] * 4
    assert (before.cores[7].mhz, before.cores[7].max_mhz, before.cores[7].governor) == (
        1401.0, 3105.0, "sched_pixel",
    )  # fmt: skip
    assert before.temperatures["BIG"] == 41.5 and "unused" not in before.temperatures
    assert before.temperatures["battery"] == 32.6 and before.temperatures["GPU"] == 61.000004
    assert before.power == "USB, battery 84 %"
    assert before.throttled == {"thermal-cpufreq-1 0 now": 0, "thermal status": 0}
    assert before.load == 1.52


@pytest.mark.parametrize(
    ("cores", "cpus", "word"),
    [("big", None, "f0"), ("little", None, "f"), ("all", (7,), "80"), ("all", None, "")],
)
def test_cores(
    connect: Connect, job: Job, tmp_path: Path, cores: str, cpus: tuple[int, ...] | None, word: str
) -> None:
    phone = connect()
    device = device_for(phone, tool(tmp_path))
    device.cores = cores
    result = device.measure(dataclasses.replace(job, cpus=cpus), ignore)
    masks = phone.root / "masks"
    assert (masks.read_text().split() if masks.exists() else [""])[0] == word
    assert result.conditions.pinned is bool(word)


def test_arguments_of_the_tool(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect()
    device = device_for(phone, tool(tmp_path))
    device.tool_arguments = ("--use_gpu=true",)
    device.measure(job, ignore)
    told = (phone.root / "arguments").read_text().splitlines()
    assert len(told) == 2  # one run a round
    for word in (
        "--num_runs=25",
        "--min_secs=0.5",
        "--num_threads=4",
        "--use_gpu=true",
        "--warmup_min_secs=1",
    ):
        assert word in told[0].split()
    assert "/0/portrait-int8.tflite" in told[0]


def test_several_models_take_turns(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect()
    other = tmp_path / "other.tflite"
    other.write_bytes(b"TFL3")
    onnx = tmp_path / "wrong.onnx"
    onnx.write_bytes(b"x")
    three = dataclasses.replace(
        job, contenders=(*job.contenders, Contender("other", str(other)), Contender("wrong", str(onnx)))
    )
    result = device_for(phone, tool(tmp_path)).measure(three, ignore)
    first, second, third = result.entries
    assert first.ratio is None and second.ratio is not None and second.ratio.value == 1.0
    assert second.marks[-1].text == "2 rounds: the ratio's interval needs at least 5"
    assert third.error == "benchmark_model runs .tflite files, not .onnx; export it with --target tflite"
    rounds = [line.split("/")[-1].split()[0] for line in (phone.root / "arguments").read_text().splitlines()]
    assert {frozenset(rounds[:2]), frozenset(rounds[2:])} == {
        frozenset({"portrait-int8.tflite", "other.tflite"})
    }


def test_the_newer_tool(connect: Connect, job: Job, tmp_path: Path) -> None:
    result = device_for(connect(), tool(tmp_path, "LiteRT benchmark_model, CPU")).measure(job, ignore)
    (entry,) = result.entries
    assert entry.runtime == "LiteRT benchmark_model"
    assert entry.stages["inference"].p50 == 0.942


def test_the_oldest_tool_has_no_percentiles(connect: Connect, job: Job, tmp_path: Path) -> None:
    result = device_for(connect(), tool(tmp_path, "2019, arm64 phone")).measure(job, ignore)
    (entry,) = result.entries
    assert entry.headline == "inference mean" and entry.stages["inference"].p50 is None


# -- it does not -----------------------------------------------------------------------------------


def test_no_phone(server: dict[str, str], job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    line = refusal(device_for(None, tool(tmp_path)), job)
    assert line == "no phone is connected; allow USB debugging on it, plug it in, see: adb devices"


def test_unauthorised(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect(allowed=False)
    line = refusal(device_for(phone, tool(tmp_path)), job)
    assert (
        line == f"phone {phone.serial} has not allowed this computer yet; unlock it and allow USB debugging"
    )


def test_two_phones_and_no_serial(connect: Connect, job: Job, tmp_path: Path) -> None:
    phones = [connect(), connect()]
    line = refusal(device_for(None, tool(tmp_path)), job)
    assert line.startswith("several phones are connected; say which: --device adb:")
    assert all(f"adb:{phone.serial}" in line for phone in phones)
    assert device_for(phones[1], tool(tmp_path)).measure(job, ignore).entries[0].error is None
    assert not phones[0].commands


def test_another_serial(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect()
    device = AdbDevice("adb:R58M12ABCDE")
    device.tool = str(tool(tmp_path))
    assert refusal(device, job) == f"no phone R58M12ABCDE is connected; there: {phone.serial}"


def test_tool_for_another_processor(connect: Connect, job: Job) -> None:
    """This machine's own Python is no program for an arm64 phone."""
    phone = connect()
    line = refusal(device_for(phone, Path(sys.executable).resolve()), job)
    assert line.endswith(f"Pixel 9 Pro ({phone.serial}) runs arm64-v8a; get the arm64-v8a one")
    assert " is built for x86_64, " in line or " is built for " in line
    assert left_on(phone) == []


def test_tool_that_is_no_program(connect: Connect, job: Job, tmp_path: Path) -> None:
    text = tmp_path / "readme"
    text.write_text("not a program at all, but long enough")
    assert "is no program" in refusal(device_for(connect(), text), job)


@pytest.mark.parametrize("scenario", ["stream", "offline"])
def test_other_scenarios(connect: Connect, job: Job, tmp_path: Path, scenario: Any) -> None:
    phone = connect()
    other = dataclasses.replace(job, plan=dataclasses.replace(PLAN, scenario=scenario))
    assert f"no {scenario} scenario" in refusal(device_for(phone, tool(tmp_path)), other)


def test_size_is_the_file_s(connect: Connect, job: Job, tmp_path: Path) -> None:
    wide = dataclasses.replace(job.contenders[0], options={"size": [64, 128]})
    other = dataclasses.replace(job, contenders=(wide,))
    assert "export one with --size" in refusal(device_for(connect(), tool(tmp_path)), other)


@pytest.mark.parametrize("path", [None, "/nowhere/benchmark_model"])
def test_tool_missing(job: Job, path: str | None) -> None:
    device = AdbDevice("adb:")
    device.tool = path
    line = refusal(device, job)
    assert ("a phone needs --benchmark-model PATH" in line) if path is None else (path in line)


def test_model_the_tool_rejects(connect: Connect, job: Job, tmp_path: Path) -> None:
    said = "INFO: STARTING!\nERROR: Model provided has model identifier 'abcd', should be 'TFL3'"
    phone = connect()
    line = refusal(device_for(phone, tool(tmp_path, said, status=1)), job)
    assert line.endswith(
        "portrait: benchmark_model refuses it: Model provided has model identifier 'abcd', should be 'TFL3'"
    )
    assert left_on(phone) == []


def test_a_rejected_model_does_not_stop_the_others(connect: Connect, job: Job, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"x")
    two = dataclasses.replace(job, contenders=(*job.contenders, Contender("bad", str(bad))))
    refuse = 'case "$*" in *bad.tflite*) echo "ERROR: Didn\'t find op for builtin opcode"; exit 1;; esac'
    result = device_for(connect(), tool(tmp_path, before=refuse)).measure(two, ignore)
    good, rejected = result.entries
    assert good.error is None
    assert rejected.error == "benchmark_model refuses it: Didn't find op for builtin opcode"


def test_phone_unplugged_in_the_middle(
    connect: Connect, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_deeplab.bench.phone.PATIENCE", 0)
    phone = connect()
    device = device_for(phone, tool(tmp_path, before="sleep 60"))

    def pull(line: str) -> None:
        if "--graph=" in line:
            threading.Timer(1.0, phone.unplug).start()

    phone.on_command = pull
    line = refusal(device, job)
    assert line.startswith(f"Pixel 9 Pro ({phone.serial}) went away while measuring (")
    assert line.endswith("plug it in and measure again, what was copied there is removed by itself")
    # The phone's own guard does what the computer no longer can.
    assert eventually(lambda: left_on(phone) == [], 30)


def test_unplugged_while_copying(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect()
    phone.on_command = lambda line: phone.unplug() if "chmod" in line else None
    assert f"({phone.serial}) went away while copying (" in refusal(device_for(phone, tool(tmp_path)), job)


def test_storage_full(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect(space=10)
    line = refusal(device_for(phone, tool(tmp_path)), job)
    assert line == f"the storage of Pixel 9 Pro ({phone.serial}) is full"
    assert left_on(phone) == []


def test_ctrl_c_cleans_up(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect()

    def stop(progress: Progress) -> None:
        if progress.phase == "measure":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device_for(phone, tool(tmp_path)).measure(job, stop)
    assert left_on(phone) == []


def test_core_that_is_not_there(connect: Connect, job: Job, tmp_path: Path) -> None:
    line = refusal(device_for(connect(), tool(tmp_path)), dataclasses.replace(job, cpus=(3, 9)))
    assert line == "the phone has no core 9; online are 0, 1, 2, 3, 4, 5, 6, 7"


def test_cores_that_are_all_alike(connect: Connect, job: Job, tmp_path: Path) -> None:
    phone = connect()
    for index in range(8):
        (phone.root / f"sys/devices/system/cpu/cpu{index}/cpu_capacity").write_text("1024\n")
    device = device_for(phone, tool(tmp_path))
    device.cores = "big"
    assert "does not tell big from little cores; name them with --cpus" in refusal(device, job)


def test_adb_missing(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(device_for(None, tool(tmp_path)), job).startswith("adb is not installed; cure:")


def test_states_that_adb_tells() -> None:
    text = (
        "* daemon started successfully\nList of devices attached\n"
        "R58M12ABCDE            device usb:1-1 product:o1s model:SM_G991B device:o1s transport_id:1\n"
        "emulator-5554          offline transport_id:2\n"
        "0123456789             no permissions (user in plugdev group); see [http://developer.android.com]\n\n"
    )
    assert parse_devices(text) == {
        "R58M12ABCDE": ("device", "SM G991B"),
        "emulator-5554": ("offline", ""),
        "0123456789": ("no permissions", ""),
    }


def test_guard_leaves_a_run_alone(tmp_path: Path) -> None:
    """The guard's shell line by itself: it waits while something of ours runs, and then cleans up."""
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / "tool").symlink_to("/bin/sleep")
    busy = tmp_path / "busy"
    busy.mkdir()
    program = busy / "tool"
    program.write_bytes(Path("/bin/sleep").resolve().read_bytes())
    program.chmod(0o755)
    running = subprocess.Popen([str(program), "60"])
    guards = [
        subprocess.Popen(["sh", "-c", GUARD.format(folder=place, patience=1)]) for place in (folder, busy)
    ]
    try:
        assert eventually(lambda: not folder.exists())
        assert busy.exists()
        running.kill()
        running.wait()
        assert eventually(lambda: not busy.exists())
        assert eventually(lambda: all(guard.poll() is not None for guard in guards))
    finally:
        for process in (running, *guards):
            process.kill()
            process.wait()
    assert os.path.lexists("/bin/sleep")
