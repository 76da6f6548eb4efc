"""Films whose true masks are known: people of labelled photos, moved in front of their own background.

The person goes to and fro and rests in between; every frame has fresh sensor noise and a slightly other
exposure. What the person uncovers is filled in from around it. Not a real film: nothing bends, and the light
stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, Labels

HEIGHT, WIDTH = 480, 640

SWAY = 70
"""Pixels to either side."""

NOISE = 2.0
"""Standard deviation, gray levels: a webcam in a lit room."""

EXPOSURE = 0.01
"""Standard deviation of the brightness from frame to frame."""


def photos(folder: Path, count: int) -> list[tuple[Frame, Labels]]:
    """Labelled photos, evenly spread over a val split: those whose person is not cut by the photo's sides.

    Raises:
        UserError: There are none.
    """
    split = open_split(f"folder:{folder}", "val")
    pairs = (split.read(index) for index in range(len(split)))
    whole = [(photo, person) for photo, person in pairs if not person[:, [0, -1]].any()]
    if not whole:
        raise UserError(f"every person in {folder} is cut by the photo's side")
    return whole[:: max(1, len(whole) // count)][:count]


def path_at(seconds: float) -> float:
    """Where the person is, -1..1: a second's way from one side to the other, a second's rest, and back."""
    phase = seconds % 4
    swing = phase if phase < 1 else 1.0 if phase < 2 else 3 - phase if phase < 3 else 0.0
    return float(-np.cos(np.pi * swing))


def film(photo: Frame, person: Labels, frames: int, rate: float = 30.0) -> Iterator[tuple[Frame, Labels]]:
    """Frames, BGR uint8 (480, 640, 3), and their true masks, uint8 0 or 1 (480, 640)."""
    size = (round(photo.shape[1] * HEIGHT / photo.shape[0]), HEIGHT)
    photo = cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    person = cv2.resize(person, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
    wall = _widened(_without(photo, person), cv2.BORDER_REFLECT)
    photo, person = _widened(photo, cv2.BORDER_REPLICATE), _widened(person, cv2.BORDER_CONSTANT)
    soft = cv2.GaussianBlur(person.astype(np.float32), (0, 0), 1.0)
    random = np.random.default_rng(0)
    for number in range(frames):
        move = np.array([[1, 0, SWAY * path_at(number / rate)], [0, 1, 0]], np.float32)
        moved, alpha, truth = (_shifted(layer, move) for layer in (photo, soft, person))
        frame: Any = alpha[..., None] * moved + (1 - alpha[..., None]) * wall
        frame = frame * random.normal(1, EXPOSURE) + random.normal(0, NOISE, frame.shape)
        yield np.clip(frame, 0, 255).astype(np.uint8), truth


def _shifted(layer: Any, move: Any) -> Any:
    how = cv2.INTER_NEAREST if layer.dtype == np.uint8 and layer.ndim == 2 else cv2.INTER_LINEAR
    return cv2.warpAffine(layer, move, (WIDTH, HEIGHT), flags=how)


def _widened(layer: Any, how: int) -> Any:
    left = (WIDTH - layer.shape[1]) // 2
    return cv2.copyMakeBorder(layer, 0, 0, left, WIDTH - layer.shape[1] - left, how)


def _without(photo: Frame, person: Labels) -> Frame:
    """The photo with the person painted over from around it."""
    hole = cv2.dilate(person, np.ones((25, 25), np.uint8))
    small = cv2.resize(photo, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(hole, small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    filled = cv2.resize(cv2.inpaint(small, small_hole, 5, cv2.INPAINT_TELEA), photo.shape[1::-1])
    edge = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 4)[..., None]
    return (edge * filled + (1 - edge) * photo).astype(np.uint8)
