"""DeepLabv3+ (Chen et al., ECCV 2018): atrous spatial pyramid pooling and a small decoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from edge_deeplab.models.layers import Conv2d, ConvBNAct, SeparableConv, bilinear
from edge_deeplab.models.mobilenetv2 import MobileNetV2
from edge_deeplab.models.variants import Architecture


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabv3, section 3.3, with separable convolutions).

    (N, C, h, w) -> (N, channels, h, w): a 1x1 branch, three atrous 3x3 branches (or none, as in
    Google's mobile models), image-level pooling, all concatenated and projected by 1x1.
    """

    RATES_AT_16 = (6, 12, 18)

    def __init__(self, in_channels: int, channels: int, *, atrous: bool, dropout: float) -> None:
        super().__init__()
        self.pointwise = ConvBNAct(in_channels, channels)
        self.atrous = nn.ModuleList(
            SeparableConv(in_channels, channels, dilation=rate)
            for rate in (self.RATES_AT_16 if atrous else ())
        )
        self.pooling = ConvBNAct(in_channels, channels)
        self.project = ConvBNAct(channels * (2 + len(self.atrous)), channels)
        self.dropout = nn.Dropout(dropout)

    def set_output_stride(self, output_stride: int) -> None:
        """Rates 12/24/36 at output stride 8, 6/12/18 at 16, 3/6/9 at 32: the same field of view."""
        for branch, rate in zip(self.atrous, self.RATES_AT_16, strict=False):
            for layer in branch.modules():
                if isinstance(layer, Conv2d) and layer.groups > 1:
                    layer.set_rate(1, rate * 16 // output_stride)

    def forward(self, x: Tensor) -> Tensor:
        # Bilinear resizing of a 1x1 map is a broadcast, which every exporter understands.
        pooled = self.pooling(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = [self.pointwise(x), *(branch(x) for branch in self.atrous), pooled]
        y: Tensor = self.dropout(self.project(torch.cat(branches, dim=1)))
        return y


class Decoder(nn.Module):
    """Joins the pyramid (N, C, h, w) with stride-4 features -> (N, channels, H/4, W/4)."""

    def __init__(
        self, in_channels: int, low_level_in: int, low_level: int, channels: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.low_level = ConvBNAct(low_level_in, low_level)
        widths = (in_channels + low_level, *channels)
        self.refine = nn.Sequential(*(SeparableConv(a, b) for a, b in pairwise(widths)))

    def forward(self, x: Tensor, low_level: Tensor) -> Tensor:
        low_level = self.low_level(low_level)
        x = bilinear(x, (low_level.shape[2], low_level.shape[3]))
        y: Tensor = self.refine(torch.cat([x, low_level], dim=1))
        return y


class DeepLabV3Plus(nn.Module):
    """(N, 3, H, W), scaled as the contract says -> logits (N, K, H/stride, W/stride).

    Logits stay at low resolution: one resize, in the shared processing, takes them straight to the
    frame. :func:`bilinear` gives them at input size where a loss or a full-resolution head needs it.

    Args:
        architecture: A row of :data:`edge_deeplab.models.variants.VARIANTS`, or your own.
        outputs: Logits per pixel K: classes, or 1 for a binary model.
    """

    def __init__(self, architecture: Architecture, outputs: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.outputs = outputs
        self.backbone = MobileNetV2(architecture.width, architecture.output_stride, architecture.padding)
        self.aspp = ASPP(
            self.backbone.out_channels,
            architecture.aspp_channels,
            atrous=architecture.atrous,
            dropout=architecture.dropout,
        )
        channels = architecture.aspp_channels
        self.decoder: Decoder | None = None
        if architecture.decoder_channels:
            self.decoder = Decoder(
                channels,
                self.backbone.low_level_channels,
                architecture.low_level_channels,
                architecture.decoder_channels,
            )
            channels = architecture.decoder_channels[-1]
        self.classifier = nn.Conv2d(channels, outputs, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)
        self.set_output_stride(architecture.output_stride)

    @property
    def head_stride(self) -> int:
        """Input pixels per logit: 4 with a decoder, else the output stride."""
        return 4 if self.decoder is not None else self.backbone.output_stride

    def set_output_stride(self, output_stride: int) -> None:
        """Switch a trained model to output stride 8, 16 or 32; the weights stay the same."""
        self.backbone.set_output_stride(output_stride)
        self.aspp.set_output_stride(output_stride)

    def forward(self, x: Tensor) -> Tensor:
        low_level, x = self.backbone(x)
        x = self.aspp(x)
        if self.decoder is not None:
            x = self.decoder(x, low_level)
        logits: Tensor = self.classifier(x)
        return logits
