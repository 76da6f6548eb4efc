"""What keeps a MobileNetV2 accurate in INT8, done to the PyTorch network, so once for all targets.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from edge_deeplab.export.base import Progress, silent
from edge_deeplab.export.fold import Layer, fold, layers
from edge_deeplab.export.simulate import Observed, observe, rounded_weights, rounding
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


def correct_biases(
    network: DeepLabV3Plus, images: Tensor, keep: Collection[str] = (), *, symmetric: bool = False
) -> DeepLabV3Plus:
    """A copy whose biases take back what rounding shifts each channel by, on average over ``images``.

    Section 4.2 with measured instead of derived means. One pass: every layer is corrected before the
    next one runs, so that each sees the input that it will have. The biases belong to just this choice of
    layers: with one more in float they would take back a shift that is no longer there.

    Args:
        network: Folded, see :func:`edge_deeplab.export.fold.fold`.
        images: (N, 3, H, W) calibration pictures, scaled.
        keep: Names of layers that stay in float. They are corrected too, for what layers before them shift.
        symmetric: Activations have zero point 0, see :func:`edge_deeplab.export.simulate.rounded_input`.
    """
    seen = observe(network, images)
    network = fold(network)
    with rounding(network, seen, keep, symmetric=symmetric), _unshifted(network, seen) as shifts:
        network(images)
    for layer in layers(network):
        if layer.convolution.bias is None:
            raise TypeError(f"{layer.name} has no bias; fold the network first")
        layer.convolution.bias.data -= shifts[layer.name]
    return network


def by_harm(network: DeepLabV3Plus, images: Tensor, progress: Progress = silent) -> list[str]:
    """Names of all layers, first the one whose rounded weights alone move the logits most on ``images``.

    Only weights, because they are what a layer in float keeps: its input was rounded where it was made.
    What biases take back does not count either, so ``network`` is the one that was not corrected.
    """
    seen = observe(network, images)
    network = fold(network)
    harm = {}
    with torch.no_grad():
        wanted = network(images)
    for layer in progress(layers(network), "finding sensitive layers"):
        with rounded_weights([layer]), _unshifted(network, seen):
            harm[layer.name] = float((network(images) - wanted).square().mean())
    return sorted(harm, key=lambda name: -harm[name])


@contextlib.contextmanager
def _unshifted(network: DeepLabV3Plus, seen: Mapping[str, Observed]) -> Iterator[dict[str, Tensor]]:
    """While this is open, every channel of every layer has the mean that was seen of it.

    Gives the shift per channel (O,) that was taken away in the last run, by layer.
    """
    shifts: dict[str, Tensor] = {}

    def take_back(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
            shifts[name] = answer.mean((0, 2, 3)) - seen[name].mean
            return answer - shifts[name][:, None, None]

        return hook

    handles = [layer.convolution.register_forward_hook(take_back(layer.name)) for layer in layers(network)]
    try:
        with torch.no_grad():
            yield shifts
    finally:
        for handle in handles:
            handle.remove()
