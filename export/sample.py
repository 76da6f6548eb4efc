"""The packaged portrait and views of it, for users without pictures at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_deeplab import imaging
from edge_deeplab.imaging import Frame, read_image

SAMPLE = Path(__file__).resolve().parent / "sample.jpg"
"""A NASA portrait (public domain) that comes with the package."""


def views() -> list[tuple[str, Frame]]:
    """Eight views to compare on: whole, mirrored, cropped, wide, tall, dark, small."""
    image = read_image(SAMPLE)
    height, width = image.shape[:2]
    named = [
        ("whole", image),
        ("mirrored", image[:, ::-1]),
        ("face", image[: height // 2, width // 4 : width * 3 // 4]),
        ("upper half", image[: height * 5 // 8]),
        ("left", image[:, : width * 5 // 8]),
        ("dark", (image * 0.45).astype(np.uint8)),
        ("webcam", imaging.resize_frame(image[: height * 3 // 4], 480, 640)),
        ("small", imaging.resize_frame(image, 120, 90)),
    ]
    return [(f"{SAMPLE.name}, {name}", np.ascontiguousarray(view)) for name, view in named]


def augmented(count: int, seed: int = 0) -> list[tuple[str, Frame]]:
    """``count`` random views for calibration: cut out, turned, mirrored, and with other light and colour.

    Extremes are on purpose: ranges measured on one photo must also hold for darker, brighter and more
    colourful ones.
    """
    rng = np.random.default_rng(seed)
    image = read_image(SAMPLE)
    height, width = image.shape[:2]
    made = []
    for number in range(count):
        side = float(rng.uniform(0.35, 1.0))
        centre = (width * float(rng.uniform(0.3, 0.7)), height * float(rng.uniform(0.25, 0.75)))
        turn = cv2.getRotationMatrix2D(centre, float(rng.uniform(-20, 20)), 0.7 / side)
        turn[:, 2] += (160 - centre[0], 160 - centre[1])
        view = cv2.warpAffine(image, turn, (320, 320), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        if rng.random() < 0.5:
            view = view[:, ::-1]
        gain = rng.uniform(0.35, 1.7) * rng.uniform(0.75, 1.25, 3)
        shifted = (view.astype(np.float32) - 128) * gain + 128 + rng.uniform(-60, 60)
        made.append((f"view {number:03d}", np.clip(shifted, 0, 255).astype(np.uint8)))
    return made
