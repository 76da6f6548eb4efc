"""Steady masks: what a stream of frames knows and a single frame does not. numpy and OpenCV only.

Both parts work on small grids of logits, not on masks at the frame's size: a network's answer holds no
more detail than that, and averaging logits moves an edge where averaging probabilities blurs it.
What was tried, and why this was chosen: ``benchmarks/steadiness.py`` and docs/demo-webcam.md.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import cv2
import numpy as np

from edge_deeplab.imaging import Floats, Labels

MEMORY_S = 0.3
"""Time constant of the average where nothing moves, seconds."""

LINGER_S = 0.1
"""Time constant with which a place that moved is trusted to rest again, seconds."""

STILL, MOVING = 2.0, 4.0
"""Change of the smoothed luma, in gray levels: up to the first a place rests, from the second it moves."""

REACH = 9
"""Pixels of the grid across which motion is spread: the network looks around itself, too."""


class Average(Protocol):
    """Turns the answers of single frames into steady ones."""

    def update(self, logits: Floats, luma: Labels, seconds: float) -> Floats:
        """Take in one frame, see :meth:`MotionAverage.update`."""

    def reset(self) -> None:
        """Forget everything, as before the first frame."""


class MotionAverage:
    """Average over time where the picture rests; the newest value where it moves.

    A plain exponential average removes flicker and leaves a trail behind a moving hand. Here the gain
    depends on how much the luma around a pixel changed since the frame before: at rest a few
    hundredths, in motion exactly 1, so that nothing old is left where something moved.
    """

    def __init__(self) -> None:
        self._average: Floats | None = None
        self._luma: Floats
        self._motion: Floats

    def update(self, logits: Floats, luma: Labels, seconds: float) -> Floats:
        """Take in one frame.

        Args:
            logits: float32 (h, w).
            luma: uint8 (h, w), the frame's luma on the same grid.
            seconds: Time since the frame before; less than 0, as where films were spliced, counts as 0.

        Returns:
            The average, float32 (h, w).
        """
        seconds = max(0.0, seconds)
        smooth = cv2.GaussianBlur(luma, (0, 0), 1.0).astype(np.float32)
        if self._average is None or self._average.shape != logits.shape:
            self._average, self._luma = logits.copy(), smooth
            self._motion = np.zeros_like(smooth)
            return self._average
        motion = _motion(smooth, self._luma)
        np.maximum(motion, self._motion * np.float32(math.exp(-seconds / LINGER_S)), out=motion)
        rest = 1 - math.exp(-seconds / MEMORY_S)
        gain = np.float32(rest) + np.float32(1 - rest) * motion
        self._average = self._average + gain * (logits - self._average)
        self._luma, self._motion = smooth, motion
        return self._average

    def reset(self) -> None:
        """Forget everything, as before the first frame."""
        self._average = None


def _motion(now: Floats, before: Floats) -> Floats:
    """How surely a place moved, float32 (h, w) in 0..1."""
    change = now - before
    # A camera that adjusts its exposure changes every pixel; that is no motion.
    change -= np.median(change[::4, ::4])
    motion = (np.abs(change) - np.float32(STILL)) * np.float32(1 / (MOVING - STILL))
    np.clip(motion, 0, 1, out=motion)
    return cv2.dilate(motion, np.ones((REACH, REACH), np.uint8))  # type: ignore[return-value]


class FlowCarrier:
    """Carries an answer from frame to frame along the motion of the picture (DIS optical flow).

    For devices on which the network cannot answer every frame. Kroeger et al., ECCV 2016.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._grid = np.zeros((0, 0, 2), np.float32)

    def carry(self, values: Floats, before: Labels, now: Labels) -> Floats:
        """Move ``values`` as the picture moved.

        Args:
            values: float32 (h, w) or (h, w, C) that belong to the frame before.
            before, now: Luma of both frames, uint8 (H, W), the same size; it may differ from (h, w).

        Returns:
            float32, the shape of ``values``, that belong to the frame now.
        """
        height, width = values.shape[:2]
        # Backwards: where in the frame before does each pixel of this one come from?
        flow: Any = self._flow.calc(now, before, None)  # type: ignore[call-overload]
        scale = np.array([width / now.shape[1], height / now.shape[0]], np.float32)
        if flow.shape[:2] != (height, width):
            flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA)
        if self._grid.shape[:2] != (height, width):
            self._grid = np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
        source = self._grid + flow * scale
        return cv2.remap(  # type: ignore[call-overload]
            values, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
