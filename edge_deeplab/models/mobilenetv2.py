"""MobileNetV2 with atrous control.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2, without
the last 1280-channel convolution and the classifier; dilation as in DeepLabv3, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edge_deeplab.models.layers import Conv2d, ConvBNAct, Padding

# Batch norm of the TF-Slim network the published weights come from has epsilon 1e-3 and decay 0.997.
# That decay suits runs of 30k steps; ours are ten times shorter, and with it the statistics lag so far
# behind the weights that early evaluations mislead. 0.97 follows within a few dozen steps.
BN_EPS, BN_MOMENTUM = 1e-3, 0.03


@dataclass(frozen=True)
class Stage:
    """A row of the paper's table 2: expansion t, channels c, repeats n, stride s of the first."""

    t: int
    c: int
    n: int
    s: int


STAGES = (
    Stage(1, 16, 1, 1),  # block 1
    Stage(6, 24, 2, 2),  # blocks 2-3, stride 4: the decoder's low-level features
    Stage(6, 32, 3, 2),  # blocks 4-6, stride 8
    Stage(6, 64, 4, 2),  # blocks 7-10, stride 16
    Stage(6, 96, 3, 1),  # blocks 11-13
    Stage(6, 160, 3, 2),  # blocks 14-16, stride 32
    Stage(6, 320, 1, 1),  # block 17
)
LOW_LEVEL_BLOCK = 3


def scaled(channels: int, width: float) -> int:
    """``channels`` times the width multiplier, to a multiple of 8 and never below 90 %."""
    value = max(8, int(channels * width + 4) // 8 * 8)
    return value + 8 if value < 0.9 * channels * width else value


def strides_and_rates(output_stride: int) -> list[tuple[int, int]]:
    """(stride, atrous rate) of blocks 1..17 for output stride 8, 16 or 32.

    A block that loses its stride keeps the rate of the block before it; the blocks that follow take
    the lost stride into their rate, so that every filter still sees what it was trained on.
    """
    plan, current, rate = [], 2, 1  # the stem has stride 2
    for stage in STAGES:
        for repeat in range(stage.n):
            stride = stage.s if repeat == 0 else 1
            if stride == 2 and current == output_stride:
                plan.append((1, rate))
                rate *= 2
            else:
                plan.append((stride, rate))
                current *= stride
    return plan


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 (linear), with a shortcut where shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expansion: int, padding: Padding
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        norm: dict[str, Any] = {"eps": BN_EPS, "momentum": BN_MOMENTUM}
        self.expand = (
            ConvBNAct(in_channels, hidden, activation=nn.ReLU6, **norm) if expansion > 1 else nn.Identity()
        )
        self.depthwise = ConvBNAct(
            hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.ReLU6, padding=padding, **norm
        )
        self.project = ConvBNAct(hidden, out_channels, activation=None, **norm)
        # Decided by the block's own stride, not the current one: a de-strided block has no shortcut.
        self.shortcut = stride == 1 and in_channels == out_channels

    def set_rate(self, stride: int, dilation: int) -> None:
        """Set stride and atrous rate of the depthwise convolution."""
        convolution = self.depthwise[0]
        if not isinstance(convolution, Conv2d):
            raise TypeError("the depthwise convolution was replaced; set_rate needs the original")
        convolution.set_rate(stride, dilation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> low-level features (N, 24 w, H/4, W/4) and features (N, 320 w, H/os, W/os).

    Args:
        width: Width multiplier w.
        output_stride: 8, 16 or 32; :meth:`set_output_stride` changes it on trained weights.
        padding: See :data:`edge_deeplab.models.layers.Padding`.
    """

    def __init__(self, width: float = 1.0, output_stride: int = 16, padding: Padding = "symmetric") -> None:
        super().__init__()
        channels = scaled(32, width)
        self.stem = ConvBNAct(
            3, channels, 3, stride=2, activation=nn.ReLU6, padding=padding, eps=BN_EPS, momentum=BN_MOMENTUM
        )
        self.blocks = nn.ModuleList()
        for stage in STAGES:
            for repeat in range(stage.n):
                out = scaled(stage.c, width)
                self.blocks.append(
                    InvertedResidual(channels, out, stage.s if repeat == 0 else 1, stage.t, padding)
                )
                channels = out
        self.low_level_channels = scaled(STAGES[1].c, width)
        self.out_channels = channels
        self.set_output_stride(output_stride)

    def set_output_stride(self, output_stride: int) -> None:
        """Trade resolution for speed on the same weights: 8, 16 or 32."""
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output stride must be 8, 16 or 32, not {output_stride}")
        self.output_stride = output_stride
        for block, (stride, rate) in zip(self.blocks, strides_and_rates(output_stride), strict=True):
            if not isinstance(block, InvertedResidual):
                raise TypeError(f"{type(block).__name__} is no inverted residual")
            block.set_rate(stride, rate)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        low_level = x
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number == LOW_LEVEL_BLOCK:
                low_level = x
        return low_level, x
