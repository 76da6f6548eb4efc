"""Energy of the whole board or package, where the hardware counts it.

Files ``meter_NAME.py`` in this folder with ``METER``, a subclass of :class:`Meter`, are asked in turn;
the first one that can be read is used. They run where the worker runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from edge_deeplab.plugins import discover


class Meter(ABC):
    """Counts the energy that flows while it is open.

    Attributes:
        what: What is counted, for reports, e.g. ``CPU package (RAPL)``.
        period: Seconds between two readings; 0 where every question has a fresh answer.
    """

    what: str = ""
    period: float = 0.0

    @classmethod
    @abstractmethod
    def open(cls) -> Meter | None:
        """A running meter; None where the hardware or the permission is missing."""

    @abstractmethod
    def joules(self) -> float | None:
        """Energy since :meth:`open`, idle power included; None when it stopped counting."""

    def close(self) -> None:  # noqa: B027 - most meters have nothing to stop
        """Stop what :meth:`open` started."""


def open_meter() -> Meter | None:
    """The first meter that works here."""
    kinds: dict[str, type[Meter]] = discover("edge_deeplab.bench", "meter_", "METER")
    for kind in kinds.values():
        meter = kind.open()
        if meter is not None:
            return meter
    return None
