"""NVIDIA Jetson: power mode, whether the clocks are fixed, rails, throttling by heat and by current."""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.bench import jetson_state
from edge_deeplab.bench.ask import ask
from edge_deeplab.bench.conditions import Board
from edge_deeplab.bench.record import Machine, Snapshot

ROOT = Path("/")


class Jetson(Board):
    """Any of them, from the TX1 to Thor."""

    @classmethod
    def here(cls) -> bool:
        """See :func:`edge_deeplab.bench.jetson_state.is_jetson`."""
        return jetson_state.is_jetson(_files())

    def machine(self, found: Machine) -> Machine:
        """With the release of Jetson Linux and the GPU."""
        return jetson_state.machine(found, _files())

    def snapshot(self, found: Snapshot) -> Snapshot:
        """With power mode, clocks of GPU and memory, rails and throttling."""
        answers = {name: ask("sh", "-c", command) for name, command in jetson_state.COMMANDS.items()}
        return jetson_state.snapshot(found, _files(), answers)


def _files() -> dict[str, str]:
    found = {}
    for pattern in jetson_state.FILES:
        for path in sorted(ROOT.glob(pattern.lstrip("/"))):
            try:
                found[f"/{path.relative_to(ROOT)}"] = path.read_text(errors="replace")
            except OSError:
                continue  # a sensor that is switched off
    return found


BOARD = Jetson
