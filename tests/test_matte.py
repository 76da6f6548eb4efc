"""The guided filter, and what makes alpha of a model's answers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Floats, Labels, sigmoid
from edge_deeplab.matte import Matte
from edge_deeplab.refine import guided_upsample

HEIGHT, WIDTH = 240, 320


def hill(x: float = 160, y: float = 120, radius: float = 60) -> tuple[Labels, Floats]:
    """Luma of a bright ellipse before a dark wall, and where it is (1 inside)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = np.hypot((columns - x) / 1.2, rows - y) < radius
    return np.where(inside, 190, 60).astype(np.uint8), inside.astype(np.float32)


def coarse(truth: Floats, shift: int = 0) -> Floats:
    """The answer of a network that sees little: shrunk to 60x80, blurred, a bit off."""
    small = cv2.resize(np.roll(truth, shift, axis=1), (80, 60), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 1.0)  # type: ignore[return-value]


def wrong(alpha: Floats, truth: Floats) -> float:
    return float(((alpha >= 0.5) != (truth > 0.5)).mean())


def enlarged(mask: Floats) -> Floats:
    return cv2.resize(mask, (WIDTH, HEIGHT))  # type: ignore[return-value]


@pytest.mark.parametrize("shift", [-3, 0, 3])
def test_edges_move_onto_the_picture_s(shift: int) -> None:
    luma, truth = hill()
    mask = coarse(truth, shift)
    before, after = wrong(enlarged(mask), truth), wrong(guided_upsample(mask, luma), truth)
    assert after < 0.5 * before


def test_a_flat_picture_moves_no_edge() -> None:
    truth = hill()[1]
    mask = coarse(truth)
    found = guided_upsample(mask, np.full((HEIGHT, WIDTH), 100, np.uint8))
    assert ((found >= 0.5) != (enlarged(mask) >= 0.5)).mean() < 0.01


def test_edges_inside_the_person_cut_no_holes() -> None:
    """A white badge on a dark shirt."""
    luma, truth = hill(radius=90)
    luma[100:140, 140:180] = 20
    found = guided_upsample(coarse(truth), luma)
    assert found[95:145, 135:185].min() > 0.95


def test_the_alpha_stays_between_0_and_1(rng: np.random.Generator) -> None:
    mask = rng.random((60, 80), np.float32)
    luma = rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    found = guided_upsample(mask, luma)
    assert (found.shape, found.dtype) == (luma.shape, np.float32)
    assert found.min() >= 0
    assert found.max() <= 1


def logits_of(truth: Floats) -> Floats:
    return np.where(truth > 0, np.float32(5), np.float32(-5))


def test_one_picture() -> None:
    luma, truth = hill()
    frame = cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR)
    alpha = Matte().update(frame, logits_of(np.roll(truth, 2, axis=1)))  # type: ignore[arg-type]
    assert (alpha.shape, alpha.dtype) == (truth.shape, np.float32)
    assert wrong(alpha, truth) < 0.6 * wrong(np.roll(truth, 2, axis=1), truth)


def test_without_refinement_it_is_the_model_s_own_answer() -> None:
    luma, truth = hill()
    logits = cv2.GaussianBlur(logits_of(truth), (0, 0), 6)
    alpha = Matte(refine=False).update(np.dstack([luma] * 3), logits)  # type: ignore[arg-type]
    assert np.abs(alpha - sigmoid(logits)).max() < 0.05  # type: ignore[arg-type]


def test_flicker_goes_and_can_stay(rng: np.random.Generator) -> None:
    luma, truth = hill()
    frame = np.dstack([luma] * 3)
    changes = {}
    for smooth in (False, True):
        matte, alphas = Matte(smooth=smooth), []
        for _ in range(12):
            shaken = logits_of(np.roll(truth, int(rng.integers(-3, 4)), axis=1))
            alphas.append(matte.update(frame, shaken, 1 / 30))
        changes[smooth] = float(np.abs(np.diff(alphas[4:], axis=0)).mean())
    assert changes[True] < 0.5 * changes[False]


def test_frames_between_answers_follow_the_motion() -> None:
    matte = Matte()
    random = np.random.default_rng(3)
    skin = cv2.resize(random.integers(150, 250, (30, 40)).astype(np.uint8), (WIDTH, HEIGHT))

    def frame(x: float) -> tuple[Labels, Floats]:
        luma, truth = hill(x)
        return np.dstack([np.where(truth > 0, np.roll(skin, round(x), axis=1), luma)] * 3), truth

    first, truth = frame(150)
    held = matte.update(first, logits_of(truth))
    for x in (155, 160):
        picture, truth = frame(x)
        carried = matte.propagate(picture)
    assert wrong(carried, truth) < 0.4 * wrong(held, truth)


def test_there_must_be_something_to_carry_on() -> None:
    matte = Matte()
    frame = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(UserError, match="nothing to propagate yet"):
        matte.propagate(frame)
    matte.update(frame, np.zeros((40, 60), np.float32))
    assert matte.ready(frame)
    assert not matte.ready(frame[:20])
    with pytest.raises(UserError, match="another size"):
        matte.propagate(frame[:20])
    matte.reset()
    assert not matte.ready(frame)


def test_another_size_starts_anew() -> None:
    matte = Matte()
    for height, width in ((40, 60), (60, 40), (480, 640)):
        frame = np.full((height, width, 3), 80, np.uint8)
        alpha = matte.update(frame, np.full((height, width), -4, np.float32))
        assert alpha.shape == (height, width)
        assert alpha.max() < 0.1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (31, 17), (2160, 3840)])
def test_any_size(height: int, width: int) -> None:
    matte = Matte()
    frame = np.full((height, width, 3), 80, np.uint8)
    alpha = matte.update(frame, np.full((height, width), 4, np.float32))
    assert alpha.shape == (height, width)
    assert alpha.min() > 0.9


def test_gray_and_four_channels_are_taken() -> None:
    for shape in ((40, 60), (40, 60, 4)):
        assert Matte().update(np.zeros(shape, np.uint8), np.zeros((40, 60), np.float32)).shape == (40, 60)


def test_logits_of_another_size_are_refused() -> None:
    with pytest.raises(UserError, match="cannot have logits"):
        Matte().update(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 61), np.float32))
