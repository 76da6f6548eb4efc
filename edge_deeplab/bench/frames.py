"""The frames that go in: a job carries them as JPEG or PNG in base64, so nothing else need be copied."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import IMAGE_SUFFIXES, Frame, pictures_in, read_image, resize_frame

COUNT = 8
"""Frames in a job, at most: enough that no model sees the same one twice in a row, little to carry."""

QUALITY = 92

VIDEO_SUFFIXES = (".mkv", ".mp4", ".avi", ".mov", ".webm")


def frames_from(source: Path, height: int, width: int) -> tuple[str, ...]:
    """Frames of a picture, a video, or a folder of either, for :attr:`Job.frames`.

    A picture is cropped to the frame's aspect ratio around its centre and resized. A single picture is
    used four times: as it is, mirrored, and both a little closer. A video gives frames spread over its
    whole length, a folder of videos the first frame of each.

    Raises:
        UserError: Unreadable, or no picture and no video.
    """
    if source.is_dir():
        clips = sorted(p for p in source.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
        pictures = [_video(clip, 1)[0] for clip in clips[:COUNT]]
        pictures = pictures or [read_image(path) for path in pictures_in(source)[:COUNT]]
    elif source.suffix.lower() in IMAGE_SUFFIXES:
        photo = read_image(source)
        pictures = [view for p in (photo, _closer(photo)) for view in (p, p[:, ::-1])]
    else:
        pictures = _video(source, COUNT)
    return tuple(encode(_cover(picture, height, width)) for picture in pictures)


def encode(frame: Frame) -> str:
    """BGR uint8 (H, W, 3) -> JPEG in base64."""
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(data.tobytes()).decode()


def decode(frames: Sequence[str]) -> list[Frame]:
    """The frames of a job, BGR uint8 (H, W, 3) each.

    Raises:
        UserError: There are none, one is no picture, or their sizes differ.
    """
    found: list[Frame] = []
    for text in frames:
        try:
            image: Any = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
        except (ValueError, cv2.error):
            image = None
        if image is None:
            raise UserError(f"frame {len(found)} of the job is no picture")
        found.append(image)
    if len({frame.shape for frame in found}) != 1:
        raise UserError("a job needs frames, all of one size")
    return found


def _cover(picture: Frame, height: int, width: int) -> Frame:
    """The largest centred part of the frame's aspect ratio, at the frame's size."""
    h, w = picture.shape[:2]
    factor = min(h / height, w / width)
    inner_h, inner_w = min(h, round(height * factor)), min(w, round(width * factor))
    top, left = (h - inner_h) // 2, (w - inner_w) // 2
    return resize_frame(picture[top : top + inner_h, left : left + inner_w], height, width)


def _closer(photo: Frame) -> Frame:
    h, w = photo.shape[:2]
    return photo[h // 10 : h - h // 10, w // 10 : w - w // 10]


def _video(path: Path, count: int) -> list[Frame]:
    if not path.is_file():
        raise UserError(f"no frames in {path}: no such file; give a picture, a folder of them, or a video")
    clip = cv2.VideoCapture(str(path))
    try:
        length = int(clip.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = set(np.linspace(0, max(0, length - 1), count).astype(int).tolist())
        found: list[Frame] = []
        for index in range(max(1, length)):
            read, frame = clip.read()
            if not read:
                break
            if index in wanted:
                found.append(frame.astype(np.uint8, copy=False))
                if len(found) == count:
                    break
    finally:
        clip.release()
    if not found:
        raise UserError(f"cannot read {path}: neither a picture nor a video that OpenCV decodes")
    return found
