"""Power of a Jetson's module, from its own sensors through ``tegrastats``."""

from __future__ import annotations

from edge_deeplab.bench.sampled import SampledMeter
from edge_deeplab.bench.tools.tegrastats import parse_line


class Tegrastats(SampledMeter):
    """Ten readings a second of the rail that feeds the module, or of all its rails together."""

    what = "Jetson module (tegrastats)"
    period = 0.1
    program = "tegrastats"
    command = "tegrastats --interval 100"

    @staticmethod
    def read(text: str) -> int | None:
        """One line."""
        sample = parse_line(text)
        return sample.power if sample else None


METER = Tegrastats
