"""Boards and power meters, on this machine: stand-ins on PATH print what real boards printed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_deeplab.bench import board_jetson, board_raspberry, energy, noise
from edge_deeplab.bench.board_jetson import Jetson
from edge_deeplab.bench.board_raspberry import Raspberry
from edge_deeplab.bench.meter_raspberry import Pmic
from edge_deeplab.bench.meter_tegrastats import Tegrastats
from edge_deeplab.bench.record import Conditions, Machine, Snapshot
from edge_deeplab.bench.tools.raspberry import parse_power
from edge_deeplab.bench.tools.tegrastats import parse_line
from tests.bench.recorded import recordings

EMPTY = Snapshot(time="2025-01-01T00:00:00+00:00")
TEGRASTATS = recordings("tegrastats")
NVPMODEL = recordings("nvpmodel")
CLOCKS = recordings("jetson_clocks")
PI = recordings("raspberry")

Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a program of this name and shell text on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write


def says(text: str) -> str:
    """Shell text that prints this."""
    return f"cat <<'E'\n{text}\nE"


def again_and_again(text: str) -> str:
    return f"while :; do {says(text)}\nsleep 0.05; done"


def folder(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


# -- Jetson ----------------------------------------------------------------------------------------


@pytest.fixture
def orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a Jetson, as an AGX Orin has them."""
    # source: github.com/pokusew/ros-setup, nvidia-jetson-tx2/L4T.md
    release = (
        "# R32 (release), REVISION: 5.1, GCID: 26202423, BOARD: t186ref, EABI: aarch64, DATE: Fri Feb 19"
    )
    root = folder(
        tmp_path / "orin",
        {
            "etc/nv_tegra_release": release,
            "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0",
            "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
            "sys/class/thermal/cooling_device0/cur_state": "2\n",
            "sys/class/thermal/cooling_device7/type": "gpu-throttle-alert\n",
            "sys/class/thermal/cooling_device7/cur_state": "0\n",
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
            "sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n",
            "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
            "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
            "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
            "sys/class/devfreq/17000000.gpu/max_freq": "1300500000\n",
        },
    )
    monkeypatch.setattr(board_jetson, "ROOT", root)
    return root


def test_a_jetson_is_known_by_its_files(orin: Path) -> None:
    assert Jetson.here()
    (orin / "etc/nv_tegra_release").unlink()
    assert Jetson.here()
    (orin / "proc/device-tree/compatible").write_text("raspberrypi,5-model-b\0brcm,bcm2712\0")
    assert not Jetson.here()


def test_machine(orin: Path) -> None:
    found = Jetson().machine(Machine("ssh", soc="nvidia,tegra234", versions={"python": "3.10.12"}))
    assert found.gpu == "Ampere GA10B"
    assert found.versions == {"python": "3.10.12", "L4T": "32.5.1"}


def test_everything_a_jetson_tells(orin: Path, program: Program) -> None:
    line = TEGRASTATS["AGX Orin, L4T 36, two GPU clocks"].strip()
    program("nvpmodel", says(NVPMODEL["AGX Orin, L4T 36.4.7"]))
    program("tegrastats", again_and_again(line))
    program("jetson_clocks", says(CLOCKS["Orin Nano Super, L4T 36.5, fixed"]))
    found = Jetson().snapshot(EMPTY)
    sample = parse_line(line)
    assert sample is not None
    assert found.extra["power mode"] == "MAXN (0)"
    assert found.extra["GPU clock"] == "1020 MHz, fixed"
    assert found.extra["clocks fixed (jetson_clocks)"] == "yes"
    assert found.extra["memory clock"].endswith("MHz, fixed")
    assert found.extra["rails"] == ", ".join(f"{name} {mw} mW" for name, mw in sample.rails.items())
    assert found.temperatures == sample.temperatures
    assert found.throttled == {
        "gpu-throttle-alert now": 0, "oc1 under-voltage": 0, "oc3 current too high": 37,
    }  # fmt: skip


def test_zones_of_the_kernel_come_first(orin: Path, program: Program) -> None:
    program("tegrastats", again_and_again(TEGRASTATS["Orin NX, L4T 35"].strip()))
    known = Snapshot(time=EMPTY.time, temperatures={"cpu-thermal": 48.5})
    assert Jetson().snapshot(known).temperatures == {"cpu-thermal": 48.5}


def test_jetson_clocks_that_wants_root(orin: Path, program: Program) -> None:
    program("jetson_clocks", '[ "$ROOT" ] || { echo "Error: Please run as root" >&2; exit 1; }\n'
            + says(CLOCKS["Orin Nano Super, L4T 36"]))  # fmt: skip
    program("sudo", '[ "$1" = -n ] && shift && ROOT=1 exec "$@"')
    found = Jetson().snapshot(EMPTY)
    assert found.extra["GPU clock"] == "306 of 306 to 918 MHz"
    assert found.extra["clocks fixed (jetson_clocks)"] == "no"


def test_without_root_the_gpu_s_own_limits(orin: Path, program: Program) -> None:
    program("jetson_clocks", "exit 1")
    program("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    assert Jetson().snapshot(EMPTY).extra == {
        "GPU clock": "306 of 306 to 1300 MHz", "clocks fixed (jetson_clocks)": "no",
    }  # fmt: skip
    (orin / "sys/class/devfreq/17000000.gpu/min_freq").write_text("1300500000\n")
    assert Jetson().snapshot(EMPTY).extra["clocks fixed (jetson_clocks)"] == "yes"


def test_tools_that_hang_or_fail_are_left_out(
    orin: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_deeplab.bench.ask.PATIENCE", 0.3)
    for name in ("nvpmodel", "tegrastats", "jetson_clocks", "sudo"):
        program(name, "exec sleep 5")
    found = Jetson().snapshot(EMPTY)
    assert found.extra == {"GPU clock": "306 of 306 to 1300 MHz", "clocks fixed (jetson_clocks)": "no"}


# -- Raspberry Pi ----------------------------------------------------------------------------------


def test_raspberry(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    monkeypatch.setattr(board_raspberry, "MODEL", model)
    assert not Raspberry.here()
    model.write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert Raspberry.here()
    assert Raspberry().snapshot(EMPTY) == EMPTY  # without vcgencmd
    program(
        "vcgencmd", f'[ "$1" = get_throttled ] && {says(PI["throttled, Raspberry Pi 3 with a weak supply"])}'
    )
    weak = Raspberry().snapshot(EMPTY)
    assert weak.throttled["under-voltage now"] == 1 and weak.throttled["throttled now"] == 1
    assert weak.throttled["clock capped now"] == 0
    (mark,) = noise.run_marks(Conditions(weak, weak))
    assert mark.kind == "throttled" and "under-voltage now" in mark.text
    assert "since start" not in mark.text  # set before already


# -- power -----------------------------------------------------------------------------------------


def running(text: str) -> bool:
    return text in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def gone(text: str) -> bool:
    for _ in range(100):
        if not running(text):
            return True
        time.sleep(0.05)
    return False


def test_energy_of_a_jetson(program: Program) -> None:
    line = TEGRASTATS["Orin NX, L4T 35"].strip()
    sample = parse_line(line)
    assert sample is not None and sample.power
    path = program("tegrastats", again_and_again(line))
    meter = Tegrastats.open()
    assert meter is not None
    before, begin = meter.joules(), time.monotonic()
    time.sleep(0.3)
    after, end = meter.joules(), time.monotonic()
    assert before is not None and after is not None
    assert after - before == pytest.approx(sample.power / 1e3 * (end - begin), rel=0.1)
    meter.close()
    assert gone(str(path))


def test_energy_of_a_raspberry_pi(program: Program) -> None:
    path = program("vcgencmd", says(PI["power, Raspberry Pi 5"]))
    milliwatts = parse_power(PI["power, Raspberry Pi 5"])
    meter = Pmic.open()
    assert meter is not None and milliwatts
    before, begin = meter.joules(), time.monotonic()
    time.sleep(0.1)
    after, end = meter.joules(), time.monotonic()
    assert before is not None and after is not None
    assert after - before == pytest.approx(milliwatts / 1e3 * (end - begin), rel=0.1)
    meter.close()
    assert gone(str(path)) and gone("sleep 0.5")


def test_readings_between_two_calls_are_averaged(program: Program, tmp_path: Path) -> None:
    readings = tmp_path / "readings"
    line = TEGRASTATS["Orin NX, L4T 35"].strip()
    readings.write_text(f"{line}\n")
    program("tegrastats", f"tail -n +1 -s 0.02 -f {readings}")
    meter = Tegrastats.open()
    assert meter is not None
    sample = parse_line(line)
    assert sample is not None and sample.power
    text = f"VDD_IN {sample.power}mW"
    assert text in line
    with readings.open("a") as file:
        for milliwatts in (2000, 6000):
            file.write(line.replace(text, f"VDD_IN {milliwatts}mW") + "\n")
        file.write(line[:100])  # half a line: not yet a reading
    time.sleep(0.5)
    meter.joules()
    assert meter._watts == 4.0
    meter.close()


def test_no_meter_on_boards_that_tell_no_power(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tegrastats.open() is None and Pmic.open() is None
    program("vcgencmd", "echo 'error=1 error_msg=\"Command not registered\"'; exit 255")  # Raspberry Pi 4
    assert Pmic.open() is None
    monkeypatch.setattr("edge_deeplab.bench.sampled.PATIENCE", 0.3)
    program("tegrastats", "exec sleep 60")
    assert Tegrastats.open() is None


def test_a_meter_that_stops_tells_nothing(program: Program, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program("tegrastats", f"echo $$ > {pid}; {again_and_again(TEGRASTATS['Orin NX, L4T 35'].strip())}")
    meter = Tegrastats.open()
    assert meter is not None
    os.kill(int(pid.read_text()), signal.SIGKILL)
    for _ in range(100):
        if meter.joules() is None:
            break
        time.sleep(0.02)
    assert meter.joules() is None
    meter.close()


def test_meters_are_found(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edge_deeplab.bench.meter_rapl.FOLDER", tmp_path)
    program("tegrastats", again_and_again(TEGRASTATS["Xavier NX, L4T 32"].strip()))
    found = energy.open_meter()
    assert isinstance(found, Tegrastats)
    found.close()
