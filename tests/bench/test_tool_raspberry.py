"""vcgencmd."""

from __future__ import annotations

from edge_deeplab.bench.tools.raspberry import parse_power, parse_throttled
from tests.bench.recorded import recordings

TEXTS = recordings("raspberry")


def test_throttled() -> None:
    weak = parse_throttled(TEXTS["throttled, Raspberry Pi 3 with a weak supply"])
    assert weak is not None
    assert [name for name, bit in weak.items() if bit] == [
        "under-voltage now",
        "throttled now",
        "under-voltage since start",
        "throttled since start",
    ]
    fine = parse_throttled(TEXTS["throttled, nothing"])
    assert fine is not None and not any(fine.values())
    assert parse_throttled("vcgencmd: command not found") is None


def test_power_is_the_sum_over_the_rails() -> None:
    found = parse_power(TEXTS["power, Raspberry Pi 5"])
    by_hand = (
        0.1024727 * 3.710912 + 0.1083282 * 3.309105 + 0.1571247 * 1.800731 + 0.00585558 * 1.104394
        + 0.2410547 * 1.108058 + 0.3142495 * 0.8040285 + 1.4288 * 0.9065925 + 0.00006105 * 3.318678
        + 0.0035409 * 0.798827 + 0.0200244 * 5.0786
    )  # fmt: skip
    assert found == round(1000 * by_hand)
    assert parse_power("     EXT5V_V volt(24)=5.05716000V\n") is None
