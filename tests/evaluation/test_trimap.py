"""mIoU in bands around contours, against distances measured pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.evaluation.trimap import WIDTHS, Trimap, contour_distance, draw_trimap
from edge_deeplab.imaging import Labels, read_image
from edge_deeplab.metrics import Evaluator


def halves(height: int = 20, width: int = 40) -> Labels:
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    return labels


def test_distance_counts_from_the_contour() -> None:
    distance = contour_distance(halves())
    assert distance[7, 17:23].tolist() == [3, 2, 1, 1, 2, 3]
    assert np.isinf(contour_distance(np.zeros((5, 5), np.uint8))).all()


def test_distance_by_its_definition(rng: np.random.Generator) -> None:
    truth = np.kron(rng.integers(0, 3, (4, 5)), np.ones((5, 4), int)).astype(np.uint8)
    truth[3:6, 2:9] = 255
    height, width = truth.shape
    edge = [
        (y, x)
        for y in range(height)
        for x in range(width)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if 0 <= y + dy < height and 0 <= x + dx < width and truth[y + dy, x + dx] != truth[y, x]
    ]
    wanted = [
        [min(math.hypot(y - b, x - a) for b, a in edge) + 1 for x in range(width)] for y in range(height)
    ]
    np.testing.assert_allclose(contour_distance(truth), wanted, rtol=1e-5)


def test_bands_by_hand() -> None:
    """The answer is off by three columns: wrong within 3 pixels, on one side."""
    truth = halves()
    labels = np.roll(truth, 3, axis=1)
    labels[:, :3] = 0
    trimap = Trimap(2, widths=(1, 3, 6, 50))
    trimap.add(labels, truth)
    one, three, six, whole = trimap.miou()
    assert one == pytest.approx((1 / 2 + 0) / 2)  # of columns 19 and 20 all called 0
    assert three == pytest.approx((3 / 6 + 0) / 2)
    assert six == pytest.approx((6 / 9 + 3 / 6) / 2)
    evaluator = Evaluator(2, boundary=False)
    evaluator.add(labels, truth)
    assert whole == pytest.approx(evaluator.scores().miou)


def test_bands_pool_pictures_and_leave_ignored_pixels_out(rng: np.random.Generator) -> None:
    trimap, seen = Trimap(3, widths=(2, 5)), []
    for _ in range(3):
        truth = np.kron(rng.integers(0, 3, (6, 6)), np.ones((8, 8), int)).astype(np.uint8)
        labels = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, 3, truth.shape), truth).astype(
            np.uint8
        )
        truth[rng.random(truth.shape) < 0.01] = 255
        trimap.add(labels, truth)
        seen.append((labels, truth, contour_distance(truth)))
    for width, value in zip((2, 5), trimap.miou(), strict=True):
        ious = []
        for k in range(3):
            hits = sum(((a == k) & (b == k) & (d <= width)).sum() for a, b, d in seen)
            union = sum((((a == k) & (b != 255)) | (b == k))[d <= width].sum() for a, b, d in seen)
            ious.append(hits / union)
        assert value == pytest.approx(np.mean(ious))


def test_no_contour_no_figure() -> None:
    trimap = Trimap(2)
    trimap.add(np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8))
    assert all(math.isnan(value) for value in trimap.miou())
    assert trimap.record() == {str(width): None for width in WIDTHS}


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    values = np.linspace(0.3, 0.7, len(WIDTHS)).tolist()
    draw_trimap({"camvid/val": values}, {"camvid/val": 0.72}, tmp_path / "new" / "plot.png")
    shown = read_image(tmp_path / "new" / "plot.png")
    assert min(shown.shape[:2]) > 400
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20
