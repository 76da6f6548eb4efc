"""A Chromium whose camera shows a film, driven by Playwright: for the browser demo's benchmark and tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, read_image

SAMPLE = Path(__file__).resolve().parents[1] / "export" / "sample.jpg"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """A Chromium of the system, if any; $EDGE_DEEPLAB_CHROMIUM names another one."""
    return os.environ.get("EDGE_DEEPLAB_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def camera_flags(film: Path) -> tuple[str, ...]:
    """What makes ``film`` the camera; pages still have to be granted its use."""
    return "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"


def read_film(path: Path, count: int, *, every: int = 1) -> list[Frame]:
    """Some frames of a film, BGR.

    Raises:
        UserError: OpenCV cannot read it.
    """
    capture = cv2.VideoCapture(str(path))
    frames = []
    for index in range(count * every):
        there, frame = capture.read()
        if not there:
            break
        if index % every == 0:
            frames.append(np.asarray(frame, np.uint8))
    capture.release()
    if not frames:
        raise UserError(f"cannot read {path}: not a film that OpenCV can decode")
    return frames


def moving_sample(count: int) -> list[Frame]:
    """The packaged photo, its person wandering from side to side: BGR 640x480."""
    photo = cv2.resize(read_image(SAMPLE), (800, 800), interpolation=cv2.INTER_AREA)
    lefts = (80 + 80 * np.sin(np.linspace(0, 2 * np.pi, count, endpoint=False))).astype(int)
    return [np.ascontiguousarray(photo[60:540, left : left + 640], np.uint8) for left in lefts]


def write_y4m(path: Path, frames: Sequence[Frame], *, rate: int = 30) -> Path:
    """Write a film that Chromium takes for a camera; it plays in a loop. Sides must be even."""
    height, width = frames[0].shape[:2]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in frames:
            file.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())
    return path
