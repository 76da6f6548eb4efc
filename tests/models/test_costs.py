"""The table of variants is what the networks really cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from edge_deeplab.errors import UserError
from edge_deeplab.models.costs import multiply_adds, parameters
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.variants import VARIANTS, variant

NAMES = list(VARIANTS)


@pytest.mark.parametrize("name", NAMES)
def test_costs_at_513_with_21_classes(name: str) -> None:
    claimed = variant(name)
    model = DeepLabV3Plus(claimed.architecture, 21)
    assert parameters(model) == pytest.approx(claimed.params, rel=0.02)
    assert multiply_adds(model, 513, 513) == pytest.approx(claimed.macs_513, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_costs_at_256_with_one_logit(name: str) -> None:
    claimed = variant(name)
    model = DeepLabV3Plus(claimed.architecture, 1)
    assert multiply_adds(model, 256, 256) == pytest.approx(claimed.macs_256, rel=0.02)


def test_googles_mobile_model_costs_what_the_paper_says() -> None:
    """Sandler et al., table 7: 2.11 M parameters and 2.75 B multiply-adds at output stride 16."""
    model = DeepLabV3Plus(variant("v3").architecture, 21)
    assert parameters(model) == pytest.approx(2.11e6, rel=0.01)
    assert multiply_adds(model, 513, 513) == pytest.approx(2.75e9, rel=0.01)


def test_counting_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8 x 8 pixels out
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 5, 1, bias=False),
    )
    assert parameters(model) == (3 * 8 * 9 + 8) + 16 + 8 * 9 + 8 * 5
    assert multiply_adds(model, 16, 16) == 64 * (3 * 8 * 9 + 8 * 9 + 8 * 5)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = DeepLabV3Plus(variant("nano").architecture, 1)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = multiply_adds(model, 64, 64)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert multiply_adds(model, 64, 64) == first  # hooks are gone, nothing is counted twice
    assert not any(m._forward_hooks for m in model.modules())


def test_output_stride_is_paid_for_in_multiply_adds_only() -> None:
    architecture = variant("lite").architecture
    models = {os: DeepLabV3Plus(replace(architecture, output_stride=os), 1) for os in (8, 16, 32)}
    assert len({parameters(model) for model in models.values()}) == 1
    costs = [multiply_adds(models[os], 128, 128) for os in (8, 16, 32)]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == 3


def test_unknown_variant() -> None:
    with pytest.raises(UserError, match="no variant 'large'; there are: v3plus, v3, lite, lite-half, nano"):
        variant("large")


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_has_a_reason(name: str) -> None:
    assert len(variant(name).reason) > 20
