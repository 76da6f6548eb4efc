"""Segmentation metrics on label maps (numpy and OpenCV).

IoU is pooled: intersections and unions are summed over all pictures before dividing, as PASCAL VOC
does. The mean of each picture's own IoU is reported beside it, never instead of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.imaging import Labels

IGNORE = 255
"""Label id that counts nowhere."""


@dataclass(frozen=True)
class Scores:
    """What one evaluation found.

    Attributes:
        images: Pictures scored.
        iou: Pooled IoU per class id; NaN for a class that neither occurs nor was predicted.
        miou: Mean of ``iou`` over the classes that occur.
        pixel_accuracy: Right pixels among all that count.
        image_iou: Mean over pictures of the picture's own IoU: of the foreground for two classes,
            of the classes present otherwise.
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
        self.image_ious: list[float] = []
        self._boundary_hits = np.zeros((2, classes), np.int64)

    def add(self, labels: Labels, truth: Labels) -> float:
        """Score one picture.

        Args:
            labels: Predicted ids, uint8 (H, W).
            truth: True ids, uint8 (H, W); 255 is ignored.

        Returns:
            The picture's own IoU (see :attr:`Scores.image_iou`).
        """
        if labels.shape != truth.shape:
            raise ValueError(f"labels {labels.shape} and truth {truth.shape} differ in size")
        matrix = confusion(labels, truth, self.classes)
        self.confusion += matrix
        iou = _iou(matrix)
        own = iou[1:] if self.classes == 2 else iou
        value = 1.0 if np.isnan(own).all() else float(np.nanmean(own))
        self.image_ious.append(value)
        if self.boundary:
            known = truth != IGNORE
            for k in range(self.classes):
                a, b = boundary((labels == k) & known), boundary(truth == k)
                self._boundary_hits[:, k] += ((a & b).sum(), (a | b).sum())
        return value

    def scores(self) -> Scores:
        """The figures over everything added so far."""
        iou = _iou(self.confusion)
        total = int(self.confusion.sum())
        hits, union = self._boundary_hits
        nothing = float("nan")
        return Scores(
            images=len(self.image_ious),
            iou=tuple(float(v) for v in iou),
            miou=nothing if np.isnan(iou).all() else float(np.nanmean(iou)),
            pixel_accuracy=int(np.trace(self.confusion)) / total if total else nothing,
            image_iou=float(np.mean(self.image_ious)) if self.image_ious else nothing,
            boundary_iou=tuple(int(h) / int(u) if u else nothing for h, u in zip(hits, union, strict=True)),
        )


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
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


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
