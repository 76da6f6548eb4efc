"""The loss: what counts, how much, and that parts add up."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_deeplab.errors import UserError
from edge_deeplab.training import objective
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.engine import Trainer
from edge_deeplab.training.losses import class_weights, dice_loss, pixel_weights


def random_targets(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, classes if classes > 2 else 1, 8, 8, generator=generator)
    label = torch.randint(0, classes, (3, 32, 32), generator=generator).to(torch.uint8)
    band = torch.randint(0, 2, (3, 32, 32), generator=generator).to(torch.uint8)
    return logits, label, band


def loss_of(logits: Tensor, label: Tensor, band: Tensor, config: TrainConfig) -> Tensor:
    """All of the loss of one batch."""
    whole = objective.Objective(config)
    part = whole.part(torch.zeros(0), label, band)
    return whole(logits, part, part.weight.sum(), 1)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("ohem", [1.0, 0.3])
def test_ignored_pixels_have_no_gradient_and_no_say(config: TrainConfig, classes: int, ohem: float) -> None:
    logits, label, band = random_targets(classes)
    settings = dataclasses.replace(config, ohem=ohem)
    logits = nn.functional.interpolate(logits, (32, 32)).requires_grad_()
    label[:, 10:20] = 255
    loss = loss_of(logits, label, band, settings)
    (grad,) = torch.autograd.grad(loss, logits)
    assert not grad[:, :, 10:20].any()
    assert grad[:, :, :10].any()
    changed = logits.detach().clone()
    changed[:, :, 10:20] += 3
    band[:, 10:20] = 1 - band[:, 10:20]
    torch.testing.assert_close(loss_of(changed, label, band, settings), loss.detach())


@pytest.mark.parametrize("classes", [2, 4])
def test_nothing_known_costs_next_to_nothing(config: TrainConfig, classes: int) -> None:
    logits, label, band = random_targets(classes)
    loss = loss_of(logits, torch.full_like(label, 255), band, config)
    assert float(loss) == 0


@pytest.mark.parametrize("classes", [2, 4])
def test_loss_falls_as_answers_get_better(config: TrainConfig, classes: int) -> None:
    _, label, band = random_targets(classes)
    one_hot = nn.functional.one_hot(label.long(), classes).permute(0, 3, 1, 2).float() * 2 - 1
    right = one_hot if classes > 2 else one_hot[:, 1:]
    losses = [float(loss_of(right * sure, label, band, config)) for sure in (-5, -1, 0, 1, 5, 30)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01


def test_cross_entropy_is_weighted_in_the_band_and_normalised(config: TrainConfig) -> None:
    logits, label, band = random_targets(4)
    full = nn.functional.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
    each = nn.functional.cross_entropy(full, label.long(), reduction="none")
    weight = 1.0 + 4.0 * band
    wanted = (each * weight).sum() / weight.sum()
    settings = dataclasses.replace(config, boundary_weight=5.0)
    torch.testing.assert_close(loss_of(logits, label, band, settings), wanted)
    even = dataclasses.replace(config, boundary_weight=1.0)
    torch.testing.assert_close(loss_of(logits, label, band, even), each.mean())


def test_only_the_hardest_pixels_count(config: TrainConfig) -> None:
    logits, label, band = random_targets(4)
    label[:, :4] = 255
    full = nn.functional.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
    each = nn.functional.cross_entropy(full, label.long(), reduction="none", ignore_index=255)
    known = each[label != 255]
    settings = dataclasses.replace(config, boundary_weight=1.0, ohem=0.25)
    wanted = known.sort(descending=True).values[: round(0.25 * len(known))].mean()
    torch.testing.assert_close(loss_of(logits, label, band, settings), wanted)


def test_rare_classes_weigh_more() -> None:
    counts, near = [700, 200, 100, 0], [1000, 1000, 250, 0]
    median = class_weights(counts, near, "median")
    # Frequencies .7, .2 and .4: the third is rare, but not where it is.
    torch.testing.assert_close(median, torch.tensor([4 / 7, 2.0, 1.0, 0.0]) / 0.9)
    assert float((median * torch.tensor(counts)).sum()) == pytest.approx(1000)  # mean 1 over pixels
    log = class_weights(counts, near, "log")
    assert float(log[2] / log[0]) == pytest.approx(math.log(1.72) / math.log(1.12), rel=1e-5)
    assert float((log * torch.tensor(counts)).sum()) == pytest.approx(1000)


@pytest.mark.parametrize("rule", ["median", "log"])
def test_nothing_to_weigh_is_said(rule: Any) -> None:
    with pytest.raises(UserError, match="no label of the training pictures counts, so --class-weights"):
        class_weights([0, 0, 0], [0, 0, 0], rule)


def test_classes_are_counted_in_the_pictures_that_hold_them(
    tmp_path: Path, people: Path, config: TrainConfig
) -> None:
    """Class 2 fills half of the one picture it is in; ignored pixels are nobody's."""
    root = tmp_path / "pets"
    shutil.copytree(people, root)
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    for number, file in enumerate(sorted((root / "train" / "masks").iterdir())):
        mask = np.zeros((48, 64), np.uint8)
        mask[:12] = 1
        if number == 0:
            mask[:, 32:] = 2
        mask[24:] = 255
        cv2.imwrite(str(file), mask)
    settings = dataclasses.replace(config, data=(f"folder:{root}",), class_weights="median")
    found = Trainer(settings, tmp_path / "run")._class_weights()
    assert found is not None
    # Of 24 known rows, 0 and 1 have half each in eleven pictures and a quarter each in the one with class 2.
    frequency = torch.tensor([5.75 / 12, 5.75 / 12, 0.5])
    torch.testing.assert_close(found / found[0], frequency[0] / frequency)


def test_class_weights_are_the_pixels_weights(config: TrainConfig) -> None:
    label = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    settings = dataclasses.replace(config, boundary_weight=3.0)
    band = torch.tensor([[[1, 0], [0, 1]]], dtype=torch.uint8)
    weight = pixel_weights(label, band, settings, torch.tensor([0.5, 2.0, 4.0]))
    assert weight.tolist() == [[[1.5, 2.0], [4.0, 0.0]]]


def test_dice_is_added_for_two_classes(config: TrainConfig) -> None:
    logits, label, band = random_targets(2)
    without = loss_of(logits, label, band, dataclasses.replace(config, dice=0.0))
    full = nn.functional.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)[:, 0]
    probability, target = torch.sigmoid(full), label.float()
    dice = 1 - (2 * (probability * target).sum((1, 2)) + 1) / ((probability + target).sum((1, 2)) + 1)
    torch.testing.assert_close(dice_loss(logits, label), dice.mean())
    ours = loss_of(logits, label, band, dataclasses.replace(config, dice=0.5))
    torch.testing.assert_close(ours, without + 0.5 * dice.mean())


def test_parts_of_a_batch_add_up_to_its_loss(config: TrainConfig) -> None:
    """Whatever part the ignored pixels and the contours are in."""
    logits, label, band = (torch.cat([each, each[:1].flip(2)]) for each in random_targets(2))
    label[0, :20] = 255
    whole = objective.Objective(config)
    parts = [whole.part(torch.zeros(0), label[at : at + 2], band[at : at + 2]) for at in (0, 2)]
    total = sum((part.weight.sum() for part in parts), torch.zeros(()))
    shares = [whole(logits[at : at + 2], part, total, 2) for at, part in zip((0, 2), parts, strict=True)]
    torch.testing.assert_close(shares[0] + shares[1], loss_of(logits, label, band, config))
