"""``tegrastats``: load, clocks, temperatures and power rails of a Jetson, one line a sample.

The line changed with every board and JetPack: rails with and without units, one GPU clock or one for
each cluster, a third figure for the peak (JetPack 7), fields that come and go. So nothing is read by
position; a field that is not there is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

INPUT_RAILS = ("VIN", "VDD_IN", "POM_5V_IN")
"""Rails that feed all others, where a board measures one: Thor, TX1 to Orin NX, Nano."""

FED_BY_OTHERS = frozenset({"VDDQ_VDD2_1V8AO"})
"""Rails behind another measured rail; adding them to a sum would count them twice (AGX Orin)."""

ABSENT = -256.0
"""What a sensor of a switched-off block reads."""

PLACEHOLDER = ("PMIC", 100.0)
"""A constant that boards up to Xavier print instead of a measurement."""

_TEMPERATURE = re.compile(r"(?<!\S)([A-Za-z]\w*)@(-?[\d.]+)C")
_RAIL = re.compile(r"(?<!\S)([A-Za-z]\w*) (\d+)(?:mW)?/(\d+)(?:mW)?(?:/\d+(?:mW)?)?(?!\S)")
_GPU = re.compile(r"\bGR3D(?:_FREQ)? (?:(\d+)%)?(?:@\[?([\d,]+)\]?)?")
_MEMORY_CLOCK = re.compile(r"\bEMC(?:_FREQ)? (?:(\d+)%)?(?:@(\d+))?")
_CORES = re.compile(r"\b(?:CPU|cpu) \[([^\]]*)\](?:@(\d+))?")
_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")


@dataclass(frozen=True)
class Sample:
    """One line.

    Attributes:
        ram_used, ram_total: Bytes.
        core_mhz: Clock of every core, None for one that is off.
        core_load: Its load, 0..1.
        gpu_load, memory_load: 0..1.
        gpu_mhz: One clock a cluster; empty where the line has none.
        memory_mhz: Of the external memory.
        temperatures: Sensor -> degrees; sensors that are off are left out.
        rails: Rail -> milliwatts at this moment.
        averages: Rail -> milliwatts, mean since tegrastats started.
    """

    ram_used: int | None = None
    ram_total: int | None = None
    core_mhz: tuple[int | None, ...] = ()
    core_load: tuple[float | None, ...] = ()
    gpu_load: float | None = None
    memory_load: float | None = None
    gpu_mhz: tuple[int, ...] = ()
    memory_mhz: int | None = None
    temperatures: dict[str, float] = field(default_factory=dict)
    rails: dict[str, int] = field(default_factory=dict)
    averages: dict[str, int] = field(default_factory=dict)

    @property
    def power(self) -> int | None:
        """Milliwatts of the whole module at this moment.

        The rail that feeds all others where the board measures it; else the sum of the rails.
        """
        for name in INPUT_RAILS:
            if name in self.rails:
                return self.rails[name]
        parts = [value for name, value in self.rails.items() if name not in FED_BY_OTHERS]
        return sum(parts) if parts else None


def parse_line(line: str) -> Sample | None:
    """Read one line; None when it is none of tegrastats' (a header, a message, half a line)."""
    ram = _RAM.search(line)
    cores = _CORES.search(line)
    if ram is None or cores is None:
        return None
    clocks, loads = _cores(cores)
    gpu, memory = _GPU.search(line), _MEMORY_CLOCK.search(line)
    temperatures = {
        name: float(degrees)
        for name, degrees in _TEMPERATURE.findall(line)
        if float(degrees) != ABSENT and (name, float(degrees)) != PLACEHOLDER
    }
    # "NC" is a channel that is not connected.
    rails = [(name, int(now), int(mean)) for name, now, mean in _RAIL.findall(line) if name != "NC"]
    return Sample(
        ram_used=int(ram[1]) << 20,
        ram_total=int(ram[2]) << 20,
        core_mhz=clocks,
        core_load=loads,
        gpu_load=_share(gpu and gpu[1]),
        memory_load=_share(memory and memory[1]),
        gpu_mhz=tuple(int(mhz) for mhz in gpu[2].split(",")) if gpu and gpu[2] else (),
        memory_mhz=int(memory[2]) if memory and memory[2] else None,
        temperatures=temperatures,
        rails={name: now for name, now, _ in rails},
        averages={name: mean for name, _, mean in rails},
    )


def _cores(match: re.Match[str]) -> tuple[tuple[int | None, ...], tuple[float | None, ...]]:
    """``3%@729,off,...`` or, with one clock for all, ``[3%,off]@2601``."""
    clocks: list[int | None] = []
    loads: list[float | None] = []
    for text in match[1].split(","):
        load, _, mhz = text.strip().partition("@")
        on = load.endswith("%")
        mhz = mhz or match[2] or ""
        clocks.append(int(mhz) if on and mhz else None)
        loads.append(_share(load.removesuffix("%")) if on else None)
    return tuple(clocks), tuple(loads)


def _share(percent: str | None) -> float | None:
    return int(percent) / 100 if percent else None
