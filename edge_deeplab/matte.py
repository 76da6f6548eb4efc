"""From a model's answers to an alpha worth compositing with: steady over time, clean at its edges.

    matte = Matte()
    while ...:
        result = model.segment(frame)
        alpha = matte.update(frame, result.logits, seconds)  # float32 (H, W), 0..1

numpy and OpenCV only; any runtime, any app. Costs and gains of each part: docs/demo-webcam.md.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Floats, Frame, Labels, as_color, sigmoid
from edge_deeplab.refine import guided_upsample, small_luma
from edge_deeplab.temporal import Average, FlowCarrier, MotionAverage

GRID = 192
"""Long side of the grid that averaging and filtering work on: three times the network's own answer."""

FLOW = 320
"""Long side of the pictures that motion is measured on."""

SURE = np.float32(6)
"""Logits are cut here (a probability of .9975), or one very sure answer would outlast many others."""


class Matte:
    """Alpha for the frames of one camera or film, one after the other.

    Keeps a memory: one per stream, not to be shared between threads.

    Args:
        smooth: Average over time where the picture rests, with :class:`~edge_deeplab.temporal.MotionAverage`
            or an average of your own.
        refine: Move edges onto the picture's with a guided filter.
    """

    def __init__(self, *, smooth: bool | Average = True, refine: bool = True) -> None:
        self._average = (MotionAverage() if smooth else None) if isinstance(smooth, bool) else smooth
        self._refine = refine
        self._carrier = FlowCarrier()
        self._logits: Floats | None = None
        self._before: Labels
        self._size = (0, 0)

    def update(self, frame: Frame, logits: Floats, seconds: float = 1 / 30) -> Floats:
        """Alpha of a frame that the model has answered.

        Args:
            frame: BGR uint8 (H, W, 3).
            logits: float32 (H, W), see :attr:`~edge_deeplab.runtimes.Segmentation.logits`.
            seconds: Time since the frame before; what it is for the first one does not matter.

        Returns:
            float32 (H, W) in 0..1.

        Raises:
            UserError: Frame and logits differ in size.
        """
        luma = self._luma(frame)
        if logits.shape != luma.shape:
            raise UserError(f"a frame of {luma.shape} cannot have logits of {logits.shape}")
        height, width = _grid(luma, GRID)
        small: Floats = cv2.resize(logits, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        small = np.clip(small, -SURE, SURE)
        if self._average is not None:
            small = self._average.update(small, small_luma(luma, height, width), seconds)
        return self._finish(small, luma)

    def propagate(self, frame: Frame) -> Floats:
        """Alpha of a frame that the model has not seen, from that of the frame before.

        Args:
            frame: BGR uint8 (H, W, 3), the size of the frame before.

        Raises:
            UserError: There is no answer yet that could be carried on.
        """
        luma = self._luma(frame)
        if self._logits is None:
            raise UserError(
                "nothing to propagate yet: the first frame, and one of another size, need a model"
            )
        now = small_luma(luma, *_grid(luma, FLOW))
        return self._finish(self._carrier.carry(self._logits, self._before, now), luma)

    def ready(self, frame: Frame) -> bool:
        """Whether :meth:`propagate` has something to carry on to this frame."""
        return self._logits is not None and frame.shape[:2] == self._size

    def reset(self) -> None:
        """Forget everything, as before the first frame."""
        self._logits = None
        if self._average is not None:
            self._average.reset()

    def _luma(self, frame: Frame) -> Labels:
        luma = cv2.cvtColor(as_color(frame), cv2.COLOR_BGR2GRAY)
        if luma.shape != self._size:
            self.reset()
            self._size = luma.shape
        return luma  # type: ignore[return-value]

    def _finish(self, logits: Floats, luma: Labels) -> Floats:
        self._logits = logits
        self._before = small_luma(luma, *_grid(luma, FLOW))
        if self._refine:
            return guided_upsample(sigmoid(logits), luma)
        size = (luma.shape[1], luma.shape[0])
        return sigmoid(cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR))  # type: ignore[arg-type]


def _grid(luma: Labels, long_side: int) -> tuple[int, int]:
    """(height, width) with the frame's aspect ratio and this long side; never larger than the frame."""
    height, width = luma.shape
    factor = min(1.0, long_side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))
