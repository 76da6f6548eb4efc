"""What keeps a MobileNetV2 accurate in INT8, done to the PyTorch network, so once for all targets.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edge_deeplab.export.base import Progress, silent
from edge_deeplab.export.fold import Layer, fold, layers
from edge_deeplab.export.simulate import observe, rounding
from edge_deeplab.models.deeplab import DeepLabV3Plus

LARGEST_GAIN = 64.0
"""A channel that is nearly always zero is not worth more than this."""

HEADROOM = 1.1
"""Before a ReLU6, values this many times the highest one seen still pass uncut."""


def equalise(network: DeepLabV3Plus, images: Tensor) -> DeepLabV3Plus:
    """A copy in which the channels between two layers have more equal ranges; computes the same.

    Section 4.1: a channel may be multiplied in one layer and divided in the next as long as only a
    ReLU lies between. Weights here have a scale per output channel already, so what gains is the
    activation between, whose channels share one scale. Before a depthwise layer all channels are raised
    to the highest one's range; before a pointwise one, whose rows mix all channels, the gain balances
    range and weight, as in the paper's equation 11.

    ReLU6 is no such function: it would cut a raised channel at 6. So channels before a ReLU6 are only
    ever raised, and no further than where their highest value on ``images`` meets the 6.

    Args:
        network: Folded, see :func:`edge_deeplab.export.fold.fold`.
        images: (N, 3, H, W) calibration pictures, scaled.
    """
    network = fold(network)
    chain = layers(network)
    named = {layer.name: layer for layer in chain}
    # Once is enough: a layer's own output keeps its range when its input channels are rescaled.
    seen = observe(network, images)
    for layer in chain:
        before = named.get(layer.follows or "")
        if before is not None and isinstance(before.activation, (nn.ReLU, nn.ReLU6, type(None))):
            _scale(before, layer, _gains(before, layer, seen[before.name].highest))
    return network


def _gains(before: Layer, after: Layer, highest: Tensor) -> Tensor:
    """One factor per channel between two layers; ``highest`` (C,) are the channels' highest values."""
    highest = highest.clamp(min=1e-6)
    if after.convolution.groups > 1:
        gains = highest.max() / highest
    else:
        weight = after.convolution.weight.abs().amax((0, 2, 3)).clamp(min=1e-12)
        gains = (weight / highest).sqrt()
        gains = gains * highest.max() / (gains * highest).max()
    if isinstance(before.activation, nn.ReLU6):
        gains = torch.minimum(gains, 6 / (HEADROOM * highest)).clamp(min=1)
    return gains.clamp(1 / LARGEST_GAIN, LARGEST_GAIN)


def _scale(before: Layer, after: Layer, gains: Tensor) -> None:
    first, second = before.convolution, after.convolution
    if first.bias is None:
        raise TypeError(f"{before.name} has no bias; fold the network first")
    first.weight.data *= gains[:, None, None, None]
    first.bias.data *= gains
    # A depthwise weight is (C, 1, k, k): its input channel is its own.
    second.weight.data /= gains[:, None, None, None] if second.groups > 1 else gains[None, :, None, None]


def correct_biases(network: DeepLabV3Plus, images: Tensor) -> DeepLabV3Plus:
    """A copy whose biases take back what rounding shifts each channel by, on average over ``images``.

    Section 4.2 with measured instead of derived means. One pass: every layer is corrected before the
    next one runs, so that each sees the input that it will have.
    """
    seen = observe(network, images)
    network = fold(network)
    names = {layer.name for layer in layers(network)}

    def correct(layer: Layer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
            shift = answer.mean((0, 2, 3)) - seen[layer.name].mean
            if layer.convolution.bias is None:
                raise TypeError(f"{layer.name} has no bias; fold the network first")
            layer.convolution.bias.data -= shift
            return answer - shift[:, None, None]

        return hook

    with rounding(network, seen, names), torch.no_grad():
        handles = [layer.convolution.register_forward_hook(correct(layer)) for layer in layers(network)]
        network(images)
        for handle in handles:
            handle.remove()
    return network


def by_harm(network: DeepLabV3Plus, images: Tensor, progress: Progress = silent) -> list[str]:
    """Names of all layers, first the one whose rounding alone moves the logits most on ``images``."""
    seen = observe(network, images)
    network = fold(network)
    harm = {}
    with torch.no_grad():
        wanted = network(images)
        for layer in progress(layers(network), "finding sensitive layers"):
            with rounding(network, seen, {layer.name}):
                harm[layer.name] = float((network(images) - wanted).square().mean())
    return sorted(harm, key=lambda name: -harm[name])
