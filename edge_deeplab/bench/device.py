"""Where a measurement runs: ``local``, ``ssh://USER@HOST[:PORT]``, ``adb:SERIAL``.

A device is one file ``device_NAME.py`` in this folder with ``DEVICE``, a subclass of :class:`Device`;
the word before the first ``:`` of an address names it. It gets a :class:`~edge_deeplab.bench.record.Job`
whose paths are files on this machine and answers with a :class:`~edge_deeplab.bench.record.Result`:

- A device with Python copies the contenders' files, gives each its new ``path`` (``dataclasses.replace``),
  runs ``python3 -m edge_deeplab.bench.worker -`` there with the job's JSON on standard input, and hands
  every line of its standard output to :func:`follow`. :func:`edge_deeplab.bench.bundle.bundle` packs
  the modules that the worker needs, if edge-deeplab is not installed there.
- A device without Python runs a tool and fills the records from what it prints: an ``Entry`` with the
  stages that it knows, ``headline`` naming one of them, no ``samples``.

Files ``board_NAME.py`` with ``BOARD`` (see :class:`~edge_deeplab.bench.conditions.Board`) and
``meter_NAME.py`` with ``METER`` (see :class:`~edge_deeplab.bench.energy.Meter`) run where the worker
runs: they add to the conditions and read the power there. Nothing may stay on the device afterwards.
"""

from __future__ import annotations

import argparse
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from edge_deeplab.bench.record import Job, Result
from edge_deeplab.errors import UserError
from edge_deeplab.plugins import discover


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        phase: ``copy``, ``load``, ``warm-up``, ``measure`` ...
        done, total: Steps of the phase; ``total`` 0 where it is not known.
        text: What is being done, e.g. a contender's name.
    """

    phase: str
    done: int = 0
    total: int = 0
    text: str = ""


Report = Callable[[Progress], None]
"""Takes the progress of a run; must not fail."""


class Device(ABC):
    """A machine that measures.

    Args:
        address: As the user gave it, the scheme included.

    Attributes:
        address_help: How an address of this kind looks, for ``--help`` and messages.
    """

    address_help: ClassVar[str] = ""

    def __init__(self, address: str) -> None:
        self.address = address

    @classmethod
    def arguments(cls, group: argparse._ArgumentGroup) -> None:
        """Add the options that only this kind of device has."""
        del group

    def configure(self, args: argparse.Namespace) -> None:
        """Take their values."""
        del args

    @abstractmethod
    def measure(self, job: Job, report: Report) -> Result:
        """Run a job; block until it is done.

        A contender that fails is an entry with its ``error``; the others go on.

        Raises:
            UserError: The device cannot be reached, lacks something, or went away: one line, cause
                and cure. Nothing is left behind on either side.
        """


def devices() -> dict[str, type[Device]]:
    """All kinds of devices by name: the files ``device_NAME.py`` of this folder."""
    return discover("edge_deeplab.bench", "device_", "DEVICE")


def open_device(address: str) -> Device:
    """The device behind an address.

    Raises:
        UserError: No such kind, or the address is malformed.
    """
    name = address.partition(":")[0]
    known = devices()
    if name not in known:
        shapes = ", ".join(kind.address_help for kind in known.values())
        raise UserError(f"no device {address!r}; give one of {shapes}")
    return known[name](address)


def follow(lines: Iterable[str], report: Report) -> Result:
    """Read a worker's standard output to its end: progress is passed on, the result returned.

    Every line is one JSON object with one key: ``progress``, ``result`` or ``error``.

    Raises:
        UserError: The worker told of an error.
        EOFError: The lines ended without a result: the worker or the connection died.
    """
    for line in lines:
        key, value = _message(line)
        if key == "progress":
            report(Progress(**value))
        elif key == "error":
            raise UserError(str(value))
        elif key == "result":
            return Result.from_json(json.dumps(value), source="the device's answer")
    raise EOFError("no result")


def _message(line: str) -> tuple[str, Any]:
    """Key and value; what is not the worker's own (a login banner) is skipped as ``""``."""
    try:
        record = json.loads(line)
    except ValueError:
        return "", None
    if not isinstance(record, dict) or len(record) != 1:
        return "", None
    return next(iter(record.items()))
