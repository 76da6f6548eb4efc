"""What a run depended on: versions, machine, and the exact code."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision

from edge_deeplab.version import __version__

HERE = Path(__file__).resolve().parent
PATCH_LIMIT = 1 << 20
"""Longest diff that is kept, in bytes."""


def environment(processes: int) -> dict[str, Any]:
    """Versions, machine and git state, JSON-ready."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "edge_deeplab": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda if devices else None,
        "gpus": devices,
        "system": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "commit": git_commit(),
    }


def git_commit() -> str:
    """Commit of the code that is running, ``+dirty`` if it has changes; empty outside a checkout."""
    commit = _git("rev-parse", "HEAD").strip() if _tracked() else ""
    return commit + ("+dirty" if commit and _git("status", "--porcelain", "-uno") else "")


def git_patch() -> str:
    """What the running code differs by from its commit, as a diff; empty if it does not."""
    return _git("diff", "HEAD")[:PATCH_LIMIT] if _tracked() else ""


def _tracked() -> bool:
    """Whether this file is in the checkout around it; a package installed in a project's .venv is not."""
    return bool(_git("ls-files", Path(__file__).name))


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, check=False)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
