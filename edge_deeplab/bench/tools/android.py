"""What an Android phone tells over a shell: properties, battery, thermal service, small files."""

from __future__ import annotations

import re
from dataclasses import dataclass

PLUGGED = {"AC powered": "AC", "USB powered": "USB", "Wireless powered": "wireless", "Dock powered": "dock"}

THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's levels of throttling, by number."""

PHYSICAL = frozenset({0, 1, 2, 3, 4, 5, 9})
"""Types of the thermal service that are temperatures; the others are voltages, currents and shares."""

_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[([^\]]*)\]", re.MULTILINE)
_FIELD = re.compile(r"^ *([A-Za-z][A-Za-z ]*): (\S+)\s*$", re.MULTILINE)
_STATUS = re.compile(r"^Thermal Status: (\d+)", re.MULTILINE)
_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+), mName=([^,}]+)")
_ABIS = {(2, 183): "arm64-v8a", (1, 40): "armeabi-v7a", (2, 62): "x86_64", (1, 3): "x86", (2, 243): "riscv64"}
"""Class (1: 32 bit, 2: 64 bit) and machine of an ELF file -> the name Android uses."""


@dataclass(frozen=True)
class Battery:
    """Charge and supply.

    Attributes:
        level: Percent.
        temperature: Degrees.
        plugged: What feeds the phone, empty on battery.
    """

    level: int | None
    temperature: float | None
    plugged: tuple[str, ...]

    def __str__(self) -> str:
        supply = "+".join(self.plugged)
        level = "battery" if self.level is None else f"battery {self.level} %"
        return f"{supply}, {level}" if supply else level


@dataclass(frozen=True)
class Thermal:
    """Thermal service: throttling level (None where it does not tell) and temperatures by sensor."""

    status: int | None
    temperatures: dict[str, float]


def parse_properties(text: str) -> dict[str, str]:
    """Read ``getprop``: ``[name]: [value]`` lines."""
    return dict(_PROPERTY.findall(text))


def parse_battery(text: str) -> Battery | None:
    """Read ``dumpsys battery``; None when it tells no level and no supply."""
    fields = dict(_FIELD.findall(text))
    if "level" not in fields and not any(name in fields for name in PLUGGED):
        return None
    level, degrees = fields.get("level"), fields.get("temperature")
    return Battery(
        level=int(level) if level and level.isdigit() else None,
        # Tenths of a degree.
        temperature=int(degrees) / 10 if degrees and degrees.lstrip("-").isdigit() else None,
        plugged=tuple(short for name, short in PLUGGED.items() if fields.get(name) == "true"),
    )


def parse_thermal(text: str) -> Thermal:
    """Read ``dumpsys thermalservice``.

    The temperatures of now stand under ``Current temperatures from HAL``; the cached ones before them
    may be hours old and are taken only where there are no others.
    """
    status = _STATUS.search(text)
    _, found, now = text.partition("Current temperatures from HAL:")
    section = now.partition("Current cooling devices")[0] if found else text
    readings = _TEMPERATURE.findall(section) or _TEMPERATURE.findall(text)
    return Thermal(
        status=int(status[1]) if status else None,
        temperatures={name: float(value) for value, kind, name in readings if int(kind) in PHYSICAL},
    )


def parse_files(text: str) -> dict[str, str]:
    """Read ``path:line`` lines, as ``grep -H '' FILE...`` prints them: path -> content."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        path, colon, value = line.partition(":")
        if colon and path.startswith("/"):
            found.setdefault(path, []).append(value.replace("\0", " ").strip())
    return {path: "\n".join(lines) for path, lines in found.items()}


def elf_abi(head: bytes) -> str | None:
    """Android's name of the processor that a program is built for, from its first 20 bytes.

    None when it is no ELF file; ``machine N`` for a processor without such a name.
    """
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    order = "little" if head[5] == 1 else "big"
    machine = int.from_bytes(head[18:20], order)  # type: ignore[arg-type]
    return _ABIS.get((head[4], machine), f"machine {machine}")
