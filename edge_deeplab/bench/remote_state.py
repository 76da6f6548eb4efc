"""The state of a machine that cannot run Python: its small files, carried here as text.

What :mod:`edge_deeplab.bench.conditions` reads where the worker runs, read from what a shell printed: a
phone over adb, a board where only ``trtexec`` runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone

from edge_deeplab.bench.conditions import ARM_CORES
from edge_deeplab.bench.record import Core, Snapshot

CPU = "/sys/devices/system/cpu"
ZONES = "/sys/class/thermal"

FILES = (
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/device-tree/model",
    "/proc/device-tree/compatible",
    f"{CPU}/online",
    f"{CPU}/cpu[0-9]*/cpu_capacity",
    *(
        f"{CPU}/cpu[0-9]*/cpufreq/{name}"
        for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq", "scaling_governor")
    ),
    *(f"{ZONES}/thermal_zone*/{name}" for name in ("type", "temp")),
    *(f"{ZONES}/cooling_device*/{name}" for name in ("type", "cur_state")),
)


def script(patterns: Sequence[str] = FILES) -> str:
    """Plain POSIX shell that prints files for :func:`edge_deeplab.bench.tools.android.parse_files`."""
    return (
        f"for f in {' '.join(dict.fromkeys(patterns))}; do "
        'if [ -r "$f" ]; then while read -r l || [ -n "$l" ]; do echo "$f:$l"; done < "$f"; fi; '
        "done 2>/dev/null"
    )


Files = dict[str, str]


def snapshot(files: Files) -> Snapshot:
    """The machine's state as its files tell it."""
    load = files.get("/proc/loadavg", "").split()
    return Snapshot(
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cores=cores(files),
        temperatures=temperatures(files),
        throttled=throttled(files),
        load=float(load[0]) if load else None,
        memory_free=memory(files, "MemAvailable"),
    )


def online(files: Files) -> list[int]:
    """``0-3,5`` -> [0, 1, 2, 3, 5]."""
    found: list[int] = []
    for part in files.get(f"{CPU}/online", "").split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            found += range(int(low), int(high or low) + 1)
    return found


def cores(files: Files) -> tuple[Core, ...]:
    """Cores that are online; a phone often hides the clocks of some."""

    def number(index: int, name: str) -> int | None:
        text = files.get(f"{CPU}/cpu{index}/{name}", "")
        return int(text) if text.isdigit() else None

    found = []
    for index in online(files):
        now = number(index, "cpufreq/scaling_cur_freq")
        most = number(index, "cpufreq/scaling_max_freq") or number(index, "cpufreq/cpuinfo_max_freq")
        found.append(
            Core(
                index=index,
                mhz=None if now is None else now / 1e3,
                max_mhz=None if most is None else most / 1e3,
                governor=files.get(f"{CPU}/cpu{index}/cpufreq/scaling_governor") or None,
                capacity=number(index, "cpu_capacity"),
            )
        )
    return tuple(found)


def clusters(found: tuple[Core, ...]) -> list[tuple[int, ...]]:
    """Cores of one kind together, the slowest first; one cluster where nothing tells them apart."""
    kinds: dict[float, list[int]] = {}
    for core in found:
        kinds.setdefault(core.capacity or core.max_mhz or 0, []).append(core.index)
    return [tuple(kinds[speed]) for speed in sorted(kinds)]


def temperatures(files: Files) -> dict[str, float]:
    """Thermal zones; two of one name get numbers."""
    found: dict[str, float] = {}
    for path, name in _by_number(files, f"{ZONES}/thermal_zone", "type"):
        text = files.get(f"{path}/temp", "")
        # Unused sensors answer 0 or something far below freezing.
        if re.fullmatch(r"\d+", text) and int(text) > 0:
            degrees = int(text) / 1e3 if int(text) > 200 else float(text)
            count = sum(key == name or key.startswith(f"{name} #") for key in found)
            found[f"{name} #{count + 1}" if count else name] = degrees
    return found


def throttled(files: Files) -> dict[str, int]:
    """Cooling devices that hold processors back, and how far."""
    found = {}
    for path, kind in _by_number(files, f"{ZONES}/cooling_device", "type"):
        state = files.get(f"{path}/cur_state", "")
        if state.isdigit() and re.search(r"cpu|gpu|processor|throttle", kind, re.IGNORECASE):
            found[f"{kind} {path.removeprefix(f'{ZONES}/cooling_device')} now"] = int(state)
    return found


def cpu_name(files: Files) -> str:
    """``model name`` where the kernel tells it, the kinds of ARM cores otherwise."""
    text = files.get("/proc/cpuinfo", "")
    named = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    if named:
        return named[1].strip()
    kinds: dict[str, int] = {}
    for part in re.findall(r"^CPU part\s*: (0x[0-9a-f]+)$", text, re.MULTILINE):
        kind = ARM_CORES.get(int(part, 16), f"part {part}")
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count}x {kind}" for kind, count in kinds.items())


def memory(files: Files, key: str) -> int | None:
    """A line of ``/proc/meminfo``, in bytes."""
    line = re.search(rf"^{key}:\s+(\d+) kB", files.get("/proc/meminfo", ""), re.MULTILINE)
    return int(line[1]) * 1024 if line else None


def _by_number(files: Files, prefix: str, name: str) -> list[tuple[str, str]]:
    """(folder, content of its ``name``) of numbered folders, in order of their numbers."""
    found = [
        (int(match[1]), path.removesuffix(f"/{name}"), content)
        for path, content in files.items()
        if (match := re.fullmatch(rf"{re.escape(prefix)}(\d+)/{name}", path))
    ]
    return [(path, content) for _, path, content in sorted(found)]
