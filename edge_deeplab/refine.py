"""Clean edges: a coarse mask takes the contours of the picture it belongs to.

The network answers at a quarter of its input's resolution; enlarged to the frame, its contour cuts
corners by a few pixels. The guided filter (He, Sun, Tang, ECCV 2010) fits in every window a line from
luma to mask, so the mask's edge moves onto the picture's. In its fast form (He, Sun, arXiv:1505.00996)
the lines are fitted on a small grid and only their coefficients are enlarged, which makes the cost all
but independent of the window. numpy and OpenCV only.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from edge_deeplab.imaging import Floats, Labels

RADIUS = 2
"""Half the window on the small grid, chosen on validation pictures (``benchmarks/edges.py``)."""

EPSILON = 1e-3
"""Variance of the luma (0..1) below which a window counts as flat and the mask is only smoothed."""

CONTRAST = 2.0
"""How much steeper the alpha gets around 0.5: the windows widen an edge, this narrows it again."""


def guided_upsample(mask: Floats, luma: Labels, *, radius: int = RADIUS, epsilon: float = EPSILON) -> Floats:
    """Enlarge a mask so that its edges follow the picture's.

    Where the mask is sure of person or background it stays as it is: a bright badge on a dark shirt is
    an edge of the picture, but none of the person.

    Args:
        mask: float32 (h, w) in 0..1, smaller than the picture or as large.
        luma: The picture's luma, uint8 (H, W), of the same aspect ratio.
        radius: Half the window in pixels of ``mask``.
        epsilon: See :data:`EPSILON`.

    Returns:
        float32 (H, W) in 0..1.
    """
    slope, offset = _lines(mask, luma, radius, epsilon)
    # The contrast is a line, too: applied to the small coefficients it costs nothing at full size.
    slope *= np.float32(CONTRAST / 255)
    offset = (offset - np.float32(0.5)) * np.float32(CONTRAST) + np.float32(0.5)
    size = (luma.shape[1], luma.shape[0])
    alpha: Any = cv2.multiply(cv2.resize(slope, size), luma.astype(np.float32))
    alpha += cv2.resize(offset, size)
    return np.clip(alpha, 0, 1, out=alpha)


def _lines(mask: Floats, luma: Labels, radius: int, epsilon: float) -> tuple[Floats, Floats]:
    """Slope and offset of every window's line from luma (0..1) to mask, both float32 (h, w)."""
    guide = small_luma(luma, mask.shape[0], mask.shape[1]).astype(np.float32)
    guide *= np.float32(1 / 255)

    def mean(values: Any) -> Any:
        return cv2.blur(values, (2 * radius + 1, 2 * radius + 1))

    mean_guide, mean_mask = mean(guide), mean(mask)
    covariance = mean(guide * mask) - mean_guide * mean_mask
    variance = mean(guide * guide) - mean_guide * mean_guide
    slope = covariance / (variance + np.float32(epsilon))
    offset = mean_mask - slope * mean_guide
    unsure = 4 * mean_mask * (1 - mean_mask)  # 1 on the contour, 0 inside and outside
    return unsure * mean(slope), mask + unsure * (mean(offset) - mask)


def small_luma(luma: Labels, height: int, width: int) -> Labels:
    """The luma on a smaller grid, area-averaged: uint8 (height, width)."""
    if luma.shape == (height, width):
        return luma
    return cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
