"""nvpmodel and jetson_clocks of five boards."""

from __future__ import annotations

import pytest

from edge_deeplab.bench.tools.jetson import PowerMode, parse_jetson_clocks, parse_nvpmodel
from tests.bench.recorded import recordings

MODES = recordings("nvpmodel")
CLOCKS = recordings("jetson_clocks")


@pytest.mark.parametrize(
    ("title", "mode"),
    [
        ("Nano, L4T 32", PowerMode("MAXN", 0)),
        ("Xavier, L4T 32, verbose", PowerMode("MODE_15W_6CORE", 2)),
        ("AGX Orin, L4T 36.4.7", PowerMode("MAXN", 0)),
    ],
)
def test_power_mode(title: str, mode: PowerMode) -> None:
    assert parse_nvpmodel(MODES[title]) == mode


def test_no_power_mode() -> None:
    assert parse_nvpmodel("NVPM ERROR: failed to read PARAM GPU") is None


@pytest.mark.parametrize(
    ("title", "soc", "cores", "gpu", "fixed", "memory_fixed", "mode"),
    [
        ("TX1, L4T 28.1, fixed", "tegra210", 4, 998.4, True, True, None),
        ("TX2, L4T 32", "tegra186", 4, 114.75, False, False, "MAXP_CORE_ARM"),
        ("Nano, L4T 32, as it starts", "tegra210", 4, 153.6, False, False, "MAXN"),
        ("Nano, L4T 32, fixed", "", 1, 921.6, True, True, "MAXN"),
        ("Orin Nano Super, L4T 36", "tegra234", 6, 306.0, False, None, None),
        ("Orin Nano Super, L4T 36.5, fixed", "", 1, 1020.0, True, True, "MAXN_SUPER"),
    ],
)
def test_clocks(
    title: str, soc: str, cores: int, gpu: float, fixed: bool, memory_fixed: bool | None, mode: str | None
) -> None:
    found = parse_jetson_clocks(CLOCKS[title])
    assert found is not None and found.gpu is not None
    assert (found.soc, len(found.cores), found.gpu.current) == (soc, cores, gpu)
    assert (found.fixed, found.memory_fixed, found.mode) == (fixed, memory_fixed, mode)


def test_every_recording_is_read() -> None:
    assert len(CLOCKS) == 6 and all(parse_jetson_clocks(text) for text in CLOCKS.values())


def test_cores_that_are_off_are_left_out() -> None:
    found = parse_jetson_clocks(CLOCKS["TX2, L4T 32"])
    assert found is not None
    assert sorted(found.cores) == [0, 3, 4, 5]
    assert (found.cores[3].minimum, found.cores[3].maximum, found.cores[3].current) == (345.6, 2035.2, 1881.6)
    assert found.governors[0] == "schedutil"


def test_without_root_there_is_nothing() -> None:
    assert parse_jetson_clocks("Please run as root\n") is None
