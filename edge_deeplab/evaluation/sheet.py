"""Pictures of what a model sees: photo, truth and answer side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_deeplab.data import Split
from edge_deeplab.data.sheet import tinted
from edge_deeplab.evaluation import Segment
from edge_deeplab.imaging import Frame, Labels, resize_frame

TILE = 240
"""Longest side of a photo on a sheet, in pixels."""

CAPTION = 18


@dataclass(frozen=True)
class Shown:
    """A picture of a split to show, and the words under it."""

    split: Split
    index: int
    caption: str


def sheet(segment: Segment, shown: Sequence[Shown], *, columns: int = 2) -> Frame:
    """Photo, truth and answer of every picture, ``columns`` pictures a row.

    Ignored pixels of the truth are darkened.

    Returns:
        BGR uint8 (H, W, 3).
    """
    rows = [_triple(segment, each) for each in shown]
    height, width = (max(row.shape[side] for row in rows) for side in (0, 1))
    tiles = []
    for row, each in zip(rows, shown, strict=True):
        tile = np.full((height + CAPTION, width + 10, 3), 255, np.uint8)
        tile[: row.shape[0], : row.shape[1]] = row
        plain = each.caption.encode("ascii", "replace").decode()  # OpenCV's font has no other letters
        cv2.putText(
            tile, plain, (2, height + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA
        )
        tiles.append(tile)
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)])


def _triple(segment: Segment, shown: Shown) -> Frame:
    image, truth = shown.split.read(shown.index)
    labels = segment(image)
    factor = TILE / max(truth.shape)
    size = max(1, round(truth.shape[0] * factor)), max(1, round(truth.shape[1] * factor))
    small = resize_frame(image, *size)
    painted = (tinted(small, _resized(ids, size), shown.split.classes) for ids in (truth, labels))
    return np.hstack([small, *painted])


def _resized(labels: Labels, size: tuple[int, int]) -> Labels:
    return np.asarray(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
