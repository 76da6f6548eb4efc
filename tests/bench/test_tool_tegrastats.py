"""tegrastats of eleven boards and releases."""

from __future__ import annotations

import pytest

from edge_deeplab.bench.tools.tegrastats import Sample, parse_line
from tests.bench.recorded import recordings

LINES = recordings("tegrastats")


def sample(title: str) -> Sample:
    found = parse_line(LINES[title].strip())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("title", "power"),
    [
        ("TX1, L4T 28.1", None),
        ("TX1, L4T 32", 2532),
        ("TX2, L4T 32", 3056),
        ("TX2 NX, L4T 32.6", None),
        ("Nano, L4T 32", 1022),
        ("AGX Xavier, L4T 32", 0 + 311 + 932 + 0 + 621 + 1482),
        ("Xavier NX, L4T 32", 4067),
        ("Orin NX, L4T 35", 5299),
        # The memory's rail hangs on the 5 V rail and is not added again; "NC" is nothing.
        ("AGX Orin, L4T 35, sensors off", 2340 + 390 + 4025),
        ("AGX Orin, L4T 36, two GPU clocks", 3205 + 4405 + 4767),
        ("AGX Orin, L4T 36, without root", 4940 + 988 + 4442),
        ("AGX Thor, L4T 38, with root", 19780),
        ("AGX Thor, L4T 39.2, peaks", 87426),
    ],
)
def test_power_of_every_board(title: str, power: int | None) -> None:
    assert sample(title).power == power


def test_every_recording_is_read() -> None:
    assert len(LINES) == 13
    for title in LINES:
        found = sample(title)
        assert found.ram_used is not None and found.ram_total is not None
        assert 0 < found.ram_used < found.ram_total
        assert found.core_mhz
        assert all(20 < degrees < 110 for degrees in found.temperatures.values()), title


@pytest.mark.parametrize(
    ("title", "load", "mhz", "memory"),
    [
        ("TX1, L4T 28.1", 0.39, (76,), 1600),
        ("TX1, L4T 32", 0.0, (76,), 408),
        ("TX2 NX, L4T 32.6", 0.0, (), None),
        ("Xavier NX, L4T 32", 0.62, (306,), 1600),
        ("AGX Orin, L4T 36, two GPU clocks", 0.0, (305, 305), 2133),
        ("AGX Orin, L4T 36, without root", 0.0, (), None),
        ("AGX Thor, L4T 38, with root", None, (314, 314, 314), 2750),
        ("AGX Thor, L4T 39.2, peaks", None, (), None),
    ],
)
def test_gpu_and_memory_clocks(
    title: str, load: float | None, mhz: tuple[int, ...], memory: int | None
) -> None:
    found = sample(title)
    assert (found.gpu_load, found.gpu_mhz, found.memory_mhz) == (load, mhz, memory)


def test_cores_that_are_off_have_no_clock() -> None:
    found = sample("TX2, L4T 32")
    assert found.core_mhz == (345, None, None, 345, 345, 345)
    assert found.core_load == (0.01, None, None, 0.01, 0.0, 0.02)


def test_one_clock_for_all_cores() -> None:
    assert sample("TX1, L4T 28.1").core_mhz == (1734,) * 4
    # As Thor prints it where the cores share a clock (a public telemetry test of 2026-08-08).
    found = parse_line("RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 GR3D_FREQ @[157]")
    assert found is not None
    assert found.core_mhz == (2601, 2601, None)
    assert (found.memory_load, found.memory_mhz, found.gpu_mhz) == (None, 4266, (157,))


def test_sensors_that_are_off_and_placeholders_are_left_out() -> None:
    assert set(sample("AGX Orin, L4T 35, sensors off").temperatures) == {
        "CPU", "Tboard", "SOC2", "Tdiode", "SOC0", "tj", "SOC1",
    }  # fmt: skip
    assert "PMIC" not in sample("Nano, L4T 32").temperatures
    assert sample("TX2 NX, L4T 32.6").temperatures["PMIC"] == 50.0


def test_averages_and_peaks_are_not_the_moment() -> None:
    found = sample("AGX Thor, L4T 39.2, peaks")
    assert (found.rails["VIN"], found.averages["VIN"]) == (87426, 43713)
    assert sample("TX1, L4T 32").averages["VDD_IN"] == 2698


@pytest.mark.parametrize("line", ["", "tegrastats: permission denied", "RAM 17", "RAM 1/2MB (lfb"])
def test_other_lines_are_nothing(line: str) -> None:
    assert parse_line(line) is None
