"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it was writing goes, nothing is left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")  # there is no SIGHUP, and no SIGCHLD, on Windows


@dataclass
class Stop:
    """Which signal ended the command; Ctrl-C's where none of the others came."""

    number: signal.Signals = signal.SIGINT

    @property
    def status(self) -> int:
        """The exit status shells give to what a signal ended."""
        return 128 + self.number


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on SIGTERM and SIGHUP, and note in ``stop`` which it was.

    A signal that somebody handles already, or ignores (``nohup``), is left to them, and all are outside the
    main thread. The first one counts: ``timeout`` and a closing terminal send two.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() != own:  # forked from here: a worker that reads pictures
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if stop.number is signal.SIGINT:
            stop.number = signal.Signals(number)
            # torch would speak up for its workers, which end now too, or a little after the block.
            child = getattr(signal, "SIGCHLD", None)
            if child is not None and callable(signal.getsignal(child)):
                signal.signal(child, lambda *_: None)
            raise KeyboardInterrupt

    known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    ours = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
