"""Polygons and run lengths into masks (numpy and OpenCV)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.imaging import Labels

Points = NDArray[np.float32]
"""Corners of a polygon, (N, 2), x before y."""

FINER = 5
"""Polygons in continuous coordinates are drawn this much finer, an odd number of lines a pixel."""


def fill_polygon(mask: Labels, points: Points, value: int) -> None:
    """Set the pixels of ``mask`` (H, W) whose centres lie in a polygon.

    ``points`` are continuous: pixel (0, 0) reaches from 0 to 1. OpenCV paints the outline as well,
    half a pixel too much all round, so the polygon is drawn finer and sampled at pixel centres.
    """
    height, width = mask.shape
    left, top = np.maximum(np.floor(points.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)), (width, height)).astype(int)
    if right <= left or bottom <= top:
        return
    fine = np.zeros(((bottom - top) * FINER, (right - left) * FINER), np.uint8)
    # OpenCV's coordinates name pixel centres, in 1/16 pixel here.
    corners = np.rint(((points - (left, top)) * FINER - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [corners], 1, shift=4)
    inside = fine[FINER // 2 :: FINER, FINER // 2 :: FINER]
    mask[top:bottom, left:right][inside > 0] = value


def unpack_counts(text: str) -> NDArray[np.int64]:
    """Run lengths from COCO's compressed string.

    Each number is a little-endian string of 5-bit groups, offset by 48 into printable ASCII; bit 5
    says that another group follows, bit 4 of the last group is the sign. From the fourth number on
    the difference to the last run but one is stored.

    Raises:
        ValueError: No such string.
    """
    groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("not a compressed run-length string")
    last = (groups & 32) == 0
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate(([0], ends[:-1]))
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts)
    if place.max() > 9:
        raise ValueError("a run length is too long")
    numbers = np.add.reduceat((groups & 31) << (5 * place), starts)
    negative = (groups[ends - 1] & 16) != 0
    numbers -= np.where(negative, np.int64(1) << (5 * (ends - starts)), 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def mask_from_counts(counts: Sequence[int] | NDArray[np.int64], height: int, width: int) -> Labels:
    """Mask 0/1 uint8 (height, width) from run lengths: off, on, off … down the columns.

    Raises:
        ValueError: The runs do not fill the picture exactly.
    """
    runs = np.asarray(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"run lengths do not add up to {width}x{height} pixels")
    column_wise = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    return np.ascontiguousarray(column_wise.reshape(width, height).T)
