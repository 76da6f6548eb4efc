"""What the figures depend on: the machine, its clocks, its heat, and who else is using it.

Read from /proc and /sys, without privileges and without other programs; what a system does not tell is
None. Files ``board_NAME.py`` in this folder add what a kind of board tells besides (see :class:`Board`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from edge_deeplab.bench.record import Core, Machine, Snapshot
from edge_deeplab.plugins import discover
from edge_deeplab.version import __version__

CPU = Path("/sys/devices/system/cpu")

ARM_CORES = {
    0xD03: "Cortex-A53",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
}
"""``CPU part`` of ARM's own designs, from the MIDR_EL1 field of each core's manual."""


class Board(ABC):
    """A kind of board that tells more than /proc and /sys do everywhere.

    ``board_NAME.py`` holds a subclass as ``BOARD``. It runs where the worker runs, and must not fail:
    what it cannot read, it leaves out.
    """

    @classmethod
    @abstractmethod
    def here(cls) -> bool:
        """Whether this machine is such a board."""

    @abstractmethod
    def machine(self, found: Machine) -> Machine:
        """``found`` with what the board knows better: its name, SoC, GPU, versions."""

    @abstractmethod
    def snapshot(self, found: Snapshot) -> Snapshot:
        """``found`` with power mode, rails, further clocks and temperatures, throttling."""


@cache
def board() -> Board | None:
    """The board this is, if a file ``board_NAME.py`` knows it."""
    kinds: dict[str, type[Board]] = discover("edge_deeplab.bench", "board_", "BOARD")
    return next((kind() for kind in kinds.values() if kind.here()), None)


# -- what does not change ----------------------------------------------------------------------


def machine(device: str = "local") -> Machine:
    """This machine, without names of people, hosts or folders."""
    tree = _text("/proc/device-tree/model") or _text("/sys/class/dmi/id/product_name")
    compatible = _text("/proc/device-tree/compatible").split("\0")
    found = Machine(
        device=device,
        board=tree.strip("\0"),
        soc=compatible[-1] or (compatible[-2] if len(compatible) > 1 else ""),
        cpu=cpu_name(),
        cores=len(_online()) or os.cpu_count(),
        memory=_meminfo("MemTotal"),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "edge-deeplab": __version__,
        },
    )
    known = board()
    return known.machine(found) if known else found


def cpu_name() -> str:
    """``model name`` where the kernel tells it, the kinds of ARM cores otherwise."""
    parts: dict[str, int] = {}
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
        if name.strip() == "CPU part":
            number = int(value, 16)
            kind = ARM_CORES.get(number, f"part {number:#x}")
            parts[kind] = parts.get(kind, 0) + 1
    if parts:
        return ", ".join(f"{count}x {kind}" for kind, count in parts.items())
    return platform.processor() or platform.machine()


# -- what does ---------------------------------------------------------------------------------


def snapshot() -> Snapshot:
    """The machine's state now."""
    found = Snapshot(
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cores=_cores(),
        temperatures=_temperatures(),
        throttled=_throttled(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        memory_free=_meminfo("MemAvailable"),
        power=_power(),
        reference_ms=reference_work(),
    )
    known = board()
    return known.snapshot(found) if known else found


_BLOCK = bytes(1 << 18)


def reference_work() -> float:
    """Milliseconds that SHA-256 of 256 KiB takes, the best of three.

    It needs no memory bandwidth and no caches to speak of, so it follows the core's clock, also where
    the system shows none: in virtual machines and containers, on phones.
    """
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        hashlib.sha256(_BLOCK).digest()
        times.append(1e3 * (time.perf_counter() - begin))
    return min(times)


def _online() -> list[int]:
    """``0-3,5`` -> [0, 1, 2, 3, 5]."""
    found: list[int] = []
    for part in _text(CPU / "online").strip().split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            found += range(int(low), int(high or low) + 1)
    return found


def _cores() -> tuple[Core, ...]:
    shown = [
        float(line.partition(":")[2])
        for line in _text("/proc/cpuinfo").splitlines()
        if line.startswith("cpu MHz")
    ]
    found = []
    for place, index in enumerate(_online()):
        folder = CPU / f"cpu{index}"
        now, most = (_number(folder / "cpufreq" / f) for f in ("scaling_cur_freq", "scaling_max_freq"))
        mhz = now / 1e3 if now is not None else (shown[place] if place < len(shown) else None)
        capacity = _number(folder / "cpu_capacity")
        found.append(
            Core(
                index=index,
                mhz=mhz,
                max_mhz=most / 1e3 if most is not None else None,
                governor=_text(folder / "cpufreq" / "scaling_governor").strip() or None,
                capacity=int(capacity) if capacity is not None else None,
            )
        )
    return tuple(found)


def _temperatures() -> dict[str, float]:
    """Thermal zones, or the sensors of hwmon where there are none."""
    found: dict[str, float] = {}
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        value = _number(zone / "temp")
        if value is not None and value > 0:  # unused sensors answer 0 or -256000
            name = _text(zone / "type").strip() or zone.name
            found[_unused(name, found)] = value / 1e3 if value > 200 else value
    if not found:
        for sensor in sorted(Path("/sys/class/hwmon").glob("hwmon*/temp*_input")):
            value = _number(sensor)
            if value is not None and value > 0:
                label = _text(sensor.with_name(sensor.name.replace("_input", "_label"))).strip()
                chip = _text(sensor.parent / "name").strip()
                found[_unused(f"{chip} {label}".strip(), found)] = value / 1e3
    return found


def _unused(name: str, taken: dict[str, float]) -> str:
    count = sum(key == name or key.startswith(f"{name} #") for key in taken)
    return f"{name} #{count + 1}" if count else name


def _throttled() -> dict[str, int]:
    """Intel's counters of throttling, and cooling devices that hold the CPU back."""
    found: dict[str, int] = {}
    for index in _online():
        value = _number(CPU / f"cpu{index}" / "thermal_throttle" / "core_throttle_count")
        if value is not None:
            found[f"cpu{index} throttle count"] = int(value)
    for cooler in sorted(Path("/sys/class/thermal").glob("cooling_device*")):
        kind, state = _text(cooler / "type").strip(), _number(cooler / "cur_state")
        if state is not None and ("cpu" in kind.lower() or "processor" in kind.lower()):
            found[f"{kind} {cooler.name.removeprefix('cooling_device')} now"] = int(state)
    return found


def _power() -> str | None:
    for supply in sorted(Path("/sys/class/power_supply").glob("*")):
        # A mouse or a headset has the scope "Device".
        if _text(supply / "type").strip() == "Battery" and _text(supply / "scope").strip() != "Device":
            state = _text(supply / "status").strip().lower() or "unknown"
            charge = _text(supply / "capacity").strip()
            return f"battery {charge} %, {state}" if charge else f"battery, {state}"
    return None


# -- who else ------------------------------------------------------------------------------------


class Neighbours:
    """Measures which share of some cores' time other processes and the hypervisor take.

    Args:
        cores: The cores that the measurement may use.
    """

    def __init__(self, cores: Sequence[int]) -> None:
        self.cores = cores
        self.busy = self.stolen = self.own = 0.0
        self._last = _jiffies(cores)

    def turn(self, own_seconds: float) -> None:
        """End a stretch during which processes of ours spent ``own_seconds`` on the cores."""
        now = _jiffies(self.cores)
        if now and self._last:
            busy, stolen = now[0] - self._last[0], now[1] - self._last[1]
            self.busy, self.stolen, self.own = self.busy + busy, self.stolen + stolen, self.own + own_seconds
        self._last = now

    def skip(self) -> None:
        """Start afresh: what happened since the last call does not count."""
        self._last = _jiffies(self.cores)

    def shares(self, seconds: float) -> tuple[float | None, float | None]:
        """(others, stolen) as shares of the cores' time over ``seconds`` of stretches."""
        if self._last is None or seconds <= 0:
            return None, None
        available = seconds * max(1, len(self.cores))
        return max(0.0, self.busy - self.own) / available, self.stolen / available


def _jiffies(cores: Sequence[int]) -> tuple[float, float] | None:
    """Seconds that ``cores`` were busy, and stolen, since boot; None where /proc/stat is not readable."""
    if not hasattr(os, "sysconf"):  # Windows
        return None
    wanted, tick = {f"cpu{k}" for k in cores}, os.sysconf("SC_CLK_TCK")
    busy = stolen = 0.0
    seen = False
    for line in _text("/proc/stat").splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _, _, irq, soft, steal = (int(v) for v in fields[:8])
            busy += (user + nice + system + irq + soft) / tick
            stolen += steal / tick
            seen = True
    return (busy, stolen) if seen else None


# -- small readers -------------------------------------------------------------------------------


def resident() -> tuple[int | None, int | None]:
    """(now, peak) resident bytes of this process."""
    now = peak = None
    for line in _text("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            now = int(value.split()[0]) * 1024
        elif name == "VmHWM":
            peak = int(value.split()[0]) * 1024
    return now, peak


def _meminfo(key: str) -> int | None:
    for line in _text("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def _text(path: str | Path) -> str:
    """A small file, empty where it is missing or not for us."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
