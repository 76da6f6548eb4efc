"""TensorBoard's event file, written in the caller's thread.

``torch.utils.tensorboard.SummaryWriter`` writes in a thread of its own. When the disk is full, that thread
prints a traceback, and the run learns of it one record later. A run writes a few records in a second, so
nothing is lost by waiting for them.
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from edge_deeplab.imaging import Frame


class Board:
    """One event file in ``folder``.

    Args:
        folder: Made where it is missing.
        first: The first step that will be written. Records of it and of later ones in older files of the
            folder are void: the run was killed and does them again.

    Every method raises OSError where the file cannot be written.
    """

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{time.time_ns() % 10**9:09d}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._add(Event(step=first, file_version="brain.Event:2"))
        self._add(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """A point of the curve ``tag``."""
        self._add(Event(step=step, summary=summary.scalar(tag, value)))  # type: ignore[no-untyped-call]

    def image(self, tag: str, picture: Frame, step: int) -> None:
        """A picture, uint8 (H, W, 3) BGR."""
        rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        self._add(Event(step=step, summary=summary.image(tag, rgb, dataformats="HWC")))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Finish the file; it is closed even where its last bytes do not fit."""
        self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._records.flush()
