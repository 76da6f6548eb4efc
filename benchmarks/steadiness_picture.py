"""The picture of ``steadiness.py``: masks of a few frames before and after, and where they flickered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.demos.live.hud import FONT
from edge_deeplab.imaging import Floats, Frame, Labels, write_image

FIRST, COLUMNS = 20, 6
"""The first frame that is shown, and how many one after the other."""

WIDTH = 320
"""Of a frame in the picture."""

FULL = 4.0
"""Summed change of alpha that is drawn in full brightness."""


class Strip:
    """Two rows: each frame on its own, and steadied. Flicker is red, the mask's edge is green.

    Args:
        clip: The film that is shown.
    """

    def __init__(self, clip: str) -> None:
        self._clip = clip
        self._columns: list[Any] = []
        self._heat: Any = 0.0
        self._before: tuple[Floats, Floats] | None = None
        self._count = 0

    def add(self, clip: str, frame: Frame, raw: Floats, steady: Floats, resting: Labels) -> None:
        """Take in a frame of any film."""
        if clip != self._clip:
            return
        changes = [np.zeros_like(raw)] * 2
        if self._before is not None:
            pairs = zip((raw, steady), self._before, strict=True)
            changes = [np.abs(now - before) * resting for now, before in pairs]
        self._heat = self._heat + np.stack(changes)
        if FIRST <= self._count < FIRST + COLUMNS:
            cells = [_cell(frame, a, c) for a, c in zip((raw, steady), changes, strict=True)]
            self._columns.append(np.vstack(cells))
        self._before = raw, steady
        self._count += 1

    def save(self, path: Path) -> None:
        """Write it, if the film was seen."""
        if not self._columns:
            return
        heat = [_small(np.clip(255 * h / FULL, 0, 255).astype(np.uint8)) for h in self._heat]
        heats = np.vstack([cv2.applyColorMap(h, cv2.COLORMAP_INFERNO) for h in heat])
        picture = np.hstack([*self._columns, heats])
        half = picture.shape[0] // 2
        words = f"flicker of {self._count} frames"
        for row, text in enumerate(("each frame on its own", "steadied")):
            cv2.putText(picture, text, (8, half * row + 22), FONT, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
            left = picture.shape[1] - WIDTH + 8
            cv2.putText(picture, words, (left, half * row + 22), FONT, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
        write_image(path, picture)


def _cell(frame: Frame, alpha: Floats, change: Floats) -> Any:
    shown = (0.5 * frame).astype(np.uint8)
    shown[change > 0.05] = (0, 0, 255)
    edges, _ = cv2.findContours((alpha > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, edges, -1, (0, 255, 0), 2)
    return _small(shown)


def _small(picture: Any) -> Any:
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    return cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
