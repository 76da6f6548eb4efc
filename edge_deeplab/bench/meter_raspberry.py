"""Power of a Raspberry Pi 5, from its power chip; earlier models do not measure it."""

from __future__ import annotations

from edge_deeplab.bench.sampled import SampledMeter
from edge_deeplab.bench.tools.raspberry import parse_power


class Pmic(SampledMeter):
    """Two readings a second of all the chip's rails; what hangs on USB is not among them."""

    what = "Raspberry Pi 5 without USB devices (power chip)"
    period = 0.5
    program = "vcgencmd"
    command = "while vcgencmd pmic_read_adc && echo --; do sleep 0.5; done"
    end = b"--\n"

    @staticmethod
    def read(text: str) -> int | None:
        """One answer of ``vcgencmd pmic_read_adc``."""
        return parse_power(text)


METER = Pmic
