"""Ask other programs of the machine something, briefly; whatever goes wrong is an empty answer."""

from __future__ import annotations

import shutil
import subprocess
import threading
from contextlib import suppress

PATIENCE = 5.0
"""Seconds that a program may take."""


def installed(program: str) -> bool:
    """Whether it can be called by its name."""
    return shutil.which(program) is not None


def ask(*words: str) -> str:
    """What a command prints, standard error included; empty where it is missing, fails or takes long."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def first_lines(*words: str, count: int) -> list[str]:
    """The first lines of a command that goes on for ever; it is stopped after them."""
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return []
    late = threading.Timer(PATIENCE, process.kill)
    late.start()
    with process, suppress(OSError):
        lines = []
        for raw in process.stdout or ():
            lines.append(raw.decode(errors="replace").rstrip("\n"))
            if len(lines) == count:
                break
        process.kill()
        late.cancel()
        return lines
    return []
