"""Raspberry Pi: throttling and a weak supply, as ``vcgencmd`` tells them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_deeplab.bench.ask import ask
from edge_deeplab.bench.conditions import Board
from edge_deeplab.bench.record import Machine, Snapshot
from edge_deeplab.bench.tools.raspberry import parse_throttled

MODEL = Path("/proc/device-tree/model")


class Raspberry(Board):
    """Any model with Raspberry Pi OS, or another system that has ``vcgencmd``."""

    @classmethod
    def here(cls) -> bool:
        """Told by the device tree."""
        try:
            return MODEL.read_text(errors="replace").startswith("Raspberry Pi")
        except OSError:
            return False

    def machine(self, found: Machine) -> Machine:
        """The device tree tells all."""
        return found

    def snapshot(self, found: Snapshot) -> Snapshot:
        """With the flags of under-voltage and throttling."""
        flags = parse_throttled(ask("vcgencmd", "get_throttled"))
        return replace(found, throttled={**found.throttled, **flags}) if flags else found


BOARD = Raspberry
