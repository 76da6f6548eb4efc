"""A second implementation of the input contract, in plain numpy, written from docs/contract.md alone.

It is slow, imports nothing of this package and no OpenCV, and shows whether the page says enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


# -- the formulas of the test vectors ----------------------------------------------------------------


def pattern(h: int, w: int) -> Array:
    """The frame of the vectors, BGR bytes (h, w, 3)."""
    y, x, c = np.ogrid[:h, :w, :3]
    return (((2 * c + 3) * x + (7 - 2 * c) * y + x * y // 16) % 256).astype(np.uint8)


def output(head: str, k: int, h: int, w: int) -> Array:
    """The network's answer of the vectors: (k, h, w) float32, or (h, w) bytes of class ids."""
    plane, y, x = np.ogrid[:k, :h, :w]
    if head == "classmap":
        return ((x + y + x * y // 8) % 4).astype(np.uint8)[0]
    wave = ((plane + 3) * x + (plane + 5) * y + x * y) % 33
    if head == "probability":
        return ((wave // 4 + 1) / 10 + 1 / 6000).astype(np.float32)
    return ((wave - 16) / 4 + 1 / 2400 + plane / 7).astype(np.float32)


# -- frame to tensor -----------------------------------------------------------------------------------


def placement(contract: Mapping[str, Any], h: int, w: int) -> tuple[int, int, int, int]:
    """(top, left, h', w')."""
    height, width = contract["height"], contract["width"]
    if contract["resize"] == "stretch":
        return 0, 0, height, width
    f = min(height / h, width / w)
    h2 = int(min(height, max(1, np.rint(h * f))))
    w2 = int(min(width, max(1, np.rint(w * f))))
    return (height - h2) // 2, (width - w2) // 2, h2, w2


def positions(to: int, source: int) -> Array:
    return (np.arange(to) + 0.5) * (source / to) - 0.5


def resize(frame: Array, h: int, w: int) -> Array:
    """Bytes (h0, w0, 3) to (h, w, 3)."""
    while frame.shape[0] >= 2 * h and frame.shape[1] >= 2 * w:
        frame = halved(frame)
    return frame if frame.shape[:2] == (h, w) else bilinear(frame, h, w)


def bilinear(frame: Array, h: int, w: int) -> Array:
    height, width = frame.shape[:2]
    f32 = np.float32
    p = positions(w, width).astype(f32)
    i0 = np.floor(p).astype(int)
    t = p - i0.astype(f32)
    t[(i0 < 0) | (i0 >= width - 1)] = 0
    i0 = i0.clip(0, width - 1)
    a0, a1 = (np.rint(f32(2048) * v).astype(int)[None, :, None] for v in (f32(1) - t, t))
    v = frame.astype(int)
    r = a0 * v[:, i0] + a1 * v[:, np.minimum(i0 + 1, width - 1)]
    p = positions(h, height).astype(f32)
    j0 = np.floor(p).astype(int)
    t = p - j0.astype(f32)
    b0, b1 = (np.rint(f32(2048) * v).astype(int)[:, None, None] for v in (f32(1) - t, t))
    upper, lower = r[j0.clip(0, height - 1)], r[(j0 + 1).clip(0, height - 1)]
    return ((((b0 * (upper >> 4)) >> 16) + ((b1 * (lower >> 4)) >> 16) + 2) >> 2).astype(np.uint8)


def halved(frame: Array) -> Array:
    h, w = frame.shape[0] // 2, frame.shape[1] // 2
    if frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0:
        v = frame.astype(int)
        return ((v[::2, ::2] + v[::2, 1::2] + v[1::2, ::2] + v[1::2, 1::2] + 2) >> 2).astype(np.uint8)
    return area(frame, h, w)


def shares(to: int, source: int) -> list[list[tuple[int, np.float32]]]:
    """For every output position the source positions that it covers, with their shares."""
    s = source / to
    answer = []
    for i in range(to):
        begin, end = i * s, (i + 1) * s
        parts = []
        for k in range(int(begin), min(source, int(np.ceil(end)))):
            covered = min(end, k + 1) - max(begin, k)
            if covered > 1e-3:
                parts.append((k, np.float32(covered / s)))
        answer.append(parts)
    return answer


def area(frame: Array, h: int, w: int) -> Array:
    v = frame.astype(np.float32)
    across = np.zeros((frame.shape[0], w, 3), np.float32)
    for i, parts in enumerate(shares(w, frame.shape[1])):
        for k, share in parts:
            across[:, i] += share * v[:, k]
    down = np.zeros((h, w, 3), np.float32)
    for j, parts in enumerate(shares(h, frame.shape[0])):
        for k, share in parts:
            down[j] += share * across[k]
    return np.rint(down).astype(np.uint8)


def tensor(frame: Array, contract: Mapping[str, Any]) -> Array:
    """A BGR frame to the input tensor."""
    top, left, h, w = placement(contract, *frame.shape[:2])
    inner = resize(frame, h, w)
    if contract["channels"] == "RGB":
        inner = inner[..., ::-1]
    mean, std = (np.array(contract[name], np.float64) for name in ("mean", "std"))
    image = np.empty((contract["height"], contract["width"], 3), np.uint8)
    image[:] = np.rint(mean)
    image[top : top + h, left : left + w] = inner
    if contract["dtype"] == "float32":
        value: Array = image.astype(np.float32) * (1 / std).astype(np.float32) - (mean / std).astype(
            np.float32
        )
    else:
        value = image if contract["dtype"] == "uint8" else (image.astype(int) - 128).astype(np.int8)
    if contract["layout"] == "NCHW":
        value = value.transpose(2, 0, 1)
    return np.ascontiguousarray(value[None])


# -- output to mask ------------------------------------------------------------------------------------


def lines(to: int, source: int, begin: float, length: float, whole: float) -> Array:
    """Where the pixels of a frame lie among the ``source`` lines of an output, half a pixel too far."""
    return (begin + (np.arange(to) + 0.5) * length / to) * source / whole


def linear(values: Array, p: Array) -> Array:
    """Mix along the first axis."""
    last = len(values) - 1
    i0 = np.floor(p).astype(int)
    t = (p - i0).astype(np.float32)
    t[(i0 < 0) | (i0 >= last)] = 0
    i0 = i0.clip(0, last)
    t = t[:, None]
    return (np.float32(1) - t) * values[i0] + t * values[np.minimum(i0 + 1, last)]


def mask(planes: Array, contract: Mapping[str, Any], h: int, w: int) -> tuple[Array, Array | None]:
    """(K, oh, ow), or (oh, ow) of a class map, to class ids (h, w) and the resized planes."""
    top, left, h2, w2 = placement(contract, h, w)
    oh, ow = planes.shape[-2:]
    y = lines(h, oh, top, h2, contract["height"])
    x = lines(w, ow, left, w2, contract["width"])
    if contract["head"] == "classmap":
        return planes[np.floor(y).astype(int)][:, np.floor(x).astype(int)], None
    scores = np.stack([linear(linear(plane.T, x - 0.5).T, y - 0.5) for plane in planes])
    if len(planes) > 1:
        return scores.argmax(axis=0).astype(np.uint8), scores
    threshold = contract["threshold"]
    cut = threshold if contract["head"] == "probability" else np.log(threshold / (1 - threshold))
    return (scores[0] >= np.float32(cut)).astype(np.uint8), scores
