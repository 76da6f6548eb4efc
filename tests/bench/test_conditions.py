"""What a machine tells of itself: recorded files of other machines, and this one for real."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_deeplab.bench import conditions
from edge_deeplab.bench.conditions import Neighbours, cpu_name, machine, reference_work, resident, snapshot
from edge_deeplab.bench.energy import open_meter
from edge_deeplab.bench.meter_rapl import Rapl

SYSTEM = {
    "/proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd05\n\nprocessor\t: 1\nCPU part\t: 0xd05\n\n"
    "processor\t: 2\nCPU part\t: 0xd44\n\nprocessor\t: 3\nCPU part\t: 0xfff\n",
    "/proc/stat": "cpu  100 0 0 0 0 0 0 0\ncpu0 10 5 5 900 0 1 1 3\ncpu1 20 0 0 900 0 0 0 0\n",
    "/proc/meminfo": "MemTotal:       8000000 kB\nMemAvailable:   2000000 kB\n",
    "/sys/devices/system/cpu/online": "0-1,3\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1804800\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1804800\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "/sys/devices/system/cpu/cpu0/cpu_capacity": "250\n",
    "/sys/devices/system/cpu/cpu3/cpu_capacity": "1024\n",
    "/sys/devices/system/cpu/cpu3/thermal_throttle/core_throttle_count": "17\n",
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "/proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
}
"""A phone-like mixture, put together by hand after the kernel's documentation of these files."""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    system = dict(SYSTEM)
    monkeypatch.setattr(conditions, "_text", lambda path: system.get(str(path), ""))
    return system


def test_arm_cores_are_named(elsewhere: dict[str, str]) -> None:
    assert cpu_name() == "2x Cortex-A55, 1x Cortex-X1, 1x part 0xfff"


def test_the_board_comes_from_the_device_tree(elsewhere: dict[str, str]) -> None:
    found = machine()
    assert (found.board, found.soc) == ("Raspberry Pi 5 Model B Rev 1.0", "brcm,bcm2712")
    assert (found.cores, found.memory) == (3, 8_192_000_000)


def test_clocks_governors_and_capacities(elsewhere: dict[str, str]) -> None:
    first, second, third = snapshot().cores
    assert (first.index, first.mhz, first.max_mhz, first.governor, first.capacity) == (
        0,
        1804.8,
        1804.8,
        "schedutil",
        250,
    )
    assert (second.index, second.mhz, second.governor) == (1, None, None)
    assert (third.index, third.capacity) == (3, 1024)


def test_throttle_counters(elsewhere: dict[str, str]) -> None:
    assert snapshot().throttled["cpu3 throttle count"] == 17


def test_the_battery_of_a_mouse_is_not_the_machine_s(
    elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    supplies = Path("/sys/class/power_supply")
    monkeypatch.setattr(Path, "glob", lambda self, _: [supplies / "hidpp_battery_0"])
    battery = {"type": "Battery", "status": "Discharging", "capacity": "55", "scope": "Device"}
    elsewhere.update({f"{supplies}/hidpp_battery_0/{name}": text for name, text in battery.items()})
    assert snapshot().power is None
    elsewhere[f"{supplies}/hidpp_battery_0/scope"] = "System\n"
    assert snapshot().power == "battery 55 %, discharging"


def test_others_are_what_is_left_of_the_busy_time(elsewhere: dict[str, str]) -> None:
    """In 2 s core 0 was busy for 1.1 s, ours took 0.5 of them, and 0.4 s were stolen."""
    neighbours = Neighbours([0])
    elsewhere["/proc/stat"] = "cpu0 80 35 13 990 0 2 2 43\ncpu1 999 0 0 900 0 0 0 0\n"
    neighbours.turn(own_seconds=0.5)
    others, stolen = neighbours.shares(2.0)
    assert others == pytest.approx((1.10 - 0.5) / 2)
    assert stolen == pytest.approx(0.4 / 2)
    elsewhere["/proc/stat"] = "cpu0 999 35 13 990 0 2 2 43\n"
    neighbours.skip()  # what happened in between is not counted
    neighbours.turn(own_seconds=0.0)
    assert neighbours.shares(2.0) == (pytest.approx(others), pytest.approx(stolen))


def test_a_system_that_tells_nothing(elsewhere: dict[str, str]) -> None:
    elsewhere.clear()
    assert Neighbours([0]).shares(1.0) == (None, None)
    assert resident() == (None, None)
    found = snapshot()
    assert (found.cores, found.memory_free, found.power) == ((), None, None)
    assert machine().cpu


def test_a_system_without_sysconf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sysconf")  # as on Windows
    neighbours = Neighbours([0])
    neighbours.skip()
    neighbours.turn(1.0)
    assert neighbours.shares(1.0) == (None, None)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux only")
def test_this_machine() -> None:
    here, now = machine(), snapshot()
    assert here.cpu and here.cores and here.memory and here.memory > 1e8
    assert now.reference_ms and now.reference_ms > 0
    assert now.load is not None and now.memory_free
    size, peak = resident()
    assert size and peak and peak >= size > 1e6
    neighbours = Neighbours([0])
    begin = time.perf_counter()
    reference_work()
    neighbours.turn(0.0)
    others, stolen = neighbours.shares(time.perf_counter() - begin)
    assert others is not None and stolen is not None and others >= 0


# -- energy ------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Callable[[int], Path]:
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    (folder / "max_energy_range_uj").write_text("1000000\n")
    (folder / "name").write_text("package-0\n")

    def count(microjoules: int) -> Path:
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        return folder

    return count


def test_rapl_adds_up_and_survives_its_overflow(package: Callable[[int], Path]) -> None:
    meter = Rapl([package(900_000)])
    package(950_000)
    assert meter.joules() == pytest.approx(0.05)
    package(50_000)  # past 1,000,000 it starts at 0 again
    assert meter.joules() == pytest.approx(0.15)


def test_rapl_counts_nothing_twice(
    package: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A laptop tells of the whole platform (psys) beside the package, and of the cores in it."""
    monkeypatch.setattr("edge_deeplab.bench.meter_rapl.FOLDER", tmp_path)
    package(0)
    for number, name in (("1", "psys"), ("0:0", "core")):
        shutil.copytree(tmp_path / "intel-rapl:0", tmp_path / f"intel-rapl:{number}")
        (tmp_path / f"intel-rapl:{number}" / "name").write_text(f"{name}\n")
    meter = Rapl.open()
    assert meter is not None
    for folder in tmp_path.iterdir():
        (folder / "energy_uj").write_text("500000\n")
    assert meter.joules() == pytest.approx(0.5)


def test_without_a_meter_there_is_no_energy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edge_deeplab.bench.meter_rapl.FOLDER", tmp_path)
    assert Rapl.open() is None
    found = open_meter()
    assert found is None or (found.joules() or 0) >= 0  # another kind of meter may be here
    if found:
        found.close()


def test_a_counter_that_only_root_may_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of the package
    monkeypatch.setattr("edge_deeplab.bench.meter_rapl.FOLDER", tmp_path)
    assert Rapl.open() is None
