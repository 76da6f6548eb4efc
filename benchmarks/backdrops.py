"""Backgrounds without people, as a folder data set: views out of panoramas.

``portrait-open`` has seen streets only. The npm package ``@pmndrs/assets`` holds 18 panoramas of rooms, halls
and landscapes in the public domain (CC0). Views of them, with empty masks, teach what is not a person; the
recipe's ``--strong`` pastes people onto them, too.

    npm pack @pmndrs/assets && tar xzf pmndrs-assets-*.tgz
    pip install OpenEXR
    python benchmarks/backdrops.py package/hdri backdrops
"""

from __future__ import annotations

import argparse
import base64
import re
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, write_image

HEIGHT, WIDTH = 320, 240
"""Pixels of a view: the upright portrait of the sets beside it."""

GRAY = 0.18
"""Linear brightness of a view's geometric mean: photographers' middle gray."""

SUN = 1e4
"""Brightest light, where middle gray is about 1."""


def panorama(path: Path) -> Frame:
    """A package's ``NAME.exr.js``: linear light, float32 (H, W, 3), BGR, 360 by 180 degrees.

    Raises:
        UserError: The file holds no panorama; OpenEXR is not installed.
    """
    found = re.search(r"base64,([A-Za-z0-9+/=]+)", path.read_text())
    if found is None:
        raise UserError(f"{path} holds no panorama")
    try:
        import OpenEXR
    except ImportError:
        raise UserError("panoramas are EXR files; pip install OpenEXR") from None
    with tempfile.TemporaryDirectory() as folder:
        exr = Path(folder) / "panorama.exr"
        exr.write_bytes(base64.b64decode(found[1]))
        channels = OpenEXR.File(str(exr), separate_channels=True).channels()
        light = np.stack([channels[name].pixels for name in "BGR"], axis=-1).astype(np.float32)
    return np.clip(light, 0, SUN)  # lossy compression leaves a little below 0, the sun is infinite


def view(light: Any, *, yaw: float, pitch: float, across: float) -> Any:
    """What a camera in the middle of a panorama sees, linear light (HEIGHT, WIDTH, 3).

    Args:
        light: See :func:`panorama`.
        yaw, pitch: Where it looks, radians; pitch is positive downwards.
        across: Its horizontal angle of view, radians.
    """
    height, width = light.shape[:2]
    focal = WIDTH / 2 / np.tan(across / 2)
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5 - WIDTH / 2, np.arange(HEIGHT) + 0.5 - HEIGHT / 2)
    x, y = x / focal, y / focal
    down, ahead = y * np.cos(pitch) + np.sin(pitch), np.cos(pitch) - y * np.sin(pitch)
    longitude = np.arctan2(x, ahead) + yaw
    latitude = np.arctan2(down, np.hypot(x, ahead))
    across_map = ((longitude / (2 * np.pi) + 0.5) % 1 * width - 0.5).astype(np.float32)
    down_map = ((latitude / np.pi + 0.5) * height - 0.5).astype(np.float32)
    return cv2.remap(light, across_map, down_map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def develop(light: Any, exposure: float) -> Frame:
    """Linear light as an 8-bit picture: middle gray in the middle, highlights rolled off (Reinhard 2002)."""
    middle = np.exp(np.log(light.mean(axis=-1) + 1e-4).mean())
    light = light * (GRAY / middle * exposure)
    return np.rint(255 * np.clip(light / (1 + 0.3 * light), 0, 1) ** (1 / 2.2)).astype(np.uint8)


def main() -> None:
    """Write the views and their empty masks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("panoramas", type=Path, help="the package's folder hdri")
    parser.add_argument("output", type=Path, help="the data set to write")
    parser.add_argument("--views", type=int, default=24, help="of each panorama (default: 24)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    files = sorted(args.panoramas.glob("*.exr.js"))
    if not files:
        raise SystemExit(f"no *.exr.js in {args.panoramas}")
    for path in files:
        light = panorama(path)
        for turn in range(args.views):
            seen = view(
                light,
                yaw=2 * np.pi * (turn + random.uniform(0, 1)) / args.views,
                pitch=np.radians(random.uniform(-15, 15)),
                across=np.radians(random.uniform(50, 95)),
            )
            name = f"{path.name.split('.')[0]}-{turn:02d}"
            part = "val" if turn == 0 else "train"
            picture = develop(seen, random.uniform(0.7, 2))
            write_image(args.output / part / "images" / f"{name}.jpg", picture)
            empty = np.zeros(picture.shape[:2], np.uint8)
            write_image(args.output / part / "masks" / f"{name}.png", empty)
    print(f"{len(files) * args.views} views in {args.output}")


if __name__ == "__main__":
    main()
