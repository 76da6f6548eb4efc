"""Films for the tests of the demos: a bright disc that walks over a dark wall, made on the spot."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import Frame

av: Any = pytest.importorskip("av", reason="PyAV is not installed")


def frame(number: int, height: int = 120, width: int = 160) -> Frame:
    """The toy model takes bright pixels for people."""
    picture = np.full((height, width, 3), (60, 40, 30), np.uint8)
    x = width // 4 + 2 * number % (width // 2)
    cv2.circle(picture, (x, height // 2), height // 4, (235, 230, 240), -1)
    return picture


def make_film(
    path: Path,
    frames: int = 12,
    *,
    rate: int = 30,
    size: tuple[int, int] = (120, 160),
    sound: str = "",
    begin: float = 0.0,
    aspect: Fraction | None = None,
) -> Path:
    """Write a film without the code under test.

    Args:
        path: ``.mp4``, ``.mkv``, ``.ts`` or ``.avi``.
        frames, rate: Length and frames per second.
        size: Height and width.
        sound: Encoder of a 440 Hz tone, e.g. ``aac``; "" for a silent film.
        begin: Seconds at which its clock begins.
        aspect: Of its pixels, width by height; None for a film that does not say.
    """
    with av.open(str(path), "w", options={"output_ts_offset": str(begin)}) as container:
        video = container.add_stream("libx264" if path.suffix != ".avi" else "mpeg4", rate=rate)
        video.height, video.width, video.pix_fmt = *size, "yuv420p"
        video.codec_context.gop_size = 15
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        audio = container.add_stream(sound, rate=48_000, layout="mono") if sound else None
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(frame(number, *size), format="bgr24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio:
            for begin in range(0, 48_000 * frames // rate, 960):
                times = np.arange(begin, begin + 960) / 48_000
                wave = (8000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)[None]
                block = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                block.sample_rate, block.pts = 48_000, begin
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def frames_of(path: Path, *, until_broken: bool = False) -> list[Frame]:
    """All frames of a film, BGR; with ``until_broken`` those before the first that cannot be decoded."""
    found: list[Frame] = []
    with av.open(str(path)) as container, suppress(*[av.error.FFmpegError] * until_broken):
        found.extend(picture.to_ndarray(format="bgr24") for picture in container.decode(video=0))
    return found


def turn(path: Path, degrees: int) -> None:
    """Note down in an MP4 that it is to be shown turned clockwise, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix follows version, times, id, duration, layer and volume
    one = 1 << 16
    cos, sin = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    matrix = [cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(int(value).to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(bytes(data))
