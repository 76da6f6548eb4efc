"""Masks over time: flicker goes, no trail stays, and an answer follows the picture's motion."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import Floats, Labels
from edge_deeplab.temporal import FlowCarrier, MotionAverage

HEIGHT, WIDTH = 96, 128
DT = 1 / 30


def scene(x: float, y: float = 48.0, seed: int = 0) -> tuple[Labels, Floats]:
    """A bright, textured disc before a dark, textured wall, and the logits of its mask."""
    random = np.random.default_rng(seed)
    wall = cv2.resize(random.integers(20, 90, (24, 32)).astype(np.uint8), (WIDTH, HEIGHT))
    skin = cv2.resize(random.integers(140, 250, (24, 32)).astype(np.uint8), (WIDTH, HEIGHT))
    skin = np.roll(skin, round(x), axis=1)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = 18 - np.hypot(columns - x, rows - y)
    luma = np.where(inside > 0, skin, wall).astype(np.uint8)
    return luma, np.clip(inside, -6, 6).astype(np.float32)


def test_flicker_goes_where_nothing_moves(rng: np.random.Generator) -> None:
    luma, logits = scene(64)
    average = MotionAverage()
    noisy, steady = [], []
    for _ in range(60):
        shaken = logits + rng.normal(0, 1, logits.shape).astype(np.float32)
        grain = np.clip(luma + rng.normal(0, 1, luma.shape), 0, 255).astype(np.uint8)
        noisy.append(shaken)
        steady.append(average.update(shaken, grain, DT))
    change = [float(np.abs(np.diff(s[20:], axis=0)).mean()) for s in (noisy, steady)]
    assert change[1] < 0.15 * change[0]
    assert np.abs(np.mean(steady[20:], axis=0) - logits).mean() < 0.2  # steady, and at the right place


def test_no_trail_stays_where_something_moved() -> None:
    average = MotionAverage()
    for x in range(24, 104, 4):
        luma, logits = scene(x)
        found = average.update(logits, luma, DT)
    assert ((found > 0) == (logits > 0)).mean() > 0.999
    # What the disc has just left is the newest answer, not a mixture.
    left = (scene(x - 4)[1] > 0) & (logits <= 0)
    assert np.allclose(found[left], logits[left], atol=1e-5)


def test_a_plain_average_would_leave_a_trail() -> None:
    """So the test above can fail."""
    gain = 1 - math.exp(-DT / 0.3)
    plain = scene(24)[1]
    for x in range(24, 104, 4):
        logits = scene(x)[1]
        plain = plain + np.float32(gain) * (logits - plain)
    assert ((plain > 0) == (logits > 0)).mean() < 0.95


def test_a_change_of_exposure_is_no_motion(rng: np.random.Generator) -> None:
    luma, logits = scene(64)
    average = MotionAverage()
    for step in range(30):
        average.update(logits, np.clip(luma.astype(int) + 3 * (step % 2), 0, 255).astype(np.uint8), DT)
    shaken = logits + rng.normal(0, 1, logits.shape).astype(np.float32)
    found = average.update(shaken, np.clip(luma.astype(int) + 8, 0, 255).astype(np.uint8), DT)
    assert np.abs(found - logits).mean() < 0.2 * np.abs(shaken - logits).mean()


@pytest.mark.parametrize("rate", [5, 15, 30, 60])
def test_the_memory_is_in_seconds_not_in_frames(rate: int) -> None:
    luma, logits = scene(64)
    average = MotionAverage()
    average.update(logits, luma, 1 / rate)
    for _ in range(rate):
        found = average.update(logits + 1, luma, 1 / rate)
    assert np.allclose(found - logits, 1 - math.exp(-1 / 0.3), atol=1e-3)


def test_the_first_frame_and_one_of_another_size_are_taken_as_they_are() -> None:
    average = MotionAverage()
    luma, logits = scene(64)
    assert np.array_equal(average.update(logits, luma, DT), logits)
    assert np.array_equal(average.update(logits[:50], luma[:50], DT), logits[:50])
    average.reset()
    assert np.array_equal(average.update(logits[:50] + 1, luma[:50], DT), logits[:50] + 1)


def test_the_answer_is_not_changed_later() -> None:
    """A caller may keep what it was given."""
    luma, logits = scene(64)
    average = MotionAverage()
    first = average.update(logits, luma, DT)
    copy = first.copy()
    average.update(logits + 3, luma, DT)
    assert np.array_equal(first, copy)


@pytest.mark.parametrize("enlarged", [1, 2])
def test_flow_carries_the_mask_along(enlarged: int) -> None:
    before, logits = scene(50, 44)
    now, truth = scene(56, 47)
    size = (WIDTH * enlarged, HEIGHT * enlarged)
    carried = FlowCarrier().carry(logits, *(cv2.resize(p, size).astype(np.uint8) for p in (before, now)))
    assert carried.shape == logits.shape
    held = ((logits > 0) != (truth > 0)).sum()
    assert ((carried > 0) != (truth > 0)).sum() < 0.4 * held


def test_flow_leaves_a_still_picture_alone() -> None:
    luma, logits = scene(64)
    assert np.abs(FlowCarrier().carry(logits, luma, luma) - logits).max() < 0.05


def test_a_clock_that_jumps_back_does_no_harm() -> None:
    """As in films that were spliced: times fall by hours."""
    average, luma = MotionAverage(), np.full((12, 16), 90, np.uint8)
    average.update(np.zeros((12, 16), np.float32), luma, 0.03)
    for seconds in (-0.5, -1000.0):
        found = average.update(np.ones((12, 16), np.float32), luma, seconds)
        assert (found >= 0).all()
        assert (found <= 1).all()
