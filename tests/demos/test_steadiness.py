"""``benchmarks/steadiness.py`` and ``edges.py``: that their figures mean what they say."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import Floats, Frame, Labels

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def scene(x: int, noise: float, random: np.random.Generator) -> tuple[Frame, Floats, Labels]:
    """A textured disc before a textured wall: frame, shaken logits, true mask."""
    texture = np.random.default_rng(0)
    wall = cv2.resize(texture.integers(20, 90, (24, 32, 3)).astype(np.uint8), (160, 120))
    skin = cv2.resize(texture.integers(140, 250, (24, 32, 3)).astype(np.uint8), (160, 120))
    rows, columns = np.mgrid[:120, :160]
    inside = 25 - np.hypot(columns - x, rows - 60)
    frame = np.where(inside[..., None] > 0, np.roll(skin, x, axis=1), wall).astype(np.uint8)
    logits = np.clip(inside, -6, 6) + noise * random.normal(size=(15, 20)).repeat(8, 0).repeat(8, 1)
    return frame, logits.astype(np.float32), (inside > 0).astype(np.uint8)


def test_flicker_and_trail_are_told_apart(load: Load, rng: np.random.Generator) -> None:
    steadiness = load("steadiness")
    tallies = {name: steadiness.Tally() for name in steadiness.AVERAGES}
    comparison = steadiness.Comparison(tallies)
    way = [80] * 30 + list(range(80, 120, 4)) + [120] * 30
    for x in way:
        frame, logits, truth = scene(x, 1.0, rng)
        comparison.add(frame, logits, truth)
    none, plain = tallies[steadiness.NONE], tallies["plain average, 0.3 s"]
    shipped = tallies[steadiness.SHIPPED]
    assert none.band > 0
    assert none.left > 0
    assert shipped.flicker < 0.7 * none.flicker
    assert plain.trail > 2 * none.trail  # a plain average drags behind: the measure sees it
    assert shipped.trail < 1.2 * none.trail
    assert shipped.moving_error < 1.1 * none.moving_error < plain.moving_error


def test_photos_that_move_have_true_masks(load: Load) -> None:
    moving = load("moving_photos")
    photo = np.full((320, 240, 3), 40, np.uint8)
    person = np.zeros((320, 240), np.uint8)
    cv2.circle(person, (120, 160), 60, 1, -1)
    photo[person > 0] = 220
    found = list(moving.film(photo, person, 40))
    for frame, truth in found[::13]:
        assert frame.shape == (480, 640, 3)
        seen = frame[..., 1] > 130
        assert (seen == (truth > 0)).mean() > 0.98
    middles = [np.flatnonzero(truth.any(axis=0)).mean() for _, truth in found]
    assert middles[30] - middles[0] == pytest.approx(2 * moving.SWAY, abs=2)
    assert middles[35] == pytest.approx(middles[30], abs=1)  # at rest


def test_finer_edges_score_higher(load: Load) -> None:
    edges = load("edges")
    assert list(edges.ways())[1].endswith("(shipped)")
    truth = np.zeros((120, 160), np.uint8)
    cv2.circle(truth, (80, 60), 40, 1, -1)
    coarse = cv2.resize(cv2.resize(truth, (16, 12), interpolation=cv2.INTER_AREA), (160, 120)) > 0
    good, bad = edges.Overlap(), edges.Overlap()
    good.add(truth, truth)
    bad.add(coarse.astype(np.uint8), truth)
    assert good.figures() == [1, 1, 1]
    whole, band, narrow = bad.figures()
    assert 1 > whole > band > narrow
    ignored = edges.Overlap()
    ignored.add(coarse.astype(np.uint8), np.where(coarse == truth, truth, 255).astype(np.uint8))
    assert ignored.figures()[0] == 1
