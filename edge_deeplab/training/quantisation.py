"""Quantisation-aware training: rounding as the INT8 exports do it, with gradients passed straight through.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018: weights int8, symmetric, one scale per output channel; activations 8 bits with a zero point, one
scale per tensor; batch norm folded into the convolutions first, and frozen. What comes out is an ordinary
float checkpoint whose weights and activations lose little when an exporter rounds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.layers import Conv2d, ConvBNAct
from edge_deeplab.models.mobilenetv2 import InvertedResidual

LEVELS = 255
WEIGHT_LIMIT = 127


@torch.no_grad()
def fold_norms(model: DeepLabV3Plus) -> None:
    """Move every batch norm's scale into its convolution; the function stays as it is.

    What is left of the norm is a bias: mean 0, variance 1 - eps and scale 1 for ever. So the checkpoint keeps
    its shape, and exporters fold nothing but that bias.
    """
    for module in model.modules():
        if not isinstance(module, ConvBNAct):
            continue
        convolution, norm = module[0], module[1]
        if not isinstance(convolution, Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            raise TypeError("a unit is a convolution of ours, then a batch norm")
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        factor = norm.weight / (variance + norm.eps).sqrt()
        convolution.weight.mul_(factor[:, None, None, None])
        norm.bias.sub_(mean * factor)
        mean.zero_()
        variance.fill_(1 - norm.eps)
        norm.weight.fill_(1).requires_grad_(False)


class Ranges(nn.Module):
    """Smallest and largest value seen at every place, float32 (places,) each."""

    low: Tensor
    high: Tensor

    MOMENTUM = 0.01

    def __init__(self, places: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(places))
        self.register_buffer("high", torch.zeros(places))

    @torch.no_grad()
    def see(self, place: int, x: Tensor) -> None:
        """Widen to the first pictures' range; later follow it slowly, in and out."""
        low, high = x.amin().float().clamp(max=0), x.amax().float().clamp(min=0)
        if self.training:
            self.low[place].lerp_(low, self.MOMENTUM)
            self.high[place].lerp_(high, self.MOMENTUM)
        else:
            self.low[place] = torch.minimum(self.low[place], low)
            self.high[place] = torch.maximum(self.high[place], high)

    def round(self, place: int, x: Tensor) -> Tensor:
        """x at 256 levels between the ends of its range, 0 among them."""
        scale = ((self.high[place] - self.low[place]) / LEVELS).clamp(min=1e-8)
        zero = (-self.low[place] / scale).round().clamp(0, LEVELS).int()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LEVELS)


class FakeQuant(nn.Module):
    """Runs a folded model with weights and activations rounded to 8 bits.

    Args:
        model: After :func:`fold_norms`.
        ranges: Those of another copy of the model, to share them; None: its own.

    Attributes:
        observing: Whether ranges follow what is seen; in evaluation mode activations are then not rounded.
    """

    def __init__(self, model: DeepLabV3Plus, ranges: Ranges | None = None) -> None:
        super().__init__()
        self.model = model
        self.observing = False
        places = list(_places(model))
        self.ranges = ranges or Ranges(len(places) + 1)
        for number, (module, before) in enumerate(places, start=1):
            if before:
                module.register_forward_pre_hook(self._before(number))
            else:
                module.register_forward_hook(self._after(number))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) scaled -> logits."""
        weights = {
            f"{name}.weight": rounded_weight(module.weight)
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Conv2d)
        }
        logits: Tensor = functional_call(self.model, weights, (self._at(0, image),))
        return logits

    def _at(self, place: int, x: Tensor) -> Tensor:
        if self.observing:
            self.ranges.see(place, x)
        # Ranges are measured on activations that are not cut off by ranges still growing.
        measuring = self.observing and not self.training
        return x if measuring else self.ranges.round(place, x)

    def _before(self, place: int) -> Any:
        return lambda module, inputs: (self._at(place, inputs[0]),)

    def _after(self, place: int) -> Any:
        return lambda module, inputs, output: self._at(place, output)


def rounded_weight(weight: Tensor) -> Tensor:
    """(O, I, k, k) at 255 levels per output channel, symmetric about 0."""
    scale = (weight.detach().abs().amax((1, 2, 3)) / WEIGHT_LIMIT).clamp(min=1e-12)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT)


def _places(model: DeepLabV3Plus) -> Iterator[tuple[nn.Module, bool]]:
    """Where an integer network stores a tensor: (module, whether its input rather than its output).

    After every fused convolution and every addition; the pooled features, what is concatenated, the logits.
    """
    for module in model.modules():
        if isinstance(module, ConvBNAct) or (isinstance(module, InvertedResidual) and module.shortcut):
            yield module, False
    yield model.aspp.pooling, True
    yield model.aspp.project, True
    if model.decoder is not None:
        yield model.decoder.refine, True
    yield model.classifier, False
