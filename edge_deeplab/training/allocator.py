"""Memory settings that only take effect before a process starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TUNABLES = {
    "hugetlb": 1,  # ask for transparent huge pages
    "mmap_max": 0,  # keep large blocks in the heap …
    "trim_threshold": 16 << 30,  # … and do not hand them back after every step
    "top_pad": 256 << 20,
}


def with_huge_pages() -> None:
    """Start this process again with an allocator that keeps its memory, on Linux with glibc, once.

    A training step takes and frees gigabytes. By default glibc hands large blocks back to the system
    and faults fresh 4 KiB pages in again at the next step; ``benchmarks/training_step.py`` shows what
    that costs. glibc reads these settings before Python runs, hence the restart. Anyone's own
    GLIBC_TUNABLES are left alone, and so is a program that calls the command line as a function.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ or not _is_the_command(sys.argv[0]):
        return
    tunables = ":".join(f"glibc.malloc.{name}={value}" for name, value in TUNABLES.items())
    environment = {**os.environ, "GLIBC_TUNABLES": tunables}
    os.execve(sys.executable, [sys.executable, "-m", "edge_deeplab", *sys.argv[1:]], environment)


def _is_the_command(program: str) -> bool:
    """Whether this process is ``edge-deeplab …`` or ``python -m edge_deeplab …``, by its own name."""
    path = Path(program)
    return path.name == "edge-deeplab" or path.parts[-2:] == ("edge_deeplab", "__main__.py")
