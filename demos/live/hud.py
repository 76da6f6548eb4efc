"""Figures and keys on the picture that is shown; recordings and snapshots stay without them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from edge_deeplab.imaging import Frame

FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(picture: Frame, top: Sequence[str], bottom: Sequence[str]) -> Frame:
    """A copy with lines of text in its upper and lower left corner, on darkened strips.

    The text is sized by the picture, so that it can be read at 320x240 and at 4K.
    """
    shown = picture.copy()
    height, width = shown.shape[:2]
    scale = max(0.4, min(width / 1280, height / 720))
    scale = min([scale, *(_room(line, width, scale) for line in (*top, *bottom))])
    step = round(30 * scale)
    _strip(shown, top, 0, step, scale)
    _strip(shown, bottom, height - step * len(bottom) - step // 2, step, scale)
    return shown


def _room(line: str, width: int, scale: float) -> float:
    """The largest scale at which a line fits."""
    wide = cv2.getTextSize(line, FONT, scale, 1)[0][0] if line else 1
    return scale * min(1.0, (width - 24 * scale) / max(1, wide))


def _strip(shown: Frame, lines: Sequence[str], y: int, step: int, scale: float) -> None:
    if not lines:
        return
    bottom = min(shown.shape[0], y + step * len(lines) + step // 2)
    shown[max(0, y) : bottom] >>= 2
    for number, line in enumerate(lines, start=1):
        at = (round(12 * scale), y + step * number)
        cv2.putText(shown, line, at, FONT, scale, (255, 255, 255), max(1, round(1.6 * scale)), cv2.LINE_AA)
