"""What a device says when it cannot measure: one line, whatever went wrong."""

from __future__ import annotations

import pytest

from edge_deeplab.bench.device import Device, Progress, Report
from edge_deeplab.bench.record import Job
from edge_deeplab.errors import UserError


def ignore(_: Progress) -> None:
    """Nobody looks at the progress."""


def refusal(device: Device, job: Job, report: Report = ignore) -> str:
    """The line that measuring ends with."""
    with pytest.raises(UserError) as caught:
        device.measure(job, report)
    line = str(caught.value)
    assert "\n" not in line and "Traceback" not in line
    return line
