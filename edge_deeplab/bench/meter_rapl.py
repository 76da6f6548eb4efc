"""RAPL: Intel's and AMD's counters of the CPU package's energy; readable by root on most systems."""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.bench.energy import Meter

FOLDER = Path("/sys/class/powercap")


class Rapl(Meter):
    """Adds up all packages; each counter wraps around at a number the kernel tells.

    Args:
        packages: Folders with ``energy_uj`` and ``max_energy_range_uj``.
    """

    def __init__(self, packages: list[Path]) -> None:
        self.what = f"CPU package{'s' * (len(packages) > 1)} (RAPL)"
        self._packages = packages
        self._ranges = [int((p / "max_energy_range_uj").read_text()) for p in packages]
        self._last = self._read()
        self._total = 0

    @classmethod
    def open(cls) -> Rapl | None:
        """None without the interface or the permission to read it."""
        # What lies in a package, or around all of them (psys), would count twice.
        try:
            domains = sorted(FOLDER.glob("intel-rapl:*"))
            packages = [p for p in domains if (p / "name").read_text().startswith("package")]
            return cls(packages) if packages else None
        except (OSError, ValueError):
            return None

    def joules(self) -> float:
        """Energy since the meter was opened."""
        now = self._read()
        for before, after, limit in zip(self._last, now, self._ranges, strict=True):
            self._total += after - before if after >= before else after - before + limit
        self._last = now
        return self._total / 1e6

    def _read(self) -> list[int]:
        return [int((p / "energy_uj").read_text()) for p in self._packages]


METER = Rapl
