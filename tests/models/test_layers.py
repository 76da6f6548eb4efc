"""Layers against plain PyTorch: padding, atrous rates, and the depthwise gradient of our own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_deeplab.models.layers import Conv2d, ConvBNAct, SeparableConv, bilinear

SIZES = [(16, 16), (17, 15), (24, 31), (40, 38), (5, 4), (1, 1), (1, 9)]


def padded(x: Tensor, layer: Conv2d) -> Tensor:
    """What TensorFlow's SAME or PyTorch's symmetric padding put around x, from their definitions."""
    kernel, stride, rate = layer.kernel_size[0], layer.stride[0], layer.dilation[0]
    amounts: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = 2 * rate * (kernel // 2)
        before = total // 2
        if layer.same:
            total = max((-(-size // stride) - 1) * stride + rate * (kernel - 1) + 1 - size, 0)
            before = total // 2
        amounts += [before, total - before]
    return F.pad(x, amounts)


def reference(layer: Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(padded(x, layer), weight, None, layer.stride, 0, layer.dilation, layer.groups)


def depthwise(channels: int, stride: int, dilation: int, padding: Any) -> Conv2d:
    torch.manual_seed(0)
    return Conv2d(channels, channels, 3, stride=stride, dilation=dilation, groups=channels, padding=padding)


def gradients(layer: Conv2d, x: Tensor, *, ours: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of x and gradient of the weight for one fixed random gradient of the output."""
    x = x.detach().clone().requires_grad_()
    weight = layer.weight if ours else layer.weight.detach().clone().requires_grad_()
    y = layer(x) if ours else reference(layer, x, weight)
    seen = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y.dtype)
    grad_x, grad_w = torch.autograd.grad(y, (x, weight), seen)
    return y.detach(), grad_x, grad_w


GEOMETRIES = [(1, 1), (1, 2), (1, 3), (1, 6), (1, 12), (1, 18), (2, 1)]


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("stride", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("size", SIZES)
def test_depthwise_gradients_equal_autograds(
    size: tuple[int, int], stride: int, dilation: int, padding: Any
) -> None:
    layer = depthwise(5, stride, dilation, padding)
    x = torch.randn(3, 5, *size)
    for inputs in (x, x.to(memory_format=torch.channels_last)):
        names = ("output", "gradient of x", "gradient of the weight")
        pairs = zip(
            gradients(layer, inputs, ours=True), gradients(layer, inputs, ours=False), names, strict=True
        )
        for ours, theirs, name in pairs:
            assert ours.shape == theirs.shape
            assert ours.dtype == theirs.dtype
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("stride", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("size", [(16, 16), (17, 15), (40, 38), (5, 4)])
def test_depthwise_gradients_under_autocast(
    size: tuple[int, int], stride: int, dilation: int, padding: Any
) -> None:
    """In bfloat16, within its rounding (2^-8) of the float32 gradients of the same rounded values."""
    layer = depthwise(4, stride, dilation, padding)
    layer.weight.data = layer.weight.data.bfloat16().float()
    x = torch.randn(2, 4, *size).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.requires_grad_())
    assert y.dtype == torch.bfloat16
    seen = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).bfloat16()
    grad_x, grad_w = torch.autograd.grad(y, (x, layer.weight), seen)
    assert grad_x.dtype == grad_w.dtype == torch.float32  # those of the float32 tensors that autocast rounded
    weight = layer.weight.detach().clone().requires_grad_()
    wanted_y = reference(layer, x, weight)
    wanted_x, wanted_w = torch.autograd.grad(wanted_y, (x, weight), seen.float())
    for ours, theirs in ((y.detach().float(), wanted_y.detach()), (grad_x, wanted_x), (grad_w, wanted_w)):
        scale = float(theirs.abs().max()) + 1e-6
        assert float((ours - theirs).abs().max()) < 0.02 * scale
        assert float((ours - theirs).abs().mean()) < 0.004 * scale


@pytest.mark.parametrize(("stride", "dilation"), [(2, 2), (2, 3)])
def test_a_strided_atrous_convolution_is_right_or_refused(stride: int, dilation: int) -> None:
    """The paper needs none, but :class:`Conv2d` takes both settings; a wrong gradient would go unnoticed."""
    for padding in ("symmetric", "same"):
        try:
            layer = depthwise(3, stride, dilation, padding)
        except ValueError:
            continue
        x = torch.randn(2, 3, 20, 21)
        for ours, theirs in zip(gradients(layer, x, ours=True), gradients(layer, x, ours=False), strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dilation", [1, 2, 18])
def test_the_weights_alone_can_be_trained(dilation: int) -> None:
    layer = depthwise(3, 1, dilation, "symmetric")
    x = torch.randn(2, 3, 20, 20)
    _, _, wanted = gradients(layer, x, ours=False)
    y = layer(x)
    seen = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    y.backward(seen)
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dilation", [1, 2, 18])
def test_the_input_alone_can_be_trained(dilation: int) -> None:
    """Frozen filters: the gradient passes through them."""
    layer = depthwise(3, 1, dilation, "symmetric")
    _, wanted, _ = gradients(layer, x := torch.randn(2, 3, 20, 20), ours=False)
    layer.weight.requires_grad_(False)
    y = layer(x := x.clone().requires_grad_())
    (grad,) = torch.autograd.grad(y, x, torch.randn(y.shape, generator=torch.Generator().manual_seed(5)))
    torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("stride", "dilation"), GEOMETRIES)
def test_training_and_inference_compute_the_same(stride: int, dilation: int, padding: Any) -> None:
    layer = depthwise(4, stride, dilation, padding)
    x = torch.randn(2, 4, 21, 18)
    with_gradient = layer(x)
    assert with_gradient.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(layer(x), with_gradient, rtol=0, atol=0)
    with torch.inference_mode():
        assert torch.equal(layer(x), with_gradient)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
        with torch.no_grad():
            assert torch.equal(layer(x), half)


def test_a_second_derivative_is_refused_not_wrong() -> None:
    layer = depthwise(3, 1, 2, "symmetric")
    x = torch.randn(1, 3, 9, 9, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


# -- padding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("stride", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("size", [(n, n + 1) for n in range(1, 12)])
def test_padding_equals_its_definition(
    size: tuple[int, int], stride: int, dilation: int, padding: Any, groups: int
) -> None:
    torch.manual_seed(1)
    layer = Conv2d(4, 4, 3, stride=stride, dilation=dilation, groups=groups, padding=padding)
    x = torch.randn(1, 4, *size)
    with torch.no_grad():
        y = layer(x)
        torch.testing.assert_close(y, reference(layer, x, layer.weight), rtol=1e-5, atol=1e-5)
    assert y.shape[2:] == (-(-size[0] // stride), -(-size[1] // stride))


def test_the_two_paddings_differ_on_even_sizes_only() -> None:
    torch.manual_seed(1)
    symmetric, same = Conv2d(3, 3, 3, stride=2), Conv2d(3, 3, 3, stride=2, padding="same")
    same.load_state_dict(symmetric.state_dict())
    with torch.no_grad():
        odd, even = torch.randn(1, 3, 9, 13), torch.randn(1, 3, 8, 12)
        torch.testing.assert_close(symmetric(odd), same(odd))
        assert not torch.allclose(symmetric(even), same(even))
        # SAME looks one pixel further down and right: symmetric does so on a picture moved by one.
        moved = symmetric(even[..., 1:, 1:])
        torch.testing.assert_close(same(even)[..., 1:, 1:], moved[..., 1:, 1:])


def test_a_1x1_convolution_is_not_padded() -> None:
    layer = Conv2d(3, 5)
    assert layer(torch.zeros(1, 3, 7, 6)).shape == (1, 5, 7, 6)
    assert layer.bias is None


# -- atrous ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (17, 15), (9, 20)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_rate_2_every_second_pixel_is_rate_1_on_every_second_pixel(
    size: tuple[int, int], channels_last: bool
) -> None:
    layer = depthwise(3, 1, 2, "symmetric")
    x = torch.randn(2, 3, *size)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    dense = layer(x)[..., ::2, ::2]
    layer.set_rate(1, 1)
    torch.testing.assert_close(dense, layer(x[..., ::2, ::2]))


def test_stride_2_then_rate_1_is_stride_1_then_rate_2_subsampled() -> None:
    torch.manual_seed(0)
    first, second = Conv2d(3, 3, 3, stride=2, groups=3), Conv2d(3, 3, 3, groups=3)
    x = torch.randn(1, 3, 19, 24)
    coarse = second(first(x))
    first.set_rate(1, 1)
    second.set_rate(1, 2)
    torch.testing.assert_close(second(first(x))[..., ::2, ::2], coarse)


def test_set_rate_keeps_weights_and_follows_with_the_padding() -> None:
    layer = depthwise(3, 2, 1, "same")
    weight = layer.weight.detach().clone()
    for stride, dilation in ((1, 18), (1, 4), (2, 1), (1, 1)):
        layer.set_rate(stride, dilation)
        assert layer(torch.zeros(1, 3, 10, 10)).shape == (1, 3, 10 // stride, 10 // stride)
    assert torch.equal(layer.weight, weight)


# -- the rest ----------------------------------------------------------------------------------------


def test_conv_bn_act() -> None:
    layers = ConvBNAct(3, 8, 3, stride=2, activation=nn.ReLU6, eps=1e-3, momentum=0.003)
    assert [type(m) for m in layers] == [Conv2d, nn.BatchNorm2d, nn.ReLU6]
    norm = layers[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert (norm.eps, norm.momentum) == (1e-3, 0.003)
    assert [type(m) for m in ConvBNAct(3, 8, activation=None)] == [Conv2d, nn.BatchNorm2d]


def test_separable_conv_is_depthwise_then_pointwise() -> None:
    convolutions = [m for m in SeparableConv(6, 10, dilation=3).modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size, m.groups, m.dilation, m.out_channels) for m in convolutions] == [
        ((3, 3), 6, (3, 3), 6),
        ((1, 1), 1, (1, 1), 10),
    ]


@pytest.mark.parametrize("size", [(8, 8), (17, 31), (129, 64)])
def test_bilinear_has_half_pixel_centres(size: tuple[int, int]) -> None:
    """As OpenCV resizes: logits may be brought to size inside or outside the graph."""
    import cv2

    plane = torch.randn(9, 13, generator=torch.Generator().manual_seed(0))
    ours = bilinear(plane[None, None], size)[0, 0].numpy()
    theirs = cv2.resize(plane.numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)
    assert abs(ours - theirs).max() < 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(Conv2d(8, 8, 3, groups=4, dilation=2), id="grouped"),
        pytest.param(Conv2d(4, 8, 3, groups=4, dilation=2), id="two filters a channel"),
        pytest.param(Conv2d(4, 4, 5, groups=4, dilation=2), id="5x5"),
        pytest.param(Conv2d(4, 4, 3, groups=4), id="no stride, no rate"),
    ],
)
def test_other_convolutions_keep_autograds_gradient(layer: Conv2d) -> None:
    """On a map so small that the tap-by-tap path, which knows 3x3 depthwise only, would be taken."""
    x = torch.randn(2, layer.in_channels, 4, 4, dtype=torch.float64, requires_grad=True)
    assert "_Depthwise" not in layer.double()(x).grad_fn.name()
    assert torch.autograd.gradcheck(layer, (x,))
