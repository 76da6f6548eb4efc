"""``edge-deeplab demo webcam`` as a process, measured from outside: what soak.py and webcam.py share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_deeplab.demos.films import FilmReader, FilmWriter
from edge_deeplab.errors import UserError

PATIENCE_S = 60.0
"""How long a process may take to end once it was told to."""


class Webcam:
    """The command as a user types it, in a process of its own. Use as a context manager.

    Args:
        arguments: Behind ``demo webcam``.
        display: ``:7``, the screen its window opens on; None for the one there is.
    """

    def __init__(self, arguments: Sequence[str], display: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="webcam-")
        folder = Path(self._folder.name)
        self._log, self._said = folder / "log.jsonl", folder / "said.txt"
        surroundings = {**os.environ, **({"DISPLAY": display} if display else {})}
        # Into a file: nobody empties a pipe meanwhile, and a full one would stop the demo.
        with self._said.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_deeplab", "demo", "webcam", *arguments, "--log", str(self._log)],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=surroundings,
            )

    def lines(self) -> list[dict[str, Any]]:
        """The figures of every second so far."""
        if not self._log.exists():
            return []
        return [
            json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]

    def running(self) -> bool:
        """Whether it has not ended by itself."""
        return self.process.poll() is None

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C.

        Returns:
            Exit status, and everything it has printed.

        Raises:
            UserError: It does not end.
        """
        if self.running():
            self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self, patience: float = PATIENCE_S) -> tuple[int, str]:
        """Wait until it ends by itself; see :meth:`interrupt`."""
        try:
            status = self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"the demo still runs {patience:g} s after it should have ended") from error
        return status, self._said.read_text(encoding="utf-8")

    def __enter__(self) -> Webcam:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running():
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()


def clips_in(shared: Path) -> list[Path]:
    """The clips of real webcams.

    Raises:
        UserError: There are none.
    """
    clips = sorted((shared / "video").glob("*.mkv"))
    if not clips:
        raise UserError(f"no clips in {shared / 'video'}; name films of your own with --clip")
    return clips


def joined(clips: Sequence[Path], path: Path, rate: float = 30.0) -> Path:
    """One film of several, one after the other."""
    count = 0
    with FilmWriter(path, rate) as writer:
        for clip in clips:
            with FilmReader(clip) as film:
                for timed in film.read():
                    writer.write(timed.frame, count / rate)
                    count += 1
    return path
