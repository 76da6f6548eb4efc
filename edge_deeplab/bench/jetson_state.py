"""What a Jetson tells of itself, from its small files and from what three of its programs print.

Both are plain text here, so that it makes no difference whether they were read where Python runs
(:mod:`edge_deeplab.bench.board_jetson`) or came over a connection (:mod:`edge_deeplab.bench.trtexec_run`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from edge_deeplab.bench.record import Machine, Snapshot
from edge_deeplab.bench.tools.jetson import Clocks, parse_jetson_clocks, parse_nvpmodel
from edge_deeplab.bench.tools.tegrastats import Sample, parse_line

RELEASE = "/etc/nv_tegra_release"
COMPATIBLE = "/proc/device-tree/compatible"
COOLING = "/sys/class/thermal/cooling_device"
OVERCURRENT_COUNTERS = "/sys/class/hwmon/hwmon*/oc*_event_cnt"
DEVFREQ = "/sys/class/devfreq"

FILES = (
    RELEASE,
    COMPATIBLE,
    f"{COOLING}*/type",
    f"{COOLING}*/cur_state",
    OVERCURRENT_COUNTERS,
    *(f"{DEVFREQ}/*/{name}_freq" for name in ("cur", "min", "max")),
)
"""Files that are looked at, as patterns of a shell."""

COMMANDS = {
    "nvpmodel": "timeout 3 nvpmodel -q",
    # The first line after its start has no loads yet.
    "tegrastats": "timeout 3 tegrastats --interval 100 | head -n 2",
    # It wants root on most releases; `sudo -n` never asks for a password.
    "jetson_clocks": "timeout 3 jetson_clocks --show || timeout 3 sudo -n jetson_clocks --show",
}
"""Shell commands that are asked; each may be missing or refuse."""

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

Texts = Mapping[str, str]

_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
_GPU_FOLDER = re.compile(r"/[^/]*\.(gpu|gp10b|gv11b|ga10b|gb10b)$")


def is_jetson(files: Texts) -> bool:
    """Told by the device tree, or by Jetson Linux' own file."""
    return "nvidia,tegra" in files.get(COMPATIBLE, "") or RELEASE in files


def machine(found: Machine, files: Texts) -> Machine:
    """``found`` with the release of Jetson Linux, the SoC and the GPU."""
    release = _RELEASE.search(files.get(RELEASE, ""))
    soc = re.search(r"nvidia,(tegra\d+)", files.get(COMPATIBLE, ""))
    return replace(
        found,
        soc=f"nvidia,{soc[1]}" if soc else found.soc,
        gpu=GPUS.get(soc[1], found.gpu) if soc else found.gpu,
        versions={**found.versions, **({"L4T": f"{release[1]}.{release[2]}"} if release else {})},
    )


def snapshot(found: Snapshot, files: Texts, answers: Texts) -> Snapshot:
    """``found`` with power mode, clocks of GPU and memory, rails and throttling.

    Args:
        found: What every machine tells.
        files: Path -> content of :data:`FILES`.
        answers: Name -> output of :data:`COMMANDS`.
    """
    mode = parse_nvpmodel(answers.get("nvpmodel", ""))
    lines = [parse_line(line) for line in answers.get("tegrastats", "").splitlines()]
    sample = next((line for line in reversed(lines) if line), None)
    extra = {
        **({"power mode": f"{mode.name} ({mode.number})"} if mode else {}),
        **_clocks(parse_jetson_clocks(answers.get("jetson_clocks", "")), _gpu_clock(files), sample),
        **(_rails(sample) if sample else {}),
    }
    return replace(
        found,
        temperatures=found.temperatures or (sample.temperatures if sample else {}),
        throttled={**found.throttled, **_throttled(files)},
        extra={**found.extra, **extra},
    )


Range = tuple[float, float, float]
"""Megahertz now, at least, at most."""


def _clocks(told: Clocks | None, gpu: Range | None, sample: Sample | None) -> dict[str, str]:
    """Clocks of GPU and memory, and whether ``jetson_clocks`` holds them."""
    extra: dict[str, str] = {}
    if told and told.gpu:
        extra["GPU clock"] = _range((told.gpu.current, told.gpu.minimum, told.gpu.maximum))
    elif gpu:
        extra["GPU clock"] = _range(gpu)
    if told and told.memory:
        least = told.memory.maximum if told.memory_fixed else told.memory.minimum
        extra["memory clock"] = _range((told.memory.current, least, told.memory.maximum))
    elif sample and sample.memory_mhz:
        extra["memory clock"] = f"{sample.memory_mhz} MHz"
    # Without the tool, the GPU's limits tell, which everybody may read.
    fixed = told.fixed if told else gpu and gpu[1] == gpu[2]
    if fixed is not None:
        extra["clocks fixed (jetson_clocks)"] = "yes" if fixed else "no"
    return extra


def _gpu_clock(files: Texts) -> Range | None:
    """Of the GPU, or of Thor's first cluster."""
    for path in sorted(files):
        folder = path.removesuffix("/cur_freq")
        if folder != path and _GPU_FOLDER.search(folder):
            texts = [files.get(f"{folder}/{name}_freq", "").strip() for name in ("cur", "min", "max")]
            if all(text.isdigit() for text in texts):
                now, least, most = (int(text) / 1e6 for text in texts)
                return now, least, most
    return None


def _range(clock: Range) -> str:
    now, least, most = clock
    return f"{now:.0f} MHz, fixed" if least == most else f"{now:.0f} of {least:.0f} to {most:.0f} MHz"


def _rails(sample: Sample) -> dict[str, str]:
    if not sample.rails:
        return {}
    return {"rails": ", ".join(f"{name} {value} mW" for name, value in sample.rails.items())}


def _throttled(files: Texts) -> dict[str, int]:
    """Blocks that are held back by heat, and how often the supply was the reason."""
    found = {}
    for path, content in sorted(files.items()):
        kind = content.strip()
        if path.startswith(COOLING) and path.endswith("/type") and kind.endswith("throttle-alert"):
            state = files.get(path.removesuffix("type") + "cur_state", "").strip()
            if state.isdigit():
                found[f"{kind} now"] = int(state)
        elif path.endswith("_event_cnt") and kind.isdigit():
            name = path.rsplit("/", 1)[1].removesuffix("_event_cnt")
            found[f"{name} {OVERCURRENT.get(name, 'over-current')}"] = int(kind)
    return found
