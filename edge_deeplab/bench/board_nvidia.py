"""A computer with an NVIDIA GPU and ``nvidia-smi``: name, driver, clocks, temperature, power, throttling.

Jetson boards have no ``nvidia-smi`` worth asking; they have a file of their own. The queries and their
units are those of ``nvidia-smi --help-query-gpu``.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

from edge_deeplab.bench.conditions import Board
from edge_deeplab.bench.record import Machine, Snapshot

STATE = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "utilization.gpu", "pstate")
SLOWDOWNS = {
    "clocks_throttle_reasons.hw_thermal_slowdown": "GPU held back by heat (hardware) now",
    "clocks_throttle_reasons.sw_thermal_slowdown": "GPU held back by heat (driver) now",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "GPU held back by its power supply now",
    "clocks_throttle_reasons.sw_power_cap": "GPU at its power limit now",
}


class NvidiaSmi(Board):
    """Asks about the first GPU, the one that runtimes use unless told otherwise."""

    @classmethod
    def here(cls) -> bool:
        """``nvidia-smi`` is there and finds a GPU."""
        return bool(ask("name"))

    def machine(self, found: Machine) -> Machine:
        """Adds the GPU, its memory, and the driver."""
        name, memory, driver = ask("name", "memory.total", "driver_version") or ("", "", "")
        gpu = f"{name}, {memory}" if memory else name
        return replace(found, gpu=gpu, versions={**found.versions, "nvidia driver": driver})

    def snapshot(self, found: Snapshot) -> Snapshot:
        """Adds the GPU's clocks, temperature, power and throttling."""
        extra, temperatures, throttled = dict(found.extra), dict(found.temperatures), dict(found.throttled)
        for key, value in zip(STATE, ask(*STATE), strict=False):
            if key == "temperature.gpu" and value.isdigit():
                temperatures["GPU"] = float(value)
            elif known(value):
                extra[f"GPU {key}"] = value
        for text, value in zip(SLOWDOWNS.values(), ask(*SLOWDOWNS), strict=False):
            if known(value):
                throttled[text] = int(value == "Active")
        return replace(found, extra=extra, temperatures=temperatures, throttled=throttled)


def known(value: str) -> bool:
    """Whether the driver knew: it says ``[N/A]`` or ``[Not Supported]`` otherwise."""
    return bool(value) and not value.startswith("[")


def ask(*fields: str) -> tuple[str, ...]:
    """Values of the first GPU, in order; empty without nvidia-smi, GPU or answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = done.stdout.splitlines()
    values = tuple(value.strip() for value in lines[0].split(",")) if lines else ()
    return values if len(values) == len(fields) else ()


BOARD = NvidiaSmi
