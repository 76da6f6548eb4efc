"""Ask other programs of the machine something, briefly; whatever goes wrong is an empty answer."""

from __future__ import annotations

import shutil
import subprocess

PATIENCE = 10.0
"""Seconds that a program may take."""


def installed(program: str) -> bool:
    """Whether it can be called by its name."""
    return shutil.which(program) is not None


def ask(*words: str) -> str:
    """What a command prints; empty where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
