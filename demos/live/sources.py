"""Where frames come from: cameras, streams, films and folders of pictures, all read alike."""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, pictures_in, read_image

OPEN_MS, READ_MS = 5000, 5000
"""How long a network stream may take to open and to give the next picture."""

RATE = 30.0
"""Frames per second of a film that does not say."""


class Source(ABC):
    """Gives one frame after the other, at the pace of a camera.

    Attributes:
        title: For messages.
        live: It may come back after it has gone: a camera or a stream, not a file.
        rate: Frames per second, as far as it says.
    """

    live = False
    rate = RATE

    def __init__(self, title: str) -> None:
        self.title = title

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, BGR uint8 (H, W, 3), as soon as it is due; None: there is none."""

    def reopen(self) -> bool:
        """Try to get a source back that has gone."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Let go of the device or file."""


class Camera(Source):
    """A camera by its index or device path, a network stream, or a GStreamer pipeline.

    Args:
        text: ``0``, ``/dev/video2``, ``rtsp://…``, ``http://…``, or a pipeline that ends in ``appsink``.
        size: Width and height to ask the camera for.
        rate: Frames per second to ask it for.

    Raises:
        UserError: It does not open, or gives no picture.
    """

    live = True

    def __init__(self, text: str, *, size: tuple[int, int] | None = None, rate: float | None = None) -> None:
        super().__init__(f"camera {text}" if text.isdigit() else text)
        self._text, self._size, self._rate = text, size, rate
        self._capture = cv2.VideoCapture()
        self._first: Frame | None = None
        self.has_end = False
        """What is behind a URL is a film, as long as it is, and no stream."""
        if not self.reopen():
            raise UserError(f"no picture from {self.title}: {_advice(text)}")

    def reopen(self) -> bool:
        """Open it and read a first frame: some cameras open and then give nothing."""
        self._capture.release()
        with quiet():
            self._capture = _capture(self._text)
        for key, value in self._wishes():
            self._capture.set(key, value)
        self.rate = _sane(self._rate or self._capture.get(cv2.CAP_PROP_FPS))
        self.has_end = "://" in self._text and self._capture.get(cv2.CAP_PROP_FRAME_COUNT) > 1
        self._first = self._grab()
        return self._first is not None

    def _wishes(self) -> Iterator[tuple[int, float]]:
        yield cv2.CAP_PROP_BUFFERSIZE, 1  # where the driver would keep old frames for us
        if self._size:
            # Without it most USB cameras send raw frames, and large ones at a few a second.
            yield cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")
            yield cv2.CAP_PROP_FRAME_WIDTH, self._size[0]
            yield cv2.CAP_PROP_FRAME_HEIGHT, self._size[1]
        if self._rate:
            yield cv2.CAP_PROP_FPS, self._rate

    def read(self) -> Frame | None:
        """The next frame; waits for the camera."""
        frame, self._first = self._first, None
        return frame if frame is not None else self._grab()

    def _grab(self) -> Frame | None:
        if not self._capture.isOpened():
            return None
        read, frame = self._capture.read()
        return _three_channels(frame) if read else None

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()


class Film(Source):
    """A video file, played at its own pace as if it were a camera.

    Args:
        path: Anything FFmpeg reads, or its URL.
        rate: Frames per second; by default the film's own.
        loop: Begin again at the end.
    """

    def __init__(self, path: Path | str, *, rate: float | None = None, loop: bool = False) -> None:
        super().__init__(str(path))
        with quiet():
            self._capture = _capture(str(path))
        if not self._capture.isOpened():
            raise UserError(f"cannot read {path}: no film that OpenCV can decode")
        self.rate = rate or _sane(self._capture.get(cv2.CAP_PROP_FPS))
        self._pace = Pace(self.rate)
        self._loop = loop

    def read(self) -> Frame | None:
        """The next frame, decoded when it is due, as a camera's is: the time before is the model's."""
        self._pace.wait()
        read, frame = self._capture.read()
        if not read and self._loop:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            read, frame = self._capture.read()
        return _three_channels(frame) if read else None

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class Pictures(Source):
    """The pictures of a folder, one a second unless told otherwise."""

    def __init__(self, folder: Path, *, rate: float | None = None, loop: bool = False) -> None:
        super().__init__(str(folder))
        pictures = pictures_in(folder)
        self._paths = cycle(pictures) if loop else iter(pictures)
        self.rate = rate or 1.0
        self._pace = Pace(self.rate)

    def read(self) -> Frame | None:
        """The next picture, read when it is due; see :meth:`Film.read`."""
        path = next(self._paths, None)
        if path is None:
            return None
        self._pace.wait()
        return read_image(path)

    def close(self) -> None:
        """Nothing is held open."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from printing pages about what we say in one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = getattr(cv2.utils, "logging", cv2)  # JetPack 5 and Debian 12 have OpenCV before 4.7
    level = logging.getLogLevel()
    logging.setLogLevel(0)  # silent
    try:
        yield
    finally:
        logging.setLogLevel(level)


class Pace:
    """Lets through ``rate`` calls a second; one that comes late goes through at once."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._due: float | None = None

    def wait(self) -> None:
        """Return when the next frame is due; the first one is at once."""
        now = time.perf_counter()
        if self._due is None:
            self._due = now
        if now < self._due:
            time.sleep(self._due - now)
        # Falling behind by more than a frame moves the clock: a camera does not hurry afterwards.
        self._due = max(self._due, now - self._step) + self._step


def open_source(
    text: str, *, size: tuple[int, int] | None = None, rate: float | None = None, loop: bool = False
) -> Source:
    """Open what the user named.

    Args:
        text: A camera's index or device path, a URL, a GStreamer pipeline, a film, or a folder of pictures.
        size: Width and height to ask a camera for.
        rate: Frames per second.
        loop: Films and folders: begin again at the end.

    Raises:
        UserError: It cannot be opened, or has no use for what is asked.
    """
    if text.isdigit() or text.startswith("/dev/") or "://" in text or _is_pipeline(text):
        camera = Camera(text, size=size, rate=rate)
        if not camera.has_end and not loop:
            return camera
        camera.close()
        if not camera.has_end:
            raise UserError(f"--loop is for films and folders; {camera.title} has no beginning")
    elif not Path(text).expanduser().exists():
        raise UserError(
            f"no source {text!r}: neither a camera's number, a file, a folder nor a URL like rtsp://..."
        )
    if size:
        raise UserError(f"--camera-size is for cameras; {text} has the size it has")
    if "://" in text:
        return Film(text, rate=rate, loop=loop)  # a camera's reader would take all of it at once
    path = Path(text).expanduser()
    return Pictures(path, rate=rate, loop=loop) if path.is_dir() else Film(path, rate=rate, loop=loop)


def _is_pipeline(text: str) -> bool:
    return re.search(r"\s!\s.*\bappsink\b", text) is not None


def _capture(text: str) -> cv2.VideoCapture:
    if text.isdigit():
        return cv2.VideoCapture(int(text))
    if "://" in text:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
        return cv2.VideoCapture(text, cv2.CAP_FFMPEG, limits)
    return cv2.VideoCapture(text, cv2.CAP_GSTREAMER if _is_pipeline(text) else cv2.CAP_ANY)


def _advice(text: str) -> str:
    if _is_pipeline(text):
        if "GStreamer:                   YES" not in cv2.getBuildInformation():
            return "this OpenCV was built without GStreamer; on a Jetson use JetPack's own OpenCV"
        return "try the pipeline with gst-launch-1.0 first"
    if "://" in text:
        return "is the address right, and does the stream play in a video player?"
    there = sorted(str(p) for p in Path("/dev").glob("video*"))
    found = f"this computer has {', '.join(there)}" if there else "this computer has no /dev/video*"
    return f"{found}; is it in use by another program, or may you not read it?"


def _sane(rate: float) -> float:
    """Drivers and files that do not know say 0, -1, or thousands."""
    return rate if 1 <= rate <= 1000 else RATE


def _three_channels(frame: Any) -> Frame:
    """Cameras give BGR; some GStreamer pipelines give gray or BGRx."""
    if frame.ndim == 3 and frame.shape[2] == 3:
        return np.asarray(frame, np.uint8)
    gray = frame.ndim == 2 or frame.shape[2] == 1
    return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR if gray else cv2.COLOR_BGRA2BGR)
