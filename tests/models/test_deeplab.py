"""The whole network: rates, shapes and strides of every variant."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from edge_deeplab.models.deeplab import ASPP, DeepLabV3Plus
from edge_deeplab.models.variants import VARIANTS, Architecture, variant

NAMES = list(VARIANTS)


def atrous_rates(model: nn.Module) -> list[int]:
    return [m.dilation[0] for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]


@pytest.mark.parametrize(("output_stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_pyramid_rates_keep_the_field_of_view(output_stride: int, rates: list[int]) -> None:
    built = DeepLabV3Plus(replace(variant("lite").architecture, output_stride=output_stride), 1)
    assert atrous_rates(built.aspp) == rates
    switched = DeepLabV3Plus(variant("lite").architecture, 1)
    assert atrous_rates(switched.aspp) == [6, 12, 18]
    switched.set_output_stride(output_stride)
    assert atrous_rates(switched.aspp) == rates
    assert switched.backbone.output_stride == output_stride


def test_pyramid_branches_at_8_hold_those_at_16_and_32() -> None:
    torch.manual_seed(0)
    aspp = ASPP(12, 8, atrous=True, dropout=0).eval()
    x = torch.randn(1, 12, 32, 28)
    with torch.no_grad():
        aspp.set_output_stride(8)
        dense = [branch(x) for branch in aspp.atrous]
        for output_stride, step in ((16, 2), (32, 4)):
            aspp.set_output_stride(output_stride)
            for branch, wanted in zip(aspp.atrous, dense, strict=True):
                torch.testing.assert_close(branch(x[..., ::step, ::step]), wanted[..., ::step, ::step])


def test_image_pooling_reaches_every_pixel() -> None:
    torch.manual_seed(0)
    aspp = ASPP(6, 8, atrous=False, dropout=0).eval()
    x = torch.randn(1, 6, 10, 12)
    changed = x.clone()
    changed[..., 0, 0] += 50
    with torch.no_grad():
        assert ((aspp(x) - aspp(changed)).abs().amax(1) > 0).float().mean() > 0.9
    assert len(aspp.atrous) == 0


@pytest.mark.parametrize("outputs", [1, 21])
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (96, 50)])
@pytest.mark.parametrize("name", NAMES)
def test_logits_lie_at_the_head_stride(name: str, size: tuple[int, int], outputs: int) -> None:
    model = DeepLabV3Plus(variant(name).architecture, outputs).eval()
    stride = {"v3": 16}.get(name, 4)
    assert model.head_stride == stride
    with torch.no_grad():
        logits = model(torch.zeros(2, 3, *size))
    assert logits.shape == (2, outputs, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_head_stride_follows_the_output_stride_without_a_decoder(output_stride: int) -> None:
    for name in ("v3", "nano"):
        model = DeepLabV3Plus(variant(name).architecture, 1).eval()
        model.set_output_stride(output_stride)
        assert model.head_stride == (output_stride if name == "v3" else 4)
        with torch.no_grad():
            assert model(torch.zeros(1, 3, 64, 96)).shape[2:] == (
                64 // model.head_stride,
                96 // model.head_stride,
            )


def test_switching_keeps_the_weights_and_switching_back_the_function() -> None:
    torch.manual_seed(0)
    model = DeepLabV3Plus(variant("lite").architecture, 3).eval()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        model.set_output_stride(8)
        other = model(x)
        model.set_output_stride(16)
        assert torch.equal(model(x), before)
    assert other.shape == before.shape
    assert not torch.equal(other, before)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("output_stride", [4, 10, 64])
def test_other_output_strides_are_refused(output_stride: int) -> None:
    with pytest.raises(ValueError, match="output stride must be 8, 16 or 32"):
        DeepLabV3Plus(Architecture(output_stride=output_stride), 1)


def test_weights_do_not_depend_on_the_output_stride() -> None:
    states = []
    for output_stride in (8, 16, 32):
        torch.manual_seed(3)
        states.append(
            DeepLabV3Plus(replace(variant("nano").architecture, output_stride=output_stride), 1).state_dict()
        )
    for state in states[1:]:
        assert list(state) == list(states[0])
        assert all(torch.equal(v, states[0][k]) for k, v in state.items())


def test_a_fresh_model_is_undecided() -> None:
    """The last layer starts small: no class is favoured before the first step."""
    torch.manual_seed(0)
    model = DeepLabV3Plus(variant("nano").architecture, 1).train()
    with torch.no_grad():
        probability = torch.sigmoid(model(torch.randn(4, 3, 64, 64)))
    assert float(probability.min()) > 0.3
    assert float(probability.max()) < 0.7


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    for name in NAMES:
        model = DeepLabV3Plus(variant(name).architecture, 2).train()
        model(torch.randn(2, 3, 64, 64)).square().mean().backward()
        gradients = {n: p.grad for n, p in model.named_parameters()}
        assert [n for n, grad in gradients.items() if grad is None or not grad.isfinite().all()] == []
        for name_of_weight in ("backbone.stem.0.weight", "classifier.weight"):
            grad = gradients[name_of_weight]
            assert grad is not None
            assert grad.any()


def test_dropout_is_the_architectures() -> None:
    model = DeepLabV3Plus(replace(variant("nano").architecture, dropout=0.3), 1)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3]
