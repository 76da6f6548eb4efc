"""Random scale and crop: where pixels go, what padding is, and what label-aware crops hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from edge_deeplab.data.kind_easyportrait import CLASSES as EASYPORTRAIT
from edge_deeplab.imaging import preprocess
from edge_deeplab.spec import PERSON_CLASSES, InputContract
from edge_deeplab.training.augment import Geometry, Mirror, Warp, fit, shrunk
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.crops import MEAN, ScaleCrop, crops
from edge_deeplab.training.portraits import Portraits
from edge_deeplab.training.sample import Sample

STILL = Geometry(scale=(1.0, 1.0), aspect=(1.0, 1.0), degrees=0, shift=0)


def sample(height: int, width: int) -> Sample:
    """A smooth picture whose red and green are its coordinates, with its left half labelled 1."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * x / width, 255 * y / height, np.full_like(x, 50.0)]).astype(np.uint8)
    label = (x < width / 2).astype(np.uint8)
    return tv_tensors.Image(torch.from_numpy(image)), tv_tensors.Mask(torch.from_numpy(label))


def cut(
    given: Sample, *, size: tuple[int, int], crop: tuple[int, int], scale: float, **options: Any
) -> tuple[Any, Any]:
    options = {"label_aware": 0.0, "fill": MEAN, **options}
    image, label = ScaleCrop(size, crop, scale=(scale, scale), **options)(*given)
    return image.permute(1, 2, 0).numpy(), label.numpy()


@pytest.mark.parametrize("source", [(48, 64), (200, 300), (31, 33)])
def test_scale_one_and_a_whole_crop_is_what_inference_sees(source: tuple[int, int]) -> None:
    given = sample(*source)
    image, label = cut(given, size=(48, 64), crop=(48, 64), scale=1.0)
    contract = InputContract("x", "lite", 48, 64, PERSON_CLASSES, dtype="uint8", layout="NHWC")
    frame = np.ascontiguousarray(given[0].permute(1, 2, 0).numpy())
    seen = preprocess(frame, contract, channels="RGB")[0]
    assert np.abs(image.astype(int) - seen.astype(int)).max() <= 2  # rounding of resize and warp
    assert (label == 1).mean() == pytest.approx(0.5, abs=0.03)
    assert not (label == 255).any()


def test_letterbox_keeps_the_aspect_ratio() -> None:
    torch.manual_seed(0)
    _, label = cut(sample(100, 50), size=(64, 64), crop=(64, 64), scale=1.0, resize="letterbox")
    inside = label != 255
    assert (inside.any(1).sum(), inside.any(0).sum()) == (64, 32)
    assert inside.sum() == 64 * 32


def test_padding_is_the_mean_and_ignored() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        image, label = cut(sample(40, 60), size=(40, 60), crop=(40, 60), scale=0.5)
        inside = label != 255
        assert (inside.any(1).sum(), inside.any(0).sum()) == (20, 30)
        assert inside.sum() == 20 * 30  # one rectangle
        assert (image[~inside] == 128).all()
        assert (image[inside][:, 2] == 50).all()  # and its edge is not mixed with the padding


def test_padding_is_the_mean_after_the_colours_have_changed(config: TrainConfig) -> None:
    recipe = crops(
        dataclasses.replace(config, crop=(48, 64), size=(48, 64), scale=(0.4, 0.6), jitter=0.9),
        PERSON_CLASSES,
    )
    assert recipe is not None
    image, label = sample(48, 64)
    label[:10] = 255  # ignored, but part of the picture
    torch.manual_seed(0)
    rows = []
    for _ in range(30):
        changed, _label = recipe(lambda _: (image, label), 0, 0)
        gray = (changed == 128).all(0)
        inside = ~gray
        height, width = inside.any(1).sum(), inside.any(0).sum()
        assert 0.4 * 48 - 1 <= height <= 0.6 * 48 + 1
        assert 0.4 * 64 - 1 <= width <= 0.6 * 64 + 1
        assert inside.sum() > 0.98 * height * width
        rows.append(int(height))
    assert len(set(rows)) > 3


def test_pixels_and_labels_move_together() -> None:
    """Red is the horizontal coordinate and the label its left half, at every scale and place."""
    torch.manual_seed(1)
    for scale in (0.6, 1.0, 1.7, 2.0):
        for _ in range(10):
            image, label = cut(sample(60, 80), size=(60, 80), crop=(40, 40), scale=scale)
            inside = label != 255
            left = image[..., 0][inside].astype(float) < 127.5
            assert (left == (label[inside] == 1)).mean() > 0.97
            # Neighbours in the crop are 1 / scale pixels apart in the picture.
            rows = np.flatnonzero(inside.all(1))
            if len(rows) and inside.all():
                steps = np.diff(image[20, :, 0].astype(float)).mean()
                assert steps == pytest.approx(255 / 80 / scale, rel=0.1)


def test_crops_differ_and_reach_every_corner() -> None:
    torch.manual_seed(2)
    seen = [cut(sample(60, 80), size=(60, 80), crop=(30, 40), scale=1.0)[0] for _ in range(200)]
    reds, greens = [im[..., 0] for im in seen], [im[..., 1] for im in seen]
    assert min(r.min() for r in reds) < 8
    assert max(r.max() for r in reds) > 246
    assert min(g.min() for g in greens) < 8
    assert max(g.max() for g in greens) > 244


def test_label_aware_crops_hold_rare_classes() -> None:
    image, label = sample(100, 100)
    rare = label.clone()
    rare[:] = 0
    rare[90:93, 4:7] = 3
    rare[0, 0] = 255
    given = (image, tv_tensors.Mask(rare))

    def share(label_aware: float) -> float:
        torch.manual_seed(3)
        hits = [
            (cut(given, size=(100, 100), crop=(32, 32), scale=1.5, label_aware=label_aware)[1] == 3).any()
            for _ in range(200)
        ]
        return float(np.mean(hits))

    assert share(0.0) < 0.15
    assert share(1.0) == pytest.approx(0.5, abs=0.12)  # one of two classes is drawn
    everything_ignored = (image, tv_tensors.Mask(torch.full_like(label, 255)))
    cut(everything_ignored, size=(100, 100), crop=(32, 32), scale=1.0, label_aware=1.0)


def test_photos_far_bigger_than_the_input_are_averaged() -> None:
    """A fine checkerboard becomes gray; sampled, it would stay black and white."""
    board = np.indices((640, 640)).sum(0) % 2 * 255
    pixels = np.repeat(board[None].astype(np.uint8), 3, axis=0)
    given = (
        tv_tensors.Image(torch.from_numpy(pixels)),
        tv_tensors.Mask(torch.zeros(640, 640, dtype=torch.uint8)),
    )
    image, _ = cut(given, size=(64, 64), crop=(64, 64), scale=1.0)
    assert np.abs(image.astype(int) - 128).max() <= 2
    warped, _ = Warp((64, 64), STILL)(*given)
    assert (warped.int() - 128).abs().max() <= 2


def test_shrinking_says_how_far() -> None:
    pixels = np.zeros((100, 301, 3), np.uint8)
    small, factors = shrunk(pixels, (0.25, 0.5))
    assert small.shape == (50, 150, 3)
    assert factors == (2.0, 301 / 150)
    same, factors = shrunk(pixels, (0.25, 0.6))
    assert same is pixels
    assert factors == (1.0, 1.0)


@pytest.mark.parametrize(("height", "width"), [(3000, 3), (2, 4000), (1500, 1)])
def test_a_strip_is_halved_to_no_less_than_a_pixel(height: int, width: int) -> None:
    """Letterboxed into 64x64 it is less than a pixel thin."""
    given = sample(height, width)
    image, label = ScaleCrop(
        (64, 64), (64, 64), scale=(0.5, 0.5), label_aware=1.0, fill=MEAN, resize="letterbox"
    )(*given)
    assert (image.shape, label.shape) == ((3, 64, 64), (64, 64))
    image, label = Warp((64, 64), STILL, resize="letterbox")(*given)
    assert (image.shape, label.shape) == ((3, 64, 64), (64, 64))
    assert (image[2].int() - 50).abs().max() <= 1


def test_fit() -> None:
    assert fit((50, 100), "stretch", 100, 100) == (0.5, 1.0, 0.0, 0.0)
    assert fit((50, 100), "letterbox", 100, 100) == (0.5, 0.5, 0.0, 25.0)
    assert fit((90, 60), "letterbox", 30, 30) == (2.0, 2.0, 15.0, 0.0)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_warp_that_does_nothing_is_what_inference_sees(resize: Any) -> None:
    given = sample(200, 100)
    image, label = Warp((64, 64), STILL, resize=resize)(*given)
    contract = InputContract("x", "lite", 64, 64, PERSON_CLASSES, resize=resize, dtype="uint8", layout="NHWC")
    seen = preprocess(np.ascontiguousarray(given[0].permute(1, 2, 0).numpy()), contract, channels="RGB")[0]
    inside = np.zeros((64, 64), bool)
    inside[2:-2, 18:-18] = True
    difference = np.abs(image.permute(1, 2, 0).numpy().astype(int) - seen.astype(int))[inside]
    assert difference.max() <= 4
    assert label.shape == (64, 64)


def test_the_recipe_gives_what_training_takes(config: TrainConfig) -> None:
    assert crops(config, PERSON_CLASSES) is None
    settings = dataclasses.replace(config, crop=(48, 80), size=(64, 64))
    recipe = crops(settings, PERSON_CLASSES)
    assert recipe is not None
    torch.manual_seed(0)
    seen = [recipe(lambda index: sample(60, 80), 0, 0) for _ in range(30)]
    for image, label in seen:
        assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 48, 80))
        assert (label.dtype, tuple(label.shape)) == (torch.uint8, (48, 80))
    # Some are mirrored: then the labelled half is on the right.
    right = [float((label[:, 40:] == 1).sum() > (label[:, :40] == 1).sum()) for _, label in seen]
    assert 0.1 < np.mean(right) < 0.9


@pytest.mark.parametrize("crop", [(48, 64), None])
def test_left_and_right_change_places_in_a_mirrored_picture(
    config: TrainConfig, crop: tuple[int, int] | None
) -> None:
    """EasyPortrait: whatever is labelled left lies in the person's left half, mirrored or not."""
    settings = dataclasses.replace(config, crop=crop, size=(48, 64), scale=(1.0, 1.0), strong=0.0)
    label = torch.full((48, 64), 255, dtype=torch.uint8)
    label[16:24, 8:24], label[16:24, 40:56] = 3, 4  # brows
    label[24:32, 8:24], label[24:32, 40:56] = 5, 6  # eyes
    label[40:, 24:40] = 7  # lips
    given = tv_tensors.Image(torch.full((3, 48, 64), 90, dtype=torch.uint8)), tv_tensors.Mask(label)
    recipe = crops(settings, EASYPORTRAIT) or Portraits(settings, 1, EASYPORTRAIT)
    torch.manual_seed(0)
    whole = 0
    for _ in range(40):
        ids = recipe(lambda _: given, 0, 0)[1].numpy()
        if set(np.unique(ids)) == {3, 4, 5, 6, 7, 255}:  # none of them out of the picture
            columns = [np.argwhere(ids == k)[:, 1].mean() for k in range(8) if k > 2]
            left_brow, right_brow, left_eye, right_eye, lips = columns
            assert left_brow < lips < right_brow
            assert left_eye < lips < right_eye
            whole += 1
    assert whole > 20


def test_a_mirror_without_sides_leaves_ids_alone() -> None:
    mirror = Mirror(PERSON_CLASSES)
    assert mirror.table is None
