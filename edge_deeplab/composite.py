"""A frame and its alpha -> the picture that is shown: blurred or replaced background, cut-out, mask.

All take and return BGR uint8; alpha is float32 (H, W) in 0..1. Blurred things are computed on a small
picture and enlarged, so the cost of a blur hardly grows with the frame. numpy and OpenCV only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Floats, Frame, alpha_image, as_color

SMALL = 240
"""Long side of the pictures that are blurred."""

BAND = 1 / 48
"""Radius in which the colours of person and background are gathered at an edge, of the long side."""

CHECKER = (204, 238)
"""The two grays behind a cut-out."""


# -- backgrounds -------------------------------------------------------------------------------


def blur_background(frame: Frame, alpha: Floats, *, strength: float = 1.0) -> Frame:
    """The frame with its background out of focus and no halo around the person.

    A plain blur would carry the person's colours outwards, and they would shine around the contour.
    This one is normalised (Knutsson, Westin, CVPR 1993): blur(weight x frame) / blur(weight), with a
    weight of 0 on the person, so that only background is averaged.

    Args:
        frame: BGR uint8 (H, W, 3).
        alpha: float32 (H, W), 1 = person.
        strength: 1 blurs with a standard deviation of 1/60 of the frame's long side.
    """
    _check(frame, alpha)
    small, small_alpha = _small(frame), _small(alpha)
    # Nothing that is an eighth person counts; the floor fills the middle of large people.
    weight = np.clip(1 - 8 * small_alpha, np.float32(1e-4), 1)
    sigma = max(0.3, strength * max(small.shape[:2]) / 60)
    total = cv2.GaussianBlur(weight, (0, 0), sigma)
    colors = cv2.GaussianBlur(small.astype(np.float32) * weight[..., None], (0, 0), sigma)
    colors /= total[..., None]
    return blend(frame, _enlarge(_bytes(colors), frame), alpha)


def replace_background(frame: Frame, alpha: Floats, background: Frame, *, wrap: float = 0.5) -> Frame:
    """The person in front of another picture.

    Args:
        frame: BGR uint8 (H, W, 3).
        alpha: float32 (H, W), 1 = person.
        background: BGR uint8 (H, W, 3), see :func:`fit`.
        wrap: How much of the new background's light falls around the person's edges, 0..1.

    Raises:
        UserError: The background has another size.
    """
    _check(frame, alpha)
    if background.shape != frame.shape:
        raise UserError(f"a background for {frame.shape} cannot be {background.shape}; see composite.fit")
    person = unmix(frame, alpha)
    if wrap > 0:
        person = _light_wrap(person, alpha, background, wrap)
    return blend(person, background, alpha)


def fit(picture: Frame, height: int, width: int) -> Frame:
    """Fill (height, width) with a picture of any size: scaled evenly, centred, cut at two sides."""
    picture = as_color(picture)
    factor = max(height / picture.shape[0], width / picture.shape[1])
    inner_h, inner_w = round(height / factor), round(width / factor)
    top, left = (picture.shape[0] - inner_h) // 2, (picture.shape[1] - inner_w) // 2
    part = picture[top : top + max(1, inner_h), left : left + max(1, inner_w)]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(part, (width, height), interpolation=how)  # type: ignore[return-value]


def plain(color: tuple[int, int, int], height: int, width: int) -> Frame:
    """A background of one colour, BGR."""
    return np.full((height, width, 3), color, np.uint8)


@lru_cache(maxsize=4)
def checkerboard(height: int, width: int) -> Frame:
    """The gray squares that stand for transparency; kept, so not to be written to."""
    side = max(4, max(height, width) // 48)
    odd = (np.arange(height)[:, None] // side + np.arange(width) // side) % 2
    board = np.repeat(np.array(CHECKER, np.uint8)[odd][..., None], 3, axis=2)
    board.flags.writeable = False
    return board


# -- other views -------------------------------------------------------------------------------


def cut_out(frame: Frame, alpha: Floats) -> Frame:
    """BGRA uint8 (H, W, 4): the person's own colours, without what shone through from behind."""
    _check(frame, alpha)
    return np.dstack([unmix(frame, alpha), alpha_image(alpha)])


def show_cut_out(frame: Frame, alpha: Floats) -> Frame:
    """The cut-out in front of gray squares, BGR."""
    _check(frame, alpha)
    return blend(unmix(frame, alpha), checkerboard(*alpha.shape), alpha)


def show_mask(frame: Frame, alpha: Floats) -> Frame:
    """The alpha in shades of gray, BGR; the frame gives only its size."""
    _check(frame, alpha)
    return cv2.cvtColor(alpha_image(alpha), cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]


def side_by_side(frame: Frame, result: Frame) -> Frame:
    """Before and after, (H, 2W, 3)."""
    return np.hstack([frame, result])


# -- parts -------------------------------------------------------------------------------------


def blend(person: Frame, background: Frame, alpha: Floats) -> Frame:
    """alpha x person + (1 - alpha) x background, rounded."""
    return cv2.blendLinear(person, background, alpha, 1 - alpha)  # type: ignore[return-value]


def unmix(frame: Frame, alpha: Floats) -> Frame:
    """The person's own colours: at an edge a pixel mixes person and background, here it does not.

    One round of the approximation by Forte (arXiv:2006.14970): averages of what is surely person and
    surely background around a pixel, corrected by what their mixture leaves of the pixel itself.
    Pixels that are wholly person or background are not touched.
    """
    mixed = np.flatnonzero(cv2.inRange(alpha, 0.004, 0.996) > 0)
    if not mixed.size:
        return frame
    small, small_alpha = _small(frame).astype(np.float32), _small(alpha)
    side = 2 * max(1, round(BAND * max(small.shape[:2]))) + 1
    person = _average(small, 4 * small_alpha - 3, side)
    background = _average(small, 1 - 4 * small_alpha, side)
    rows, columns = np.divmod(mixed, alpha.shape[1])
    a = alpha[rows, columns][:, None]
    # Where in the small pictures, at the nearest pixel: both are smooth.
    r = (rows * (small.shape[0] / frame.shape[0])).astype(np.intp)
    c = (columns * (small.shape[1] / frame.shape[1])).astype(np.intp)
    p, b = person[r, c], background[r, c]
    colors = p + a * (frame[rows, columns] - a * p - (1 - a) * b)
    result = frame.copy()
    result[rows, columns] = _bytes(colors)
    return result


def _light_wrap(person: Frame, alpha: Floats, background: Frame, amount: float) -> Frame:
    """The background's light on the rim of the person, strongest at the contour."""
    small_alpha = _small(alpha)
    sigma = max(0.3, BAND * max(small_alpha.shape))
    rim = cv2.GaussianBlur(1 - small_alpha, (0, 0), sigma)
    rim = np.maximum(rim - np.float32(0.01), 0) * np.float32(amount)  # and nothing of the Gaussian's tail
    light = cv2.GaussianBlur(_small(background), (0, 0), 2 * sigma)
    size = (person.shape[1], person.shape[0])
    rim = cv2.resize(rim, size, interpolation=cv2.INTER_LINEAR)
    return cv2.blendLinear(_enlarge(light, person), person, rim, 1 - rim)  # type: ignore[return-value]


def _average(colors: Floats, weight: Floats, side: int) -> Floats:
    """Weighted mean of the colours in a window; of everything in it where no weight is above 0."""
    weight = np.maximum(weight, np.float32(1e-3))
    total: Any = cv2.blur(weight, (side, side))
    return cv2.blur(colors * weight[..., None], (side, side)) / total[..., None]


def _small(image: Any) -> Any:
    """Shrunk to a long side of ``SMALL``, area-averaged; (H, W) or (H, W, C), dtype kept."""
    factor = SMALL / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _enlarge(small: Frame, frame: Frame) -> Frame:
    size = (frame.shape[1], frame.shape[0])
    return cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _bytes(colors: Floats) -> Frame:
    """Rounded and kept within 0..255."""
    return cv2.convertScaleAbs(np.maximum(colors, 0))  # type: ignore[return-value]


def _check(frame: Frame, alpha: Floats) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise UserError(f"a frame must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
    if alpha.shape != frame.shape[:2] or alpha.dtype != np.float32:
        raise UserError(
            f"the alpha of a frame {frame.shape} must be float32 {frame.shape[:2]}, "
            f"not {alpha.dtype} {alpha.shape}"
        )
