"""``local``: this machine."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

from edge_deeplab.bench.device import Device, Report, follow
from edge_deeplab.bench.record import Job, Result
from edge_deeplab.errors import UserError


class Local(Device):
    """Runs the worker in a process of its own, as other devices do: the harness is then the same."""

    address_help: ClassVar[str] = "local"

    def __init__(self, address: str) -> None:
        if address != "local":
            raise UserError(f"no device {address!r}; this machine is just local")
        super().__init__(address)

    def measure(self, job: Job, report: Report) -> Result:
        """See :class:`Device`."""
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_deeplab.bench.worker", "-", "--until-eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches us; the worker stops with its input
        )
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process was started without pipes")
        try:
            process.stdin.write(job.to_json() + "\n")
            process.stdin.flush()
            return follow(process.stdout, report)
        except (EOFError, BrokenPipeError) as error:
            raise UserError(f"the measuring process ended early, status {process.wait()}") from error
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait()


DEVICE = Local
