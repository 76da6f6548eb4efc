"""Ranges of tensors from their values on calibration pictures: minmax, percentile, entropy.

Independent of the file format: a target hands in a function that runs its float graph and gives all
tensors by name. The second pass, with histograms, is only made for the methods that need one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError
from edge_deeplab.export.base import Method, Progress, silent

Ranges = dict[str, list[float]]
"""Tensor -> [lowest, highest], JSON as it is."""

Run = Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]]
"""Input tensor -> every float tensor of the graph by name."""

BINS = 8192
LEVELS = 256
PERCENTILE = 99.999
"""Share of values kept by ``percentile``, the rest cut evenly at both ends."""


class Inputs(Sized, Iterable[NDArray[Any]], Protocol):
    """Input tensors; may be iterated more than once."""


def measure(run: Run, inputs: Inputs, method: Method, progress: Progress = silent) -> Ranges:
    """Ranges of all tensors.

    Raises:
        UserError: A tensor holds NaN or infinity: the float model itself is broken on these pictures.
    """
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    for tensor in progress(inputs, "calibrating"):
        for name, value in run(tensor).items():
            low, high = float(value.min()), float(value.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise UserError(f"tensor {name} holds NaN or infinity on a calibration picture")
            lowest[name] = min(low, lowest.get(name, low))
            highest[name] = max(high, highest.get(name, high))
    # Zero is in every range: integers must be able to say it exactly, for padding and for ReLU.
    whole = {name: [min(lowest[name], 0.0), max(highest[name], 0.0)] for name in lowest}
    if method == "minmax":
        return whole
    counts = {name: np.zeros(BINS) for name in whole}
    for tensor in progress(inputs, f"histograms for {method}"):
        for name, value in run(tensor).items():
            counts[name] += histogram(value, *whole[name])
    cut = {"percentile": percentile, "entropy": entropy}[method]
    return {name: list(cut(counts[name], *whole[name])) for name in progress(whole, method)}


def histogram(value: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """Counts of ``value`` in :data:`BINS` equal bins from ``low`` to ``high``, both included."""
    if high <= low:
        return np.eye(1, BINS)[0] * value.size
    # OpenCV leaves the upper end out; numpy's own is twenty times slower.
    top = np.nextafter(np.float32(high), np.float32(np.inf))
    flat = np.ascontiguousarray(value, np.float32).reshape(-1, 1)
    return cv2.calcHist([flat], [0], None, [BINS], [low, float(top)]).ravel().astype(np.float64)


def percentile(counts: NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    """The range that holds zero and :data:`PERCENTILE` per cent of the values."""
    outside = (100 - PERCENTILE) / 200
    share = np.cumsum(counts) / counts.sum()
    step = (high - low) / len(counts)
    first = int(np.searchsorted(share, outside, side="right"))
    last = int(np.searchsorted(share, 1 - outside, side="left"))
    return min(low + first * step, 0.0), max(low + (last + 1) * step, 0.0)


def entropy(counts: NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    """The range whose quantised values differ least from all of them in Kullback-Leibler divergence.

    Migacz, "8-bit inference with TensorRT", GTC 2017: values are cut at plus and minus a threshold, and
    what lies beyond counts at the edge. Here an end that is nearer to zero than the threshold stays.
    """
    if high <= low:
        return low, high
    best, result = np.inf, (low, high)
    step = (high - low) / len(counts)
    zero = min(int(-low / step), len(counts) - 1)
    for kept in np.linspace(1, 0.05, 96):
        threshold = kept * max(-low, high)
        first = round((max(low, -threshold) - low) / step)
        last = round((min(high, threshold) - low) / step)
        divergence = _divergence(counts, first, last, zero)
        if divergence < best:
            best, result = divergence, (low + first * step, low + last * step)
    return min(result[0], 0.0), max(result[1], 0.0)


def _divergence(counts: NDArray[np.float64], first: int, last: int, zero: int) -> float:
    """KL divergence between the values cut to bins ``first`` .. ``last`` and the same in 256 levels.

    Zero and both ends are levels themselves and lose nothing. Spread over their neighbours' bins like
    all others, the half of all values that a ReLU sets to 0, and what ReLU6 sets to 6, would outweigh
    everything, and the narrowest cut would always win.
    """
    inside = counts[first:last]
    if len(inside) < LEVELS:
        return np.inf
    reference = inside.copy()
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    exact = [0, min(max(zero - first, 0), len(inside) - 1), -1]
    between = inside.copy()
    between[exact] = 0
    edges = np.linspace(0, len(inside), LEVELS + 1).astype(int)[:-1]
    used = (between > 0).astype(np.float64)
    sums, kinds = np.add.reduceat(between, edges), np.add.reduceat(used, edges)
    widths = np.diff([*edges, len(inside)])
    quantised = np.repeat(np.divide(sums, kinds, out=np.zeros_like(sums), where=kinds > 0), widths) * used
    quantised[exact] = inside[exact]
    p, q = reference / reference.sum(), quantised / max(quantised.sum(), 1)
    # A cut-off value in a bin that holds none inside has no counterpart: that is the loss to be seen.
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / np.maximum(q[p > 0], 1e-12))))
