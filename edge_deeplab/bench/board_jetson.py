"""NVIDIA Jetson: power mode, whether the clocks are fixed, rails, throttling by heat and by current.

All without privileges where the board allows it. ``jetson_clocks --show`` wants root on most releases; it
is asked through ``sudo -n``, which never asks for a password, and left out where that is refused.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from edge_deeplab.bench.ask import ask, first_lines, installed
from edge_deeplab.bench.conditions import Board
from edge_deeplab.bench.record import Machine, Snapshot
from edge_deeplab.bench.tools.jetson import Clocks, parse_jetson_clocks, parse_nvpmodel
from edge_deeplab.bench.tools.tegrastats import Sample, parse_line

RELEASE = Path("/etc/nv_tegra_release")
COMPATIBLE = Path("/proc/device-tree/compatible")
COOLING = Path("/sys/class/thermal")
SENSORS = Path("/sys/class/hwmon")
GPU_CLOCK = Path("/sys/class/devfreq")

GPUS = {
    "tegra210": "Maxwell GM20B",
    "tegra186": "Pascal GP10B",
    "tegra194": "Volta GV11B",
    "tegra234": "Ampere GA10B",
    "tegra264": "Blackwell GB10B",
}

OVERCURRENT = {
    "oc1": "under-voltage",
    "oc2": "mean current too high",
    "oc3": "current too high",
}
"""Counters of Orin and later; Jetson Linux Developer Guide, "Platform Power and Performance"."""

_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
_GPU_FOLDER = re.compile(r"\.(gpu|gp10b|gv11b|ga10b|gb10b)$")


class Jetson(Board):
    """Any of them, from the TX1 to Thor."""

    @classmethod
    def here(cls) -> bool:
        """Told by the device tree, or by L4T's own file."""
        return "nvidia,tegra" in _text(COMPATIBLE) or RELEASE.exists()

    def machine(self, found: Machine) -> Machine:
        """With the release of Jetson Linux and the GPU."""
        release = _RELEASE.search(_text(RELEASE))
        soc = found.soc.removeprefix("nvidia,")
        return replace(
            found,
            gpu=GPUS.get(soc, found.gpu),
            versions={**found.versions, **({"L4T": f"{release[1]}.{release[2]}"} if release else {})},
        )

    def snapshot(self, found: Snapshot) -> Snapshot:
        """With power mode, clocks of GPU and memory, rails and throttling."""
        mode = parse_nvpmodel(ask("nvpmodel", "-q"))
        sample = _sample()
        extra = {
            **({"power mode": f"{mode.name} ({mode.number})"} if mode else {}),
            **_clocks(sample),
            **(_rails(sample) if sample else {}),
        }
        heat = found.temperatures or (sample.temperatures if sample else {})
        return replace(
            found,
            temperatures=heat,
            throttled={**found.throttled, **_throttled()},
            extra={**found.extra, **extra},
        )


def _sample() -> Sample | None:
    """A line of tegrastats; the first one after its start has no loads yet."""
    if not installed("tegrastats"):
        return None
    samples = [parse_line(line) for line in first_lines("tegrastats", "--interval", "100", count=2)]
    return next((sample for sample in reversed(samples) if sample), None)


def _clocks(sample: Sample | None) -> dict[str, str]:
    """Clocks of GPU and memory, and whether ``jetson_clocks`` holds them."""
    told = parse_jetson_clocks(ask("jetson_clocks", "--show")) or parse_jetson_clocks(
        ask("sudo", "-n", "jetson_clocks", "--show")
    )
    gpu = _gpu_clock()
    extra: dict[str, str] = {}
    if told and told.gpu:
        extra["GPU clock"] = _range(told.gpu.current, told.gpu.minimum, told.gpu.maximum)
    elif gpu:
        extra["GPU clock"] = _range(*gpu)
    if told and told.memory:
        least = told.memory.maximum if told.memory_fixed else told.memory.minimum
        extra["memory clock"] = _range(told.memory.current, least, told.memory.maximum)
    elif sample and sample.memory_mhz:
        extra["memory clock"] = f"{sample.memory_mhz} MHz"
    if (fixed := _fixed(told, gpu)) is not None:
        extra["clocks fixed (jetson_clocks)"] = "yes" if fixed else "no"
    return extra


def _fixed(told: Clocks | None, gpu: tuple[float, float, float] | None) -> bool | None:
    """From the tool; without it from the GPU, whose limits everybody may read."""
    if told is not None:
        return told.fixed
    return None if gpu is None else gpu[1] == gpu[2]


def _gpu_clock() -> tuple[float, float, float] | None:
    """(now, least, most) in megahertz; Thor's first GPU cluster."""
    for folder in sorted(GPU_CLOCK.glob("*")):
        if _GPU_FOLDER.search(folder.name):
            texts = [_text(folder / f"{name}_freq").strip() for name in ("cur", "min", "max")]
            if all(text.isdigit() for text in texts):
                now, least, most = (int(text) / 1e6 for text in texts)
                return now, least, most
    return None


def _range(now: float, least: float, most: float) -> str:
    return f"{now:.0f} MHz, fixed" if least == most else f"{now:.0f} of {least:.0f} to {most:.0f} MHz"


def _rails(sample: Sample) -> dict[str, str]:
    if not sample.rails:
        return {}
    return {"rails": ", ".join(f"{name} {value} mW" for name, value in sample.rails.items())}


def _throttled() -> dict[str, int]:
    """Blocks that are held back by heat, and how often the supply was the reason."""
    found = {}
    for cooler in sorted(COOLING.glob("cooling_device*")):
        kind, state = _text(cooler / "type").strip(), _text(cooler / "cur_state").strip()
        if kind.endswith("throttle-alert") and state.isdigit():
            found[kind] = int(state)
    for counter in sorted(SENSORS.glob("hwmon*/oc*_event_cnt")):
        text = _text(counter).strip()
        if text.isdigit():
            name = counter.name.removesuffix("_event_cnt")
            found[f"{name} {OVERCURRENT.get(name, 'over-current')}"] = int(text)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


BOARD = Jetson
