"""Memory settings that only take effect before a process starts."""

from __future__ import annotations

import os
import sys

TUNABLE = "glibc.malloc.hugetlb=1"


def with_huge_pages() -> None:
    """Start this process again with glibc asking for transparent huge pages, on Linux, once.

    A training step frees and takes hundreds of megabytes; with 4 KiB pages a quarter of the time goes
    into page faults (0.85 -> 0.64 s a step on two Zen 5 cores, ``benchmarks/training_step.py``). glibc
    reads the setting before Python runs, hence the restart. Anyone's own GLIBC_TUNABLES are left alone.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLE}
    os.execve(sys.executable, [sys.executable, "-m", "edge_deeplab", *sys.argv[1:]], environment)
