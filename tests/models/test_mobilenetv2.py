"""The backbone: table 2 of the paper, and the same function at every output stride."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edge_deeplab.models.mobilenetv2 import InvertedResidual, MobileNetV2, scaled, strides_and_rates


def randomised(model: nn.Module, seed: int = 0) -> Any:
    """Batch norms that do something, in evaluation mode and double precision."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return model.eval().double()


def run(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        low_level, features = model(x)
    return low_level, features


@pytest.fixture
def picture() -> Tensor:
    return torch.randn(1, 3, 96, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# -- the plan ------------------------------------------------------------------------------------


def test_strides_at_32_are_the_papers() -> None:
    plan = strides_and_rates(32)
    assert [stride for stride, _ in plan] == [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    assert {rate for _, rate in plan} == {1}


def test_strides_and_rates_at_16() -> None:
    plan = strides_and_rates(16)
    assert plan[:13] == strides_and_rates(32)[:13]
    assert plan[13] == (1, 1)  # block 14 loses its stride and keeps the rate before it
    assert plan[14:] == [(1, 2)] * 3


def test_strides_and_rates_at_8() -> None:
    plan = strides_and_rates(8)
    assert plan[:6] == strides_and_rates(32)[:6]
    assert plan[6] == (1, 1)
    assert plan[7:13] == [(1, 2)] * 6
    assert plan[13] == (1, 2)
    assert plan[14:] == [(1, 4)] * 3


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_plan_arrives_at_the_convolutions(output_stride: int) -> None:
    model = MobileNetV2(0.5, output_stride)
    assert model.output_stride == output_stride
    found = []
    for block in model.blocks:
        (depthwise,) = (m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels
        assert depthwise.stride[0] == depthwise.stride[1]
        found.append((depthwise.stride[0], depthwise.dilation[0]))
    assert found == strides_and_rates(output_stride)


@pytest.mark.parametrize("output_stride", [0, 4, 7, 64, 16.5])
def test_other_output_strides_are_refused(output_stride: Any) -> None:
    with pytest.raises(ValueError, match="output stride must be 8, 16 or 32, not"):
        MobileNetV2(0.5, output_stride)
    model = MobileNetV2(0.5, 16)
    with pytest.raises(ValueError, match="output stride must be 8, 16 or 32, not"):
        model.set_output_stride(output_stride)
    assert model.output_stride == 16


# -- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (129, 64), (50, 33)])
def test_sizes_are_divided_and_rounded_up(size: tuple[int, int], output_stride: int, padding: Any) -> None:
    model = MobileNetV2(0.5, output_stride, padding).eval()
    low_level, features = run(model, torch.zeros(2, 3, *size))
    assert low_level.shape == (2, model.low_level_channels, -(-size[0] // 4), -(-size[1] // 4))
    assert features.shape == (
        2,
        model.out_channels,
        -(-size[0] // output_stride),
        -(-size[1] // output_stride),
    )


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_the_papers_input_of_513(padding: Any) -> None:
    low_level, features = run(MobileNetV2(0.5, 16, padding).eval(), torch.zeros(1, 3, 513, 513))
    assert low_level.shape[2:] == (129, 129)
    assert features.shape[2:] == (33, 33)


@pytest.mark.parametrize(
    ("width", "low_level", "out"), [(1.0, 24, 320), (0.5, 16, 160), (0.75, 24, 240), (1.4, 32, 448)]
)
def test_width_multiplier(width: float, low_level: int, out: int) -> None:
    model = MobileNetV2(width)
    assert (model.low_level_channels, model.out_channels) == (low_level, out)


def test_channels_of_the_paper() -> None:
    model = MobileNetV2()
    blocks = [block for block in model.blocks if isinstance(block, InvertedResidual)]
    outs = [
        next(m.out_channels for m in block.project.modules() if isinstance(m, nn.Conv2d)) for block in blocks
    ]
    assert outs == [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    activations = [type(m) for m in model.modules() if isinstance(m, (nn.ReLU, nn.ReLU6))]
    assert activations == [nn.ReLU6] * (1 + 1 + 2 * 16)  # linear bottlenecks: none after a projection


@pytest.mark.parametrize(
    ("channels", "width", "wanted"),
    [(32, 1.0, 32), (24, 0.5, 16), (16, 0.5, 8), (16, 0.1, 8), (24, 1.4, 32), (32, 0.35, 16)],
)
def test_channels_are_multiples_of_8_and_never_below_90_percent(
    channels: int, width: float, wanted: int
) -> None:
    assert scaled(channels, width) == wanted
    assert wanted % 8 == 0
    assert wanted >= 0.9 * channels * width


# -- one set of weights at every output stride -----------------------------------------------------


def test_shortcuts_are_the_same_at_every_output_stride() -> None:
    wanted = [n not in (1, 2, 4, 7, 11, 14, 17) for n in range(1, 18)]
    for output_stride in (8, 16, 32):
        model = MobileNetV2(0.5, output_stride)
        assert [block.shortcut for block in model.blocks] == wanted
        model.set_output_stride(24 - output_stride if output_stride < 32 else 8)
        assert [block.shortcut for block in model.blocks] == wanted


def test_switching_keeps_the_weights_and_switching_back_the_function(picture: Tensor) -> None:
    model = randomised(MobileNetV2(0.5, 16))
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    before = run(model, picture)
    for output_stride in (8, 32, 16):
        model.set_output_stride(output_stride)
        assert list(model.state_dict()) == list(weights)
        assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
        fresh = randomised(MobileNetV2(0.5, output_stride))
        fresh.load_state_dict(weights)
        for ours, theirs in zip(run(model, picture), run(fresh, picture), strict=True):
            assert torch.equal(ours, theirs)
    for ours, theirs in zip(run(model, picture), before, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", [(96, 64), (97, 65), (97, 64), (72, 51)])
def test_features_at_16_and_8_hold_those_at_32(size: tuple[int, int]) -> None:
    """What atrous convolution is for: the same filters on a denser grid (DeepLabv3, section 3.1).

    With symmetric padding, every output pixel of a stride-2 convolution is centred on an even input
    pixel, so that every second (fourth) feature at output stride 16 (8) is that at 32, borders included.
    """
    picture = torch.randn(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    model = randomised(MobileNetV2(0.5, 32, "symmetric"))
    low_level, coarse = run(model, picture)
    assert coarse.abs().mean() > 0.01
    for output_stride in (16, 8):
        model.set_output_stride(output_stride)
        same_low_level, dense = run(model, picture)
        step = 32 // output_stride
        torch.testing.assert_close(same_low_level, low_level, rtol=0, atol=0)
        torch.testing.assert_close(dense[..., ::step, ::step], coarse, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(
            dense[..., 1::step, ::step][..., : coarse.shape[2] - 1, :], coarse[..., :-1, :]
        )


@pytest.mark.parametrize("size", [(96, 64), (128, 32)])
def test_the_same_with_tensorflows_padding(size: tuple[int, int]) -> None:
    """``same`` centres the outputs of a stride-2 convolution on odd pixels where the input is even."""
    picture = torch.randn(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    model = randomised(MobileNetV2(0.5, 32, "same"))
    low_level, coarse = run(model, picture)
    for output_stride, offset in ((16, 1), (8, 3)):
        step = 32 // output_stride
        if (size[0] // output_stride) % step or (size[1] // output_stride) % step:
            continue
        model.set_output_stride(output_stride)
        same_low_level, dense = run(model, picture)
        torch.testing.assert_close(same_low_level, low_level, rtol=0, atol=0)
        torch.testing.assert_close(dense[..., offset::step, offset::step], coarse, rtol=1e-9, atol=1e-9)


def test_a_wrong_rate_would_be_noticed(picture: Tensor) -> None:
    """The two tests above can fail: without the rates, the features are others."""
    model = randomised(MobileNetV2(0.5, 32, "symmetric"))
    _, coarse = run(model, picture)
    model.set_output_stride(16)
    for block in model.blocks[14:]:
        block.set_rate(1, 1)
    _, dense = run(model, picture)
    assert not torch.allclose(dense[..., ::2, ::2], coarse, rtol=1e-3, atol=1e-3)


def test_a_replaced_convolution_is_not_ignored() -> None:
    model: Any = MobileNetV2(0.5, 16)
    model.blocks[3].depthwise[0] = nn.Conv2d(96, 96, 3, groups=96)
    with pytest.raises(TypeError, match="the depthwise convolution was replaced"):
        model.set_output_stride(8)
    model.blocks[3] = nn.Identity()
    with pytest.raises(TypeError, match="Identity is no inverted residual"):
        model.set_output_stride(8)
