"""mIoU near contours only, over the width of the band (DeepLabv3+, section 4.3, figure 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.evaluation import figure
from edge_deeplab.files import check_writable, whole_file
from edge_deeplab.imaging import Labels
from edge_deeplab.metrics import IGNORE, tally_iou

WIDTHS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40)
"""Band widths in pixels: how far a pixel may lie from a contour of the truth, on either side."""


class Trimap:
    """Adds up confusion matrices of ever wider bands around the contours of the truth.

    A contour runs between pixels of different ids, ignored ones included, as the papers' bands lie around
    VOC's void borders; ignored pixels themselves count nowhere.

    Args:
        classes: Number of classes.
        widths: In pixels, ascending.
    """

    def __init__(self, classes: int, widths: Sequence[int] = WIDTHS) -> None:
        self.classes, self.widths = classes, tuple(widths)
        self._rings = np.zeros((len(self.widths) + 1, classes, classes), np.int64)

    def add(self, labels: Labels, truth: Labels) -> None:
        """Score one picture: predicted and true ids, uint8 (H, W)."""
        ring = np.searchsorted(self.widths, contour_distance(truth), side="left")
        known = truth != IGNORE
        k = self.classes
        cells = (ring[known] * k + truth[known]) * k + labels[known]
        self._rings += np.bincount(cells, minlength=self._rings.size).reshape(self._rings.shape)

    def merge(self, other: Trimap) -> None:
        """Add what another one counted, e.g. in another process."""
        self._rings += other._rings

    def miou(self) -> tuple[float, ...]:
        """mIoU within each band; NaN where no pixel lies in it."""
        bands = self._rings[:-1].cumsum(axis=0)
        hits = np.diagonal(bands, axis1=1, axis2=2)
        iou = tally_iou(np.stack([hits, bands.sum(2), bands.sum(1)], axis=1))
        return tuple(float("nan") if np.isnan(row).all() else float(np.nanmean(row)) for row in iou)

    def record(self) -> dict[str, float | None]:
        """mIoU by width in pixels, JSON-ready."""
        return {str(width): figure(value) for width, value in zip(self.widths, self.miou(), strict=True)}


def contour_distance(truth: Labels) -> NDArray[np.float32]:
    """How far each pixel (H, W) is from a pixel of another id, in pixels; 1 beside a contour, inf without."""
    edge = np.zeros(truth.shape, bool)
    down, across = truth[1:] != truth[:-1], truth[:, 1:] != truth[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    if not edge.any():
        return np.full(truth.shape, np.inf, np.float32)
    distance = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance, np.float32) + 1


def check_plot(path: str | Path) -> None:
    """Find out before long work whether :func:`draw_trimap` can write there; nothing is left behind.

    Raises:
        UserError: It cannot, or the name is not that of a PNG.
        MissingExtra: matplotlib is not installed.
    """
    with needs("train"):
        import matplotlib.figure  # noqa: F401
    if Path(path).suffix.lower() != ".png":
        raise UserError(f"cannot write {path}: the plot is a PNG; give a name that ends in .png")
    check_writable(path)


def draw_trimap(
    curves: Mapping[str, Sequence[float]],
    whole: Mapping[str, float],
    path: str | Path,
    widths: Sequence[int] = WIDTHS,
) -> None:
    """Plot mIoU over band width, one curve a name, with the mIoU of whole pictures dashed.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with needs("train"):
        from matplotlib.figure import Figure
    drawing = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = drawing.subplots()
    for name, values in curves.items():
        (line,) = axes.plot(widths, [100 * v for v in values], marker=".", label=name)
        label = f"{name}, whole pictures"
        axes.axhline(100 * whole[name], color=line.get_color(), linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="trimap width (pixels from a contour)", ylabel="mIoU (%)")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    with whole_file(path) as temporary:
        drawing.savefig(temporary, dpi=120, format="png")
