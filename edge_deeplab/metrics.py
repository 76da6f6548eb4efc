"""Segmentation metrics on label maps (numpy and OpenCV).

IoU is pooled: intersections and unions are summed over all pictures before dividing, as PASCAL VOC
does. The mean of each picture's own IoU is reported beside it, never instead of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.imaging import Labels

IGNORE = 255
"""Label id that counts nowhere."""

DRAWN_AT_ONCE = 2_000_000
"""Pictures times resamples that the bootstrap holds in memory, 16 bytes each: the train split of COCO at
once would be 2 GB."""


@dataclass(frozen=True)
class Scores:
    """What one evaluation found.

    Attributes:
        images: Pictures scored.
        iou: Pooled IoU per class id; NaN for a class that neither occurs nor was predicted.
        miou: Mean of ``iou`` over the classes that occur.
        pixel_accuracy: Right pixels among all that count.
        image_iou: Mean over pictures of the picture's own IoU: of the foreground for two classes,
            of the classes present otherwise. Pictures that are all ignored do not count.
        boundary_iou: Pooled boundary IoU per class id (Cheng et al., CVPR 2021).
    """

    images: int
    iou: tuple[float, ...]
    miou: float
    pixel_accuracy: float
    image_iou: float
    boundary_iou: tuple[float, ...]

    @property
    def foreground_iou(self) -> float:
        """The figure that models are chosen by: IoU of class 1 for two classes, else mIoU."""
        return self.iou[1] if len(self.iou) == 2 else self.miou


class Evaluator:
    """Adds up confusion matrix and boundary overlaps over pictures.

    Args:
        classes: Number of classes.
        boundary: Whether to measure boundary IoU too (about 1 ms a picture and class).
    """

    def __init__(self, classes: int, *, boundary: bool = True) -> None:
        self.classes = classes
        self.boundary = boundary
        self.confusion = np.zeros((classes, classes), np.int64)
        self.tallies: dict[int, Tally] = {}
        self._boundary_hits = np.zeros((2, classes), np.int64)

    def add(self, labels: Labels, truth: Labels, index: int | None = None) -> float:
        """Score one picture.

        Args:
            labels: Predicted ids, uint8 (H, W).
            truth: True ids, uint8 (H, W); 255 is ignored.
            index: Of the picture, its key in :attr:`tallies`; by default its place in order.

        Returns:
            The picture's own IoU (see :attr:`Scores.image_iou`); NaN if all of it is ignored.
        """
        if labels.shape != truth.shape:
            raise ValueError(f"labels {labels.shape} and truth {truth.shape} differ in size")
        matrix = confusion(labels, truth, self.classes)
        self.confusion += matrix
        tally = np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)])
        self.tallies[len(self.tallies) if index is None else index] = tally
        if self.boundary:
            known = truth != IGNORE
            for k in np.flatnonzero(tally[1] + tally[2]):
                a, b = boundary((labels == k) & known), boundary(truth == k)
                self._boundary_hits[:, k] += ((a & b).sum(), (a | b).sum())
        return own_iou(tally)

    def merge(self, other: Evaluator) -> None:
        """Add what another evaluator saw, e.g. in another process; exact, since all are counts."""
        self.confusion += other.confusion
        self._boundary_hits += other._boundary_hits
        self.tallies = dict(sorted((self.tallies | other.tallies).items()))

    def own_ious(self) -> dict[int, float]:
        """Every picture's own IoU by its index, see :func:`own_iou`."""
        return {index: own_iou(tally) for index, tally in self.tallies.items()}

    def scores(self) -> Scores:
        """The figures over everything added so far."""
        iou = _iou(self.confusion)
        total = int(self.confusion.sum())
        hits, union = self._boundary_hits
        nothing = float("nan")
        own = [value for value in self.own_ious().values() if not np.isnan(value)]
        return Scores(
            images=len(self.tallies),
            iou=tuple(float(v) for v in iou),
            miou=nothing if np.isnan(iou).all() else float(np.nanmean(iou)),
            pixel_accuracy=int(np.trace(self.confusion)) / total if total else nothing,
            image_iou=float(np.mean(own)) if own else nothing,
            boundary_iou=tuple(int(h) / int(u) if u else nothing for h, u in zip(hits, union, strict=True)),
        )


Tally = NDArray[np.int64]
"""Counts of one picture, (3, classes): pixels of each class that were hit, are true, were predicted."""


def own_iou(tally: Tally) -> float:
    """A picture's own IoU: the foreground's for two classes, else the mean over the classes that occur.

    1 where there is no foreground and none was seen; NaN where every pixel is ignored.
    """
    if not tally[1].any():
        return float("nan")
    iou = tally_iou(tally)
    own = iou[1:] if len(iou) == 2 else iou
    return 1.0 if np.isnan(own).all() else float(np.nanmean(own))


def tally_iou(tally: NDArray[Any]) -> NDArray[np.float64]:
    """IoU per class from counts (..., 3, classes); NaN for a class that neither occurs nor was predicted."""
    hits, true, predicted = (tally[..., row, :].astype(np.float64) for row in range(3))
    union = true + predicted - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


def confidence_interval(
    tallies: Sequence[Tally], *, share: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap over pictures (Efron 1979) of the figure models are chosen by, :attr:`Scores.foreground_iou`.

    Pictures are drawn with replacement, as many as there are; the pooled IoU of each draw is taken, and the
    middle ``share`` of these is the interval. It tells how far another sample of pictures of the same kind
    could move the figure, not how far another training run would.

    Returns:
        Lower and upper end; NaN without pictures that count.
    """
    counts = np.stack([tally for tally in tallies if tally[1].any()] or [np.zeros((3, 2), np.int64)])
    if not counts.any():
        return float("nan"), float("nan")
    rng, number = np.random.default_rng(seed), len(counts)
    pooled = np.empty((resamples, *counts.shape[1:]))
    step = max(1, DRAWN_AT_ONCE // number)
    for start in range(0, resamples, step):
        part = pooled[start : start + step]
        draws = rng.multinomial(number, np.full(number, 1 / number), size=len(part))
        part[...] = np.tensordot(draws.astype(np.float64), counts.astype(np.float64), axes=1)
    iou = tally_iou(pooled)
    figures = iou[:, 1] if iou.shape[1] == 2 else np.nanmean(iou, axis=1)
    figures = figures[~np.isnan(figures)]
    if not len(figures):
        return float("nan"), float("nan")
    low, high = np.quantile(figures, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def confusion(labels: Labels, truth: Labels, classes: int) -> NDArray[np.int64]:
    """Confusion matrix (classes, classes), rows truth, columns prediction; truth 255 is left out.

    Raises:
        ValueError: An id that is no class.
    """
    known = truth != IGNORE
    highest = max(int(truth[known].max(initial=0)), int(labels[known].max(initial=0)))
    if highest >= classes:
        raise ValueError(f"id {highest} is no class; there are {classes}")
    pairs = truth[known].astype(np.int64) * classes + labels[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    return tally_iou(np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)]))


def boundary(mask: NDArray[np.bool_], *, ratio: float = 0.02) -> NDArray[np.bool_]:
    """Pixels of ``mask`` (H, W) within ``ratio`` of the picture's diagonal of its contour.

    As in the reference implementation of Boundary IoU: the mask minus its 3x3 erosion repeated
    ``d = max(1, round(ratio * diagonal))`` times, the outside of the picture counting as background.
    """
    height, width = mask.shape
    distance = max(1, round(ratio * float(np.hypot(height, width))))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
    return mask & (eroded[1:-1, 1:-1] == 0)


def agreement(a: Labels, b: Labels) -> float:
    """Share of pixels on which two label maps agree."""
    return float(np.mean(a == b))
