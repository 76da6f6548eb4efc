"""The README's pictures, made anew: ``python -m edge_deeplab.demos.readme_pictures`` (``make pictures``).

Both pictures they are made of arrive with scikit-image and are in the public domain: NASA's portrait of
Eileen Collins, and the Hubble Deep Field. What is shown is what the shipped ``portrait`` and the code of the
webcam demo make of them.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.cli.arguments import bar
from edge_deeplab.demos.live.hud import FONT
from edge_deeplab.demos.views import Still, View
from edge_deeplab.errors import needs
from edge_deeplab.files import write_bytes
from edge_deeplab.imaging import Floats, Frame, encode_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime, open_model

MODEL = "portrait"

PANEL = 320, 250
"""Width and height of a picture in the strip."""

HEIGHT, WIDTH = 300, 400
"""Of the clip."""

RATE, SECONDS = 15, 1.4
"""Frames per second of the clip, and how long each mode is shown."""

STRENGTH = 1.5
"""Of the blur: these pictures are looked at small."""


class Modes:
    """What the demo makes of a frame, by name; ``camera`` is the frame itself.

    Args:
        background: For ``replace``.
    """

    def __init__(self, background: Frame) -> None:
        self._background = Still(background)
        self.names = ("camera", "mask", "blur", "replace", "cutout")

    def show(self, name: str, frame: Frame, alpha: Floats) -> Frame:
        """The frame in this mode."""
        return frame if name == "camera" else View(name, self._background, STRENGTH)(frame, alpha)


def strip(model: Runtime, photo: Frame, modes: Modes) -> Frame:
    """Before, and what each mode makes of it."""
    top = photo[: round(photo.shape[1] * PANEL[1] / PANEL[0])]
    alpha = Matte(smooth=False).update(top, model.segment(top).logits)
    shown = [modes.show(name, top, alpha) for name in modes.names]
    small = [cv2.resize(picture, PANEL, interpolation=cv2.INTER_AREA) for picture in shown]
    return np.hstack([_titled(p, name) for p, name in zip(small, modes.names, strict=True)])


def clip(model: Runtime, photo: Frame, modes: Modes) -> Iterator[Frame]:
    """The photo before a swaying camera; every mode comes in from the left, across the one before."""
    matte = Matte()
    each = round(RATE * SECONDS)
    count = each * len(modes.names)
    for number in bar(range(count), unit="frame"):
        frame = _swaying(photo, number / count)
        alpha = matte.update(frame, model.segment(frame).logits, 1 / RATE)
        index, step = divmod((number + (each + 1) // 2) % count, each)  # whole from half of its time
        new, old = (modes.show(modes.names[k], frame, alpha) for k in (index, index - 1))
        edge = round(WIDTH * min(1.0, 2 * step / each))
        shown = np.hstack([new[:, :edge], old[:, edge:]])
        if 0 < edge < WIDTH:
            shown[:, max(0, edge - 1) : edge + 1] = 255
        yield _titled(shown, modes.names[index])


def _swaying(photo: Frame, phase: float) -> Frame:
    """A part of the photo at the clip's size; ``phase`` 0..1 is once to and fro, so that it can loop."""
    angle = 2 * np.pi * phase
    scale = photo.shape[1] / WIDTH * (0.86 + 0.04 * np.cos(2 * angle))
    room = photo.shape[1] - scale * WIDTH
    left, top = room * (0.5 + 0.5 * np.sin(angle)), photo.shape[0] * 0.02
    move = np.array([[scale, 0, left], [0, scale, top]], np.float32)
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photo, move, (WIDTH, HEIGHT), flags=flags)  # type: ignore[return-value]


def _titled(picture: Any, text: str) -> Any:
    titled = picture.copy()
    titled[:24, : 16 + 10 * len(text)] >>= 2
    cv2.putText(titled, text, (8, 17), FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return titled


def animated(frames: Iterator[Frame], quality: int = 80) -> bytes:
    """An endless WebP."""
    with needs("demo"):
        from PIL import Image
    pictures = [Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)) for frame in frames]
    file = io.BytesIO()
    pictures[0].save(
        file, "WEBP", save_all=True, append_images=pictures[1:], duration=round(1000 / RATE), loop=0,
        quality=quality, method=4,
    )  # fmt: skip
    return file.getvalue()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"), metavar="DIR")
    folder = parser.parse_args().output
    with needs("demo"):
        from skimage import data
    pictures: list[Any] = [data.astronaut(), data.hubble_deep_field()]  # type: ignore[no-untyped-call]
    photo, sky = (np.ascontiguousarray(picture[..., ::-1]) for picture in pictures)
    modes = Modes(sky)
    with open_model(MODEL) as model:
        write_bytes(folder / "modes.jpg", encode_image("modes.jpg", strip(model, photo, modes)))
        write_bytes(folder / "modes.webp", animated(clip(model, photo, modes)))
    for name in ("modes.jpg", "modes.webp"):
        print(f"{folder / name}: {(folder / name).stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
