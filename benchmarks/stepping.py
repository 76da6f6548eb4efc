"""Processes that make training steps when told to, so that settings of the allocator can take turns too.

glibc reads its tunables before Python starts: every setting is a process of its own, asleep while
another works.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import IO

from edge_deeplab.errors import UserError
from edge_deeplab.training.allocator import TUNABLES


class Worker:
    """A process that makes a step for every line it is sent.

    Args:
        name: For messages.
        words: Command line after the interpreter; its process calls :func:`obey`.
        tunables: Which of the allocator's settings are made.
    """

    def __init__(self, name: str, words: Sequence[str], tunables: Iterable[str]) -> None:
        self.name = name
        quiet = {"KINETO_LOG_LEVEL": "99"}  # torch's profiler has a lot to say
        environment = quiet | {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        chosen = [f"glibc.malloc.{key}={TUNABLES[key]}" for key in tunables]
        if chosen:
            environment["GLIBC_TUNABLES"] = ":".join(chosen)
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.first_answer = self._wait()

    def step(self, _: int = 0) -> None:
        """One training step; returns when it is done."""
        self.ask("step")

    def ask(self, word: str) -> str:
        """Send a line; returns the line that answers it."""
        pipe = self._pipe(self.process.stdin)
        with suppress(BrokenPipeError):  # it ended: _wait says how
            pipe.write(f"{word}\n")
            pipe.flush()
        return self._wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its standard input, which ends its loop

    def _wait(self) -> str:
        line = self._pipe(self.process.stdout).readline()
        if not line:
            raise UserError(f"the process for {self.name!r} ended early, status {self.process.wait()}")
        return line.strip()

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise ValueError("the process was started without pipes")
        return pipe


def obey(
    step: Callable[[], object], *, ready: str = "ready", profile: Callable[[], str] | None = None
) -> None:
    """In the worker's process: make a step, or a profile, for every line on standard input."""
    print(ready, flush=True)
    for line in sys.stdin:
        if line.strip() == "profile" and profile is not None:
            print(profile(), flush=True)
        else:
            step()
            print("done", flush=True)
