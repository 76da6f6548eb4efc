"""Battery, thermal service, files and programs of Android."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_deeplab.bench.tools.android import (
    Battery,
    elf_abi,
    parse_battery,
    parse_files,
    parse_properties,
    parse_thermal,
)
from tests.bench.recorded import recordings

TEXTS = recordings("android")


def test_battery() -> None:
    found = parse_battery(TEXTS["battery, Samsung on USB"])
    assert found == Battery(84, 32.6, ("USB",))
    assert str(found) == "USB, battery 84 %"
    assert str(parse_battery(TEXTS["battery, television without one"])) == "battery 90 %"
    assert parse_battery("Can't find service: battery") is None


def test_thermal_takes_the_temperatures_of_now() -> None:
    found = parse_thermal(TEXTS["thermal, Shield TV Pro 2019"])
    assert found.status == 0
    assert found.temperatures == {"CPU0": 62.500004, "CPU1": 62.500004, "GPU": 61.000004}


def test_thermal_falls_back_on_the_cache_and_leaves_voltages_out() -> None:
    text = TEXTS["thermal, Shield TV Pro 2019"].partition("HAL Ready")[0]
    assert parse_thermal(text).temperatures == {"GPU": 36.0, "CPU0": 37.0, "CPU1": 37.0}
    voltage = "Current temperatures from HAL:\n\tTemperature{mValue=4200.0, mType=6, mName=vbat, mStatus=0}\n"
    assert parse_thermal(voltage).temperatures == {}
    assert parse_thermal("").status is None


def test_properties() -> None:
    text = "[ro.soc.model]: [SM8550]\n[ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a]\n[empty]: []\n"
    found = parse_properties(text)
    assert found["ro.soc.model"] == "SM8550"
    assert found["empty"] == ""


def test_files() -> None:
    text = "/sys/a/type:cpu: big\n/sys/a/temp:41200\n/sys/a/temp:second line\ngrep: /sys/b: denied\n"
    assert parse_files(text) == {"/sys/a/type": "cpu: big", "/sys/a/temp": "41200\nsecond line"}


@pytest.mark.parametrize(
    ("bits", "machine", "abi"),
    [(2, 183, "arm64-v8a"), (1, 40, "armeabi-v7a"), (2, 62, "x86_64"), (1, 3, "x86"), (2, 8, "machine 8")],
)
def test_programs(bits: int, machine: int, abi: str) -> None:
    head = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + b"\x03\x00" + machine.to_bytes(2, "little")
    assert elf_abi(head) == abi


def test_other_files_are_no_programs() -> None:
    assert elf_abi(b"#!/bin/sh\nexec true\n") is None
    assert elf_abi(b"\x7fELF") is None
    assert elf_abi(Path(sys.executable).resolve().read_bytes()[:20]) is not None
