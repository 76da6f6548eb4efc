"""Where a run goes. No PyTorch: a place that cannot be used is told before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.errors import UserError

STATE = "last.safetensors"
BEST = "best.safetensors"


def check_place(path: Path, *, resume: bool) -> None:
    """Find out whether a run can begin, or go on, in a folder.

    Raises:
        UserError: It holds another run already, or none to resume.
    """
    if resume and not path.exists():
        raise UserError(f"nothing to resume in {path}: it does not exist; start without --resume")
    if not resume and (path / STATE).exists():
        raise UserError(f"{path} holds a run already; continue it with --resume or choose another --output")
