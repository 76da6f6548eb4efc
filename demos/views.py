"""The modes of the demos: what is made of a frame and its alpha."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_deeplab import composite
from edge_deeplab.demos.live.sources import quiet
from edge_deeplab.demos.options import SIDE_BY_SIDE
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import IMAGE_SUFFIXES, Floats, Frame, read_image

COLORS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "green": (64, 177, 0),
    "blue": (187, 71, 0),
    "sky": (205, 175, 95),
}
"""Names of colours, BGR; green and blue are those of studio screens."""


class Background(ABC):
    """What stands behind the person in mode ``replace``."""

    @abstractmethod
    def at(self, seconds: float, height: int, width: int) -> Frame:
        """The background ``seconds`` after the start, BGR (height, width, 3); not to be written to."""

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Free what it holds."""


class Still(Background):
    """A picture, or a plain colour as a picture of one pixel."""

    def __init__(self, picture: Frame) -> None:
        self._picture = picture
        self._fitted = picture

    def at(self, seconds: float, height: int, width: int) -> Frame:
        """The picture filling the frame."""
        if self._fitted.shape[:2] != (height, width):
            self._fitted = composite.fit(self._picture, height, width)
        return self._fitted


class Film(Background):
    """A film, played over and over."""

    def __init__(self, path: Path) -> None:
        with quiet():
            self._film = cv2.VideoCapture(str(path))
        read, frame = self._film.read()
        if not read:
            raise UserError(f"cannot read {path}: neither a picture nor a film OpenCV can decode")
        rate = self._film.get(cv2.CAP_PROP_FPS)
        self._rate = rate if 1 <= rate <= 240 else 30.0
        self._frame: Frame = frame.astype(np.uint8, copy=False)
        self._shown = 0

    def at(self, seconds: float, height: int, width: int) -> Frame:
        """The film's picture of that moment."""
        wanted = int(seconds * self._rate)
        if wanted - self._shown > self._rate:  # a second behind: jumping is all that is left
            self._shown = wanted - 1
        while self._shown < wanted:
            self._advance()
            self._shown += 1
        return composite.fit(self._frame, height, width)

    def _advance(self) -> None:
        read, frame = self._film.read()
        if not read:
            self._film.set(cv2.CAP_PROP_POS_FRAMES, 0)
            read, frame = self._film.read()
        if read:
            self._frame = frame.astype(np.uint8, copy=False)

    def close(self) -> None:
        """Close the file."""
        self._film.release()


def open_background(text: str) -> Background:
    """A colour (a name or RRGGBB), a picture or a film.

    Raises:
        UserError: None of these.
    """
    name = text.lower().removeprefix("#")
    if name in COLORS:
        return Still(composite.plain(COLORS[name], 1, 1))
    if re.fullmatch(r"[0-9a-f]{6}", name) and not Path(text).exists():
        red, green, blue = bytes.fromhex(name)
        return Still(composite.plain((blue, green, red), 1, 1))
    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(
            f"no background {text!r}: neither a file nor a colour "
            f"({', '.join(COLORS)}, or RRGGBB as in 00b140)"
        )
    return Still(read_image(path)) if path.suffix.lower() in IMAGE_SUFFIXES else Film(path)


class View:
    """A mode with its settings; the mode may change from frame to frame.

    Args:
        mode: One of ``options.MODES``.
        background: For ``replace``.
        strength: Of the blur; 1 is a standard deviation of 1/60 of the frame's long side.
    """

    def __init__(self, mode: str, background: Background, strength: float = 1.0) -> None:
        self._effect = "blur"
        self.mode = mode
        self.background = background
        self.strength = strength

    @property
    def mode(self) -> str:
        """One of ``options.MODES``; ``side-by-side`` shows the mode before it beside the camera's picture."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = mode
        if mode != SIDE_BY_SIDE:
            self._effect = mode

    def __call__(self, frame: Frame, alpha: Floats, seconds: float = 0.0) -> Frame:
        """The picture to show, BGR (H, W, 3), or (H, 2W, 3) side by side."""
        result = EFFECTS[self._effect](self, frame, alpha, seconds)
        return composite.side_by_side(frame, result) if self.mode == SIDE_BY_SIDE else result

    def blur(self, frame: Frame, alpha: Floats, _: float) -> Frame:
        """Background out of focus."""
        return composite.blur_background(frame, alpha, strength=self.strength)

    def replace(self, frame: Frame, alpha: Floats, seconds: float) -> Frame:
        """Another background."""
        return composite.replace_background(frame, alpha, self.background.at(seconds, *frame.shape[:2]))

    def cutout(self, frame: Frame, alpha: Floats, _: float) -> Frame:
        """The person in front of gray squares."""
        return composite.show_cut_out(frame, alpha)

    def mask(self, frame: Frame, alpha: Floats, _: float) -> Frame:
        """The alpha in shades of gray."""
        return composite.show_mask(frame, alpha)


EFFECTS: dict[str, Callable[[View, Frame, Floats, float], Frame]] = {
    "blur": View.blur,
    "replace": View.replace,
    "cutout": View.cutout,
    "mask": View.mask,
}
"""Mode -> what makes its picture; ``side-by-side`` puts one of these beside the frame."""
