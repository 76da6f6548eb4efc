"""What else could steady a mask over time: the averages that ``steadiness.py`` puts beside the shipped one.

All take logits and luma on the small grid of :class:`edge_deeplab.matte.Matte`, and give logits.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_deeplab.imaging import Floats, Labels
from edge_deeplab.temporal import MEMORY_S, FlowCarrier


class Plain:
    """Exponential average, the same everywhere.

    Args:
        memory: Time constant in seconds.
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._average: Floats | None = None

    def update(self, logits: Floats, luma: Labels, seconds: float) -> Floats:
        """See :class:`edge_deeplab.temporal.Average`."""
        if self._average is None or self._average.shape != logits.shape:
            self._average = logits.copy()
            return self._average
        self._average = self._average + _gain(seconds, self._memory) * (logits - self._average)
        return self._average

    def reset(self) -> None:
        """Forget everything."""
        self._average = None


class OneEuro:
    """The One-Euro filter on every pixel's logit (Casiez, Roussel, Vogel, CHI 2012).

    An exponential average whose cutoff rises with the speed of the signal itself: it does not look at
    the picture.

    Args:
        cutoff: Hz, where the logit rests.
        beta: Hz of cutoff by logits a second.
        speed_cutoff: Hz, of the average that the speed is taken from.
    """

    def __init__(self, cutoff: float = 0.5, beta: float = 0.05, speed_cutoff: float = 3.0) -> None:
        self._cutoff, self._beta, self._speed_cutoff = cutoff, beta, speed_cutoff
        self._average: Floats | None = None
        self._before: Floats
        self._speed: Floats

    def update(self, logits: Floats, luma: Labels, seconds: float) -> Floats:
        """See :class:`edge_deeplab.temporal.Average`."""
        if self._average is None or self._average.shape != logits.shape:
            self._average, self._before = logits.copy(), logits.copy()
            self._speed = np.zeros_like(logits)
            return self._average
        seconds = max(seconds, 1e-3)
        now = (logits - self._before) * np.float32(1 / seconds)
        self._speed = self._speed + np.float32(_smoothing(self._speed_cutoff, seconds)) * (now - self._speed)
        cutoff = np.float32(self._cutoff) + np.float32(self._beta) * np.abs(self._speed)
        turns = cutoff * np.float32(2 * math.pi * seconds)
        self._average = self._average + turns / (1 + turns) * (logits - self._average)
        self._before = logits.copy()
        return self._average

    def reset(self) -> None:
        """Forget everything."""
        self._average = None


class Flow:
    """Exponential average along the picture's motion (DIS optical flow).

    Where the picture brought along by the flow does not look like the new one, nothing old is kept.

    Args:
        memory: Time constant in seconds.
        doubt: Difference of luma, in gray levels, from which nothing old is kept.
    """

    def __init__(self, memory: float = MEMORY_S, doubt: float = 8.0) -> None:
        self._memory, self._doubt = memory, doubt
        self._carrier = FlowCarrier()
        self._average: Floats | None = None
        self._luma: Labels

    def update(self, logits: Floats, luma: Labels, seconds: float) -> Floats:
        """See :class:`edge_deeplab.temporal.Average`."""
        if self._average is None or self._average.shape != logits.shape:
            self._average, self._luma = logits.copy(), luma
            return self._average
        both = np.dstack([self._average, self._luma.astype(np.float32)])
        carried = self._carrier.carry(both, self._luma, luma)
        unlike = np.abs(cv2.GaussianBlur(carried[..., 1] - luma, (0, 0), 1.0)) / np.float32(self._doubt)
        gain = np.maximum(_gain(seconds, self._memory), np.minimum(unlike, 1)).astype(np.float32)
        self._average = carried[..., 0] + gain * (logits - carried[..., 0])
        self._luma = luma
        return self._average

    def reset(self) -> None:
        """Forget everything."""
        self._average = None


def _gain(seconds: float, memory: float) -> np.float32:
    return np.float32(1 - math.exp(-seconds / memory))


def _smoothing(cutoff: float, seconds: float) -> float:
    turns = 2 * math.pi * cutoff * seconds
    return turns / (1 + turns)
