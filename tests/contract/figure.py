"""A person drawn by formula, which the portrait models take for one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def figure(h: int = 240, w: int = 320) -> NDArray[np.uint8]:
    """BGR (h, w, 3), in integers only."""
    y, x = np.ogrid[:h, :w]
    y, x = np.broadcast_arrays(y.astype(np.int64), x.astype(np.int64))
    u, v = 1000 * x // w, 1000 * y // h

    def ellipse(cu: int, cv: int, ru: int, rv: int) -> NDArray[Any]:
        return ((u - cu) * 1000 // ru) ** 2 + ((v - cv) * 1000 // rv) ** 2 <= 1_000_000

    def color(blue: Any, green: Any, red: Any) -> NDArray[Any]:
        return np.stack(np.broadcast_arrays(blue, green, red, u)[:3], -1)

    skin = color(120 - v // 20 + u // 50, 150 - v // 20 + u // 40, 205 - v // 25 + u // 50)
    image = color(150 + v // 16 - u // 25, 140 + v // 20, 120 + u // 16 + v // 40)
    for shape, paint in (
        (ellipse(500, 1100, 330, 420), color(90 - v // 30, 60 + u // 60, 40 + v // 40)),
        ((abs(u - 500) <= 55) & (v >= 480) & (v <= 720), skin - 25),
        (ellipse(500, 360, 150, 230), color(30 + u // 60, 40 + u // 50, 50 + v // 20)),
        (ellipse(500, 400, 115, 190), skin),
        (ellipse(455, 370, 20, 14) | ellipse(545, 370, 20, 14), color(40, 35, 30)),
        (ellipse(500, 490, 40, 12), color(70, 70, 150)),
        (ellipse(500, 430, 12, 35), skin - 18),
    ):
        image[shape] = paint[shape]
    return image.clip(0, 255).astype(np.uint8)
