"""Compositing: no halo, exact where alpha is 0 or 1, the same look at every size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_deeplab import composite
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Floats, Frame

HEIGHT, WIDTH = 240, 320


def disc(radius: float = 60, *, soft: float = 2.0, height: int = HEIGHT, width: int = WIDTH) -> Floats:
    """Alpha of a disc in the middle with an edge of ``2 x soft`` pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    distance = np.hypot(x - width / 2, y - height / 2)
    return np.clip((radius - distance) / (2 * soft) + 0.5, 0, 1).astype(np.float32)


def mixed(person: Frame, background: Frame, alpha: Floats) -> Frame:
    """What a camera sees, without the code under test."""
    a = alpha[..., None]
    return np.rint(a * person + (1 - a) * background).astype(np.uint8)


def texture(rng: np.random.Generator) -> Frame:
    small = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


RED = np.full((HEIGHT, WIDTH, 3), (20, 20, 230), np.uint8)
GRAY = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)


def test_the_blur_has_no_halo() -> None:
    """A red disc before a gray wall: blurred, the wall stays gray right up to the disc."""
    alpha = disc()
    frame = mixed(RED, GRAY, alpha)
    outside = alpha == 0
    shown = composite.blur_background(frame, alpha)
    halo = np.abs(shown[outside].astype(int) - 120).max()
    plain = cv2.GaussianBlur(frame, (0, 0), WIDTH / 60)
    naive = np.abs(composite.blend(frame, plain, alpha)[outside].astype(int) - 120).max()
    assert naive > 30  # so the picture shows a halo where there is one
    assert halo <= 1


def test_the_blur_blurs_the_background_only(rng: np.random.Generator) -> None:
    frame, alpha = texture(rng), disc()
    shown = composite.blur_background(frame, alpha)
    assert np.array_equal(shown[alpha == 1], frame[alpha == 1])
    rows = slice(0, 40)

    def roughness(picture: Frame) -> float:
        return float(np.abs(np.diff(picture[rows].astype(float), axis=1)).mean())

    assert roughness(shown) < 0.5 * roughness(frame)
    stronger = composite.blur_background(frame, alpha, strength=3)
    assert roughness(stronger) < 0.7 * roughness(shown)


def test_the_blur_looks_the_same_at_every_size(rng: np.random.Generator) -> None:
    frame, alpha = texture(rng), disc()
    big = cv2.resize(frame, (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    big_alpha = cv2.resize(alpha, (4 * WIDTH, 4 * HEIGHT))
    shown = cv2.resize(
        composite.blur_background(big, big_alpha), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
    )
    far = disc(radius=75) == 0
    difference = shown.astype(int) - composite.blur_background(frame, alpha)
    assert np.abs(difference[far]).mean() < 3


@pytest.mark.parametrize("wrap", [0.0, 0.5])
def test_replacing_keeps_person_and_background_exactly(rng: np.random.Generator, wrap: float) -> None:
    frame, alpha = texture(rng), disc(radius=60)
    background = texture(rng)[::-1].copy()
    shown = composite.replace_background(frame, alpha, background, wrap=wrap)
    assert np.array_equal(shown[alpha == 0], background[alpha == 0])
    deep = disc(radius=35) > 0
    assert np.array_equal(shown[deep], frame[deep])


def test_light_wraps_around_the_rim_only() -> None:
    alpha = disc()
    frame, white = mixed(RED, GRAY, alpha), np.full_like(RED, 255)
    bare = composite.replace_background(frame, alpha, white, wrap=0).astype(int)
    wrapped = composite.replace_background(frame, alpha, white, wrap=1).astype(int)
    rim = (alpha == 1) & (disc(radius=56, soft=0.5) == 0)
    assert (wrapped - bare)[rim][:, 0].mean() > 10
    assert np.array_equal(wrapped[disc(radius=40) > 0], bare[disc(radius=40) > 0])


def test_unmixing_gives_the_person_its_own_colours() -> None:
    alpha = disc(soft=4)
    edge = (alpha > 0.1) & (alpha < 0.9)
    frame = mixed(RED, GRAY, alpha)
    before = np.abs(frame[edge].astype(int) - RED[0, 0]).mean()
    found = composite.unmix(frame, alpha)
    assert np.abs(found[edge].astype(int) - RED[0, 0]).mean() < 0.15 * before
    assert np.array_equal(found[alpha == 1], frame[alpha == 1])
    assert np.array_equal(found[alpha == 0], frame[alpha == 0])


def test_unmixing_nothing_changes_nothing(rng: np.random.Generator) -> None:
    frame = texture(rng)
    assert np.array_equal(composite.unmix(frame, np.ones((HEIGHT, WIDTH), np.float32)), frame)


def test_a_cut_out_is_transparent_outside(rng: np.random.Generator) -> None:
    frame, alpha = texture(rng), disc()
    picture = composite.cut_out(frame, alpha)
    assert picture.shape == (HEIGHT, WIDTH, 4)
    assert np.array_equal(picture[..., 3], np.rint(alpha * 255))
    shown = composite.show_cut_out(frame, alpha)
    board = composite.checkerboard(HEIGHT, WIDTH)
    assert np.array_equal(shown[alpha == 0], board[alpha == 0])
    assert sorted(np.unique(board)) == sorted(composite.CHECKER)


def test_the_mask_is_the_alpha() -> None:
    alpha = disc()
    shown = composite.show_mask(RED, alpha)
    assert np.array_equal(shown[..., 0], np.rint(alpha * 255))
    assert np.array_equal(shown[..., 0], shown[..., 2])


def test_side_by_side() -> None:
    shown = composite.side_by_side(RED, GRAY)
    assert np.array_equal(shown[:, :WIDTH], RED)
    assert np.array_equal(shown[:, WIDTH:], GRAY)


def test_blending_is_the_formula(rng: np.random.Generator) -> None:
    a, b = texture(rng), texture(rng)[:, ::-1].copy()
    alpha = rng.random((HEIGHT, WIDTH), np.float32)
    assert np.abs(composite.blend(a, b, alpha).astype(int) - mixed(a, b, alpha)).max() <= 1
    for value, expected in ((0, b), (1, a)):
        assert np.array_equal(composite.blend(a, b, np.full_like(alpha, value)), expected)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (100, 700), (700, 100), (7, 5), (1, 1)])
def test_a_background_fills_the_frame_and_keeps_its_shape(height: int, width: int) -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(picture, (200, 150), 60, (255, 255, 255), -1)
    fitted = composite.fit(picture, height, width)
    assert fitted.shape == (height, width, 3)
    if min(height, width) >= 100:
        ys, xs = np.nonzero(fitted[..., 0] > 127)
        tall, wide = np.ptp(ys) + 1, np.ptp(xs) + 1
        factor = max(height / 300, width / 400)
        assert min(wide, width) == pytest.approx(min(121 * factor, width), abs=4)
        assert min(tall, height) == pytest.approx(min(121 * factor, height), abs=4)


def test_gray_and_transparent_backgrounds_are_taken() -> None:
    assert composite.fit(np.zeros((5, 9), np.uint8), 4, 4).shape == (4, 4, 3)
    assert composite.fit(np.zeros((5, 9, 4), np.uint8), 4, 4).shape == (4, 4, 3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (13, 17), (2160, 3840)])
def test_any_size(height: int, width: int) -> None:
    frame = np.full((height, width, 3), 90, np.uint8)
    alpha = disc(min(height, width) / 3, height=height, width=width)
    for shown in (
        composite.blur_background(frame, alpha),
        composite.replace_background(frame, alpha, frame),
        composite.show_cut_out(frame, alpha),
    ):
        assert shown.shape == frame.shape
        assert shown.dtype == np.uint8


@pytest.mark.parametrize(
    ("frame", "alpha"),
    [
        (RED[..., 0], disc()),
        (RED.astype(np.float32), disc()),
        (RED, disc()[:-1]),
        (RED, disc().astype(np.float64)),
    ],
)
def test_wrong_arrays_are_refused(frame: Frame, alpha: Floats) -> None:
    with pytest.raises(UserError, match="must be"):
        composite.blur_background(frame, alpha)


def test_a_background_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"composite\.fit"):
        composite.replace_background(RED, disc(), RED[:10])
