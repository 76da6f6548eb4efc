"""What the command line's tests share: the answer of a command, and odd pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_deeplab.imaging import write_image
from tests.runtimes.artefacts import picture


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Exit status 2 and one line on standard error that holds these words."""
        assert self.status == 2, (self.out, self.err)
        assert self.err.startswith("edge-deeplab"), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n")
        assert "Traceback" not in self.err + self.out
        for word in words:
            assert word in self.err, self.err


Run = Callable[..., Ran]


def strictly(text: str) -> Any:
    """JSON as everybody reads it: Python alone takes NaN and Infinity."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def read(path: Path) -> NDArray[Any]:
    """A picture as it is stored, alpha and depth included."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


ODD: dict[str, tuple[int, int]] = {
    "one-pixel.png": (1, 1),
    "one-row.png": (1, 4000),
    "sixteen-bit.png": (20, 31),
    "gray.png": (20, 31),
    "gray.jpg": (20, 31),
    "alpha.png": (20, 31),
    "cmyk.jpg": (20, 31),
    "turned.jpg": (31, 20),
    "bitmap.bmp": (20, 31),
    "UPPER.JPG": (20, 31),
    "two words, ümlaut.png": (20, 31),
    "tiff.tif": (20, 31),
    "webp.webp": (20, 31),
}
"""Good pictures that are not what most are, and the size (H, W) they are seen at."""


def make_odd(path: Path) -> Path:
    """Write one of the pictures above."""
    height, width = 20, 31
    image = picture(height, width)
    match path.name:
        case "one-pixel.png":
            write_image(path, image[:1, :1])
        case "one-row.png":
            write_image(path, picture(1, 4000))
        case "sixteen-bit.png":
            path.write_bytes(cv2.imencode(".png", image.astype(np.uint16) * 257)[1].tobytes())
        case "gray.png" | "gray.jpg":
            write_image(path, image[..., 0])
        case "alpha.png":
            write_image(path, np.dstack([image, image[..., 0]]))
        case "cmyk.jpg" | "turned.jpg":
            pil = pytest.importorskip("PIL.Image", reason="Pillow writes CMYK and EXIF")
            rgb = pil.fromarray(np.ascontiguousarray(image[..., ::-1]))
            if path.name == "cmyk.jpg":
                rgb.convert("CMYK").save(path, quality=95)
            else:
                exif = pil.Exif()
                exif[0x0112] = 6  # turn by 90 degrees to see it upright
                rgb.save(path, quality=95, exif=exif)
        case _:
            write_image(path, image)
    return path
