"""``nvpmodel -q`` and ``jetson_clocks --show``: power mode of a Jetson, and whether its clocks are fixed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_MODE = re.compile(r"\bNV Power Mode:\s*(\S.*?)\s*$", re.MULTILINE)
_NUMBER = re.compile(r"^(\d+)\s*$", re.MULTILINE)
_MACHINE = re.compile(r"^SOC family:(\S+)\s+Machine:(.+?)\s*$", re.MULTILINE)
_CORE = re.compile(
    # "Gonvernor" is how the tool of L4T 28 spells it, and it tells no state of the core.
    r"^cpu(\d+):\s+(?:Online=(\d)\s+)?Gov?n?vernor=(\S+)\s+MinFreq=(\d+)\s+MaxFreq=(\d+)\s+CurrentFreq=(\d+)",
    re.MULTILINE,
)
_GPU = re.compile(r"^GPU\s+MinFreq=(\d+)\s+MaxFreq=(\d+)\s+CurrentFreq=(\d+)", re.MULTILINE)
_MEMORY = re.compile(
    r"^EMC\s+MinFreq=(\d+)\s+MaxFreq=(\d+)\s+CurrentFreq=(\d+)(?:\s+FreqOverride=(\d))?", re.MULTILINE
)


@dataclass(frozen=True)
class PowerMode:
    """What ``nvpmodel -q`` says: ``MAXN``, ``15W`` ... and the mode's number."""

    name: str
    number: int | None


@dataclass(frozen=True)
class Clock:
    """Megahertz a block may run at, and runs at."""

    minimum: float
    maximum: float
    current: float

    @property
    def fixed(self) -> bool:
        """Only one clock is admitted."""
        return self.minimum == self.maximum


@dataclass(frozen=True)
class Clocks:
    """What ``jetson_clocks --show`` says.

    Attributes:
        soc, machine: ``tegra234``, ``NVIDIA Jetson AGX Orin`` ...
        cores: Core -> its clock, those that are online.
        governors: Core -> frequency governor.
        gpu, memory: None where the tool does not tell.
        memory_fixed: Whether the memory clock is overridden with its highest.
        mode: Power mode, as of ``nvpmodel``.
    """

    soc: str = ""
    machine: str = ""
    cores: dict[int, Clock] = field(default_factory=dict)
    governors: dict[int, str] = field(default_factory=dict)
    gpu: Clock | None = None
    memory: Clock | None = None
    memory_fixed: bool | None = None
    mode: str | None = None

    @property
    def fixed(self) -> bool | None:
        """Whether ``jetson_clocks`` pinned cores and GPU; None where neither was told."""
        told = [*self.cores.values(), *([self.gpu] if self.gpu else [])]
        return all(clock.fixed for clock in told) if told else None


def parse_nvpmodel(text: str) -> PowerMode | None:
    """Read ``nvpmodel -q``; None when it tells no mode (``NVPM ERROR``, another program)."""
    mode = _MODE.search(text)
    if mode is None:
        return None
    number = _NUMBER.search(text, mode.end())
    return PowerMode(mode[1], int(number[1]) if number else None)


def parse_jetson_clocks(text: str) -> Clocks | None:
    """Read ``jetson_clocks --show``; None when it tells nothing (it wants root)."""
    machine, gpu, memory, mode = (p.search(text) for p in (_MACHINE, _GPU, _MEMORY, _MODE))
    online = [m for m in _CORE.finditer(text) if m[2] != "0"]
    if not online and gpu is None:
        return None
    return Clocks(
        soc=machine[1] if machine else "",
        machine=machine[2] if machine else "",
        cores={int(m[1]): _clock(m[4], m[5], m[6], 1e3) for m in online},
        governors={int(m[1]): m[3] for m in online},
        gpu=_clock(gpu[1], gpu[2], gpu[3], 1e6) if gpu else None,
        memory=_clock(memory[1], memory[2], memory[3], 1e6) if memory else None,
        memory_fixed=memory[4] == "1" if memory and memory[4] else None,
        mode=mode[1] if mode else None,
    )


def _clock(minimum: str, maximum: str, current: str, unit: float) -> Clock:
    return Clock(int(minimum) / unit, int(maximum) / unit, int(current) / unit)
