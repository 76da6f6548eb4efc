"""What the network is shown: augmented pictures, their labels, and their order."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from edge_deeplab.data import open_split
from edge_deeplab.data.kind_camvid import CLASSES as CAMVID
from edge_deeplab.spec import PERSON_CLASSES
from edge_deeplab.training.augment import contour_band
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.dataset import Batches, Samples
from edge_deeplab.training.portraits import Portraits

STEPS = 30


def samples_of(config: TrainConfig) -> Samples:
    return Samples([open_split(spec, "train") for spec in config.data], config)


def test_a_sample_follows_from_seed_epoch_and_index_only(config: TrainConfig) -> None:
    samples = samples_of(config)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = samples[3, 5]
    assert torch.equal(torch.get_rng_state(), state)  # the training's own randomness is not touched
    torch.manual_seed(2)
    samples[0, 0]
    again = samples[3, 5]
    assert all(torch.equal(first[k], again[k]) for k in first)
    for other in (samples[4, 5], samples[3, 6], samples_of(dataclasses.replace(config, seed=9))[3, 5]):
        assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_samples_have_their_kinds_and_sizes(config: TrainConfig, size: tuple[int, int]) -> None:
    samples = samples_of(dataclasses.replace(config, size=size, strong=1.0))
    for index in range(40):
        sample = samples[index, index % 12]
        assert {k: (v.dtype, tuple(v.shape)) for k, v in sample.items()} == {
            "image": (torch.uint8, (3, *size)),
            "label": (torch.uint8, size),
            "band": (torch.uint8, size),
        }
        assert all(type(v) is Tensor for v in sample.values())
        assert set(sample["label"].unique().tolist()) <= {0, 1}
        assert set(sample["band"].unique().tolist()) <= {0, 1}


def test_labels_follow_the_pictures(config: TrainConfig) -> None:
    """The people are bright: through every mild warp, what is labelled is brighter than the rest."""
    samples = samples_of(dataclasses.replace(config, strong=0.0))
    for index in range(24):
        sample = samples[index, index % 12]
        brightness = sample["image"].float().mean(0)
        inside = sample["label"] == 1
        assert inside.any()
        assert brightness[inside].mean() > brightness[~inside].mean() + 20


def test_every_epoch_shows_every_picture_once(config: TrainConfig) -> None:
    keys = [key for batch in Batches(12, config, 0, STEPS) for key in batch]
    for epoch in range(10):
        assert sorted(index for e, index in keys if e == epoch) == list(range(12))
    orders = {tuple(index for e, index in keys if e == epoch) for epoch in range(10)}
    assert len(orders) == 10
    whole = list(Batches(12, config, 0, STEPS))
    assert len(Batches(12, config, 7, STEPS)) == STEPS - 7
    assert list(Batches(12, config, 7, STEPS)) == whole[7:]


def test_the_last_short_batch_is_dropped(config: TrainConfig) -> None:
    batches = list(Batches(14, config, 0, 6))
    assert [len(batch) for batch in batches] == [4] * 6
    assert [batch[0][0] for batch in batches] == [0, 0, 0, 1, 1, 1]


def test_the_band_lies_around_the_contour() -> None:
    label = np.zeros((20, 40), np.uint8)
    label[:, 20:] = 1
    band = contour_band(label, 5)
    assert np.flatnonzero(band[10]).tolist() == [18, 19, 20, 21]
    assert not contour_band(np.full((20, 20), 3, np.uint8), 9).any()
    label[:, 30:] = 255
    assert contour_band(label, 5).dtype == np.uint8


@pytest.mark.parametrize("known", [0, 1])
def test_no_contour_lies_between_a_class_and_what_is_ignored(known: int) -> None:
    label = np.full((20, 40), known, np.uint8)
    label[:, 20:] = 255
    assert not contour_band(label, 5).any()
    # Two classes with a thin line of ignored pixels between them, as VOC draws it, do meet.
    label[:, 22:] = 2
    assert np.flatnonzero(contour_band(label, 5)[10]).tolist() == [20, 21]
    assert np.flatnonzero(contour_band(label, 7)[10]).tolist() == [19, 20, 21, 22]


def test_around_a_person_is_background_and_around_a_scene_nothing_is_known(config: TrainConfig) -> None:
    """A flat colour beside the picture; class 0 of CamVid is sky, of Cityscapes road."""
    everywhere = tv_tensors.Mask(torch.ones(48, 64, dtype=torch.uint8))
    image = tv_tensors.Image(torch.zeros(3, 48, 64, dtype=torch.uint8))
    settings = dataclasses.replace(config, strong=1.0, backdrop=0.0)
    for classes, outside in ((PERSON_CLASSES, 0), (CAMVID, 255)):
        recipe = Portraits(settings, 1, classes)
        torch.manual_seed(0)
        seen = [recipe(lambda _: (image, everywhere), 0, 0)[1].unique().tolist() for _ in range(40)]
        assert {value for values in seen for value in values} == {1, outside}


def test_the_band_of_the_shipped_models_stays(config: TrainConfig) -> None:
    """They were trained with dilation != erosion; where nothing is ignored, that is what it is."""
    samples = samples_of(dataclasses.replace(config, strong=1.0))
    kernel = np.ones((config.boundary_width,) * 2, np.uint8)
    for index in range(24):
        label = samples[index, index % 12]["label"].numpy()
        wanted = cv2.dilate(label, kernel) != cv2.erode(label, kernel)
        assert np.array_equal(contour_band(label, config.boundary_width), wanted)
