"""Energy of boards that tell their power, not what flowed: many readings, times the time between them."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from abc import abstractmethod
from contextlib import suppress
from statistics import fmean
from typing import ClassVar, TypeVar

from edge_deeplab.bench.ask import installed
from edge_deeplab.bench.energy import Meter

Kind = TypeVar("Kind", bound="SampledMeter")

PATIENCE = 5.0
"""Seconds within which the first reading must be there."""

UNTIL_CLOSED = "{{ {command}; kill 0; }} & read -r _; kill 0"
"""Shell: the command and all it started end when our end of the shell's input closes, however that comes
about; and when the command ends by itself, so does the shell."""


class SampledMeter(Meter):
    """Runs a program that prints readings for ever.

    Between two calls of :meth:`joules` the mean of the readings holds; where there was none, the last
    one. The readings pass through a nameless file, so that nothing of ours runs while a model does.

    Attributes:
        program: What must be installed.
        command: Shell command that prints readings until it is killed.
        end: What stands behind every reading.
    """

    program: ClassVar[str]
    command: ClassVar[str]
    end: ClassVar[bytes] = b"\n"

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            ["sh", "-c", UNTIL_CLOSED.format(command=self.command)],
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # `kill 0` is for this group; Ctrl-C is for us alone
        )
        self._seen = 0
        self._watts: float | None = None
        self._total = 0.0
        self._last = time.monotonic()

    @classmethod
    def open(cls: type[Kind]) -> Kind | None:
        """None where the program is missing or tells no power."""
        if not installed(cls.program):
            return None
        meter = cls()
        late = time.monotonic() + PATIENCE
        while meter.joules() is None:
            if time.monotonic() > late or meter.ended:
                meter.close()
                return None
            time.sleep(0.02)
        return meter

    @staticmethod
    @abstractmethod
    def read(text: str) -> int | None:
        """Milliwatts that one reading tells."""

    @property
    def ended(self) -> bool:
        """Whether the program ended by itself."""
        return self._process.poll() is not None

    def joules(self) -> float | None:
        """Energy since the first reading; None before it, and once the program has ended."""
        readings = self._readings()
        if readings:
            self._watts = fmean(readings)
        now = time.monotonic()
        passed, self._last = now - self._last, now
        if self._watts is None or self.ended:
            return None
        self._total += self._watts * passed
        return self._total

    def close(self) -> None:
        """Stop the program."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._file.close()

    def _readings(self) -> list[float]:
        """Watts of the readings that are new."""
        # The program shares the file's position with us: pread leaves it alone.
        data = os.pread(self._file.fileno(), 1 << 24, self._seen)
        whole = data[: data.rfind(self.end) + len(self.end)] if self.end in data else b""
        self._seen += len(whole)
        told = (self.read(part.decode(errors="replace")) for part in whole.split(self.end))
        return [milliwatts / 1e3 for milliwatts in told if milliwatts is not None]
