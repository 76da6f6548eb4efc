"""The few layers a DeepLab on MobileNetV2 is made of."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Padding = Literal["symmetric", "same"]
"""How a 3x3 stride-2 convolution pads an even-sized input: PyTorch's one pixel on every side, or
TensorFlow's ``SAME``, one pixel at the bottom and right. Odd sizes (513) are padded alike by both.
Weights from TF-Slim expect ``same``; TFLite runs it without a separate PAD node."""


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) to (N, C, *size), half-pixel centres: the only upsampling in the model.

    Half-pixel centres (``align_corners=False``) are also what OpenCV, ONNX ``half_pixel`` and
    TFLite ``half_pixel_centers`` do, so that logits may be resized in or outside the graph.
    """
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class Conv2d(nn.Conv2d):
    """A k x k convolution, without bias, that keeps the size (divided by the stride).

    ``stride`` and ``dilation`` may be changed on a trained layer: the padding follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, groups=groups, bias=False)
        self.same = padding == "same"
        self.set_rate(stride, dilation)

    def set_rate(self, stride: int, dilation: int) -> None:
        """Set stride and atrous rate; weights stay as they are.

        Raises:
            ValueError: Both above 1: the papers need none, and the backward pass here knows none.
        """
        if stride > 1 and dilation > 1:
            raise ValueError(f"stride {stride} and atrous rate {dilation} at once are not supported")
        self.stride, self.dilation = (stride, stride), (dilation, dilation)
        reach = dilation * (self.kernel_size[0] // 2)
        self.padding = (reach, reach)

    @property
    def _slow_to_train(self) -> bool:
        """A depthwise 3x3 with a stride or a rate: what :class:`_Depthwise` is for."""
        depthwise = self.groups == self.in_channels == self.out_channels
        return depthwise and self.kernel_size == (3, 3) and (self.stride[0] > 1 or self.dilation[0] > 1)

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.same and self.stride[0] == 2 and self.kernel_size[0] > 1:
            height, width = x.shape[-2:]
            x, padding = F.pad(x, (width % 2, 1, height % 2, 1)), (0, 0)
        trains = torch.is_grad_enabled() and self.weight.requires_grad
        if not (self._slow_to_train and x.device.type == "cpu" and trains):
            return F.conv2d(x, self.weight, None, self.stride, padding, self.dilation, self.groups)
        weight: Tensor = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        y: Tensor = _Depthwise.apply(x, weight, self.stride, padding, self.dilation)
        return y


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution whose backward pass avoids oneDNN's slow CPU kernels.

    On a CPU, the gradient of a strided depthwise convolution is 6 to 20 times slower in bfloat16
    than in float32, and that of a dilated one 5 to 12 times slower than without dilation. So the
    first is computed in float32, and the second on the d x d interleaved sub-images on which a rate
    of d is a rate of 1 (space to batch), or tap by tap where those would be only a pixel or two.
    All are exact but for rounding; ``benchmarks/depthwise.py`` times them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        rate = dilation[0]
        grad_x: Tensor | None
        grad_w: Tensor | None
        if stride[0] == 1 and 2 * rate >= min(x.shape[2:]):
            grad_x, grad_w = _shifted(grad, x, weight, rate)
        elif stride[0] == 1 and rate > 1:
            grad_x, grad_w = _backward(
                _space_to_batch(grad, rate), _space_to_batch(x, rate), weight, (1, 1), (1, 1), wanted
            )
            grad_x = None if grad_x is None else _batch_to_space(grad_x, rate, x.shape)
        elif stride[0] > 1 and x.dtype in (torch.bfloat16, torch.float16):
            grad_x, grad_w = _backward(grad.float(), x.float(), weight.float(), stride, padding, wanted)
            grad_x = None if grad_x is None else grad_x.to(x.dtype)
            grad_w = None if grad_w is None else grad_w.to(weight.dtype)
        else:
            grad_x, grad_w = _backward(grad, x, weight, stride, padding, wanted)
        return grad_x, grad_w, None, None, None


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), x.shape[1], wanted
    )
    return grad_x, grad_w


def _shifted(grad: Tensor, x: Tensor, weight: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """Both gradients of a 3x3 convolution, tap by tap; taps that fall outside cost nothing."""
    grad_x, grad_w = torch.zeros_like(x), torch.zeros_like(weight)
    height, width = x.shape[2:]
    for row in range(3):
        for column in range(3):
            dy, dx = (row - 1) * rate, (column - 1) * rate
            if abs(dy) >= height or abs(dx) >= width:
                continue
            out = (..., slice(max(0, -dy), height - max(0, dy)), slice(max(0, -dx), width - max(0, dx)))
            inp = (..., slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx)))
            tap = grad[out]
            grad_x[inp] += tap * weight[:, 0, row, column].view(1, -1, 1, 1)
            grad_w[:, 0, row, column] = (tap * x[inp]).sum((0, 2, 3), dtype=torch.float32).to(weight.dtype)
    return grad_x, grad_w


def _space_to_batch(x: Tensor, rate: int) -> Tensor:
    """(N, C, H, W) -> (N r r, C, ceil(H / r), ceil(W / r)): the sub-images at every r-th pixel."""
    n, c, h, w = x.shape
    x = F.pad(x, (0, -w % rate, 0, -h % rate))
    h, w = x.shape[2] // rate, x.shape[3] // rate
    x = x.permute(0, 2, 3, 1).reshape(n, h, rate, w, rate, c).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n * rate * rate, h, w, c).permute(0, 3, 1, 2)


def _batch_to_space(x: Tensor, rate: int, shape: torch.Size) -> Tensor:
    """The inverse of :func:`_space_to_batch`, cropped to ``shape``."""
    n, c, height, width = shape
    h, w = x.shape[2:]
    x = x.permute(0, 2, 3, 1).reshape(n, rate, rate, h, w, c).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(n, h * rate, w * rate, c)[:, :height, :width].permute(0, 3, 1, 2)


class ConvBNAct(nn.Sequential):
    """Convolution, batch norm and an activation (``None``: linear)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
        padding: Padding = "symmetric",
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        layers: list[nn.Module] = [
            Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                dilation=dilation,
                groups=groups,
                padding=padding,
            ),
            nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, BN, ReLU, pointwise 1x1, BN, ReLU (DeepLabv3+, section 3.1)."""

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int = 1) -> None:
        super().__init__(
            ConvBNAct(in_channels, in_channels, 3, dilation=dilation, groups=in_channels),
            ConvBNAct(in_channels, out_channels),
        )
