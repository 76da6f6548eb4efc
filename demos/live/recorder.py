"""Recording beside the live loop: encoding takes its own thread, and never holds up the screen."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from edge_deeplab.demos.films import FilmWriter
from edge_deeplab.imaging import Frame

ROOM = 30
"""Frames that may wait for the encoder: one second."""


class Recorder:
    """Writes frames to a film while others go on. Use as a context manager.

    The film is finished when the block ends, after Ctrl-C too, and can be played even if the process
    was killed (then under the name ``.part-…``).

    Args:
        path: ``.mp4``, ``.mov``, ``.mkv`` or ``.webm``.
        rate: Frames per second, a hint for players.

    Attributes:
        dropped: Frames that the encoder was too slow for.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        self.path = Path(path)
        self.dropped = 0
        self._writer = FilmWriter(path, rate, keep=True)
        self._queue: queue.Queue[tuple[Frame, float] | None] = queue.Queue(ROOM)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._begin: float | None = None

    @property
    def frames(self) -> int:
        """Frames in the film."""
        return self._writer.frames

    def write(self, picture: Frame, seconds: float) -> None:
        """Record a frame, BGR uint8 (H, W, 3), taken at ``seconds`` of any clock.

        Raises:
            UserError: The film could not be written.
        """
        if self._failure is not None:
            raise self._failure
        if self._begin is None:
            self._begin = seconds
        try:
            self._queue.put_nowait((picture, seconds - self._begin))
        except queue.Full:
            self.dropped += 1

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None and self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            with self._writer:
                while (item := self._queue.get()) is not None:
                    self._writer.write(*item)
        except BaseException as error:  # noqa: BLE001 (raised by the next write)
            self._failure = error
            while self._queue.get() is not None:  # nobody may wait for room that never comes
                pass
