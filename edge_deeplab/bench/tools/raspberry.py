"""``vcgencmd``: throttling and power of a Raspberry Pi."""

from __future__ import annotations

import re

THROTTLED = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Bits of ``get_throttled`` that hold now; the same plus 16: since the board started."""

_WORD = re.compile(r"throttled=0x([0-9a-fA-F]+)")
_READING = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([\d.]+)[AV]\s*$", re.MULTILINE)


def parse_throttled(text: str) -> dict[str, int] | None:
    """Read ``vcgencmd get_throttled``: ``throttled=0x50005`` -> every flag, 0 or 1.

    Flags are called ``throttled now`` and ``throttled since start``; None when it is another text.
    """
    word = _WORD.search(text)
    if word is None:
        return None
    bits = int(word[1], 16)
    return {
        f"{name} {when}": bits >> (bit + shift) & 1
        for when, shift in (("now", 0), ("since start", 16))
        for bit, name in THROTTLED.items()
    }


def parse_power(text: str) -> int | None:
    """Read ``vcgencmd pmic_read_adc`` of a Raspberry Pi 5: milliwatts over all rails.

    Only rails with a current and a voltage count. What the board draws before its power chip, USB
    devices above all, is not measured.
    """
    readings: dict[str, dict[str, float]] = {}
    for rail, kind, value in _READING.findall(text):
        readings.setdefault(rail, {})[kind] = float(value)
    watts = [r["A"] * r["V"] for r in readings.values() if len(r) == 2]
    return round(1000 * sum(watts)) if watts else None
