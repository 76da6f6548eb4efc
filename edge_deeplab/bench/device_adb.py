"""``adb:[SERIAL]``: an Android phone, measured with TFLite's or LiteRT's ``benchmark_model``.

A phone has no Python, so its figures are inference alone, without resizing frames or making masks; every
entry is marked so. The tool is the user's (docs/benchmarking-devices.md tells where to get it).
"""

from __future__ import annotations

import argparse
from typing import ClassVar

from edge_deeplab.bench.device import Device, Report
from edge_deeplab.bench.record import Job, Result

CORES = ("all", "big", "little")


class AdbDevice(Device):
    """Copies models and tool, runs, parses, cleans up.

    Attributes:
        tool: The ``benchmark_model`` to copy.
        cores: Which cluster to run on, where the job names no cores: ``all``, ``big`` or ``little``.
        tool_arguments: Further arguments of the tool, e.g. ``--use_gpu=true``.
    """

    address_help: ClassVar[str] = "adb:[SERIAL]"

    tool: str | None = None
    cores = "all"
    tool_arguments: tuple[str, ...] = ()

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.serial = address.partition(":")[2]

    @classmethod
    def arguments(cls, group: argparse._ArgumentGroup) -> None:
        """Options of this kind of device."""
        group.add_argument(
            "--benchmark-model", metavar="PATH", help="TFLite's or LiteRT's benchmark_model for the phone"
        )
        group.add_argument(
            "--cores",
            choices=CORES,
            default=cls.cores,
            help="cluster of the phone to run on (default: all); --cpus names single cores",
        )
        group.add_argument(
            "--tool-arg",
            action="append",
            default=[],
            metavar="ARG",
            help="further argument of benchmark_model, e.g. --tool-arg=--use_gpu=true; repeat",
        )

    def configure(self, args: argparse.Namespace) -> None:
        """Take the options."""
        self.tool, self.cores = args.benchmark_model, args.cores
        self.tool_arguments = tuple(args.tool_arg)

    def measure(self, job: Job, report: Report) -> Result:
        """See :class:`Device`."""
        from edge_deeplab.bench.phone import Wishes, measure

        wishes = Wishes(self.tool, self.cores, self.tool_arguments)
        return measure(self.serial, wishes, job, report)


DEVICE = AdbDevice
