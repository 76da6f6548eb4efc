"""INT8 simulated in PyTorch, layer by layer, for the remedies and for finding sensitive layers.

Weights int8, symmetric, per output channel; a layer's input in 256 levels over the range it has on
calibration pictures, or, where zero points are 0, in 255 levels on both sides of zero. Integers are not
computed with, only their rounding; ranges are always the whole ones, whatever the calibration's method.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_deeplab.export.fold import Layer, layers
from edge_deeplab.models.deeplab import DeepLabV3Plus


@dataclass(frozen=True)
class Observed:
    """A layer on calibration pictures.

    Attributes:
        mean: Of the convolution's output per channel, before the activation, (O,).
        highest: Of the layer's output per channel, after the activation, (O,).
        low, high: Range of its input, zero included.
    """

    mean: Tensor
    highest: Tensor
    low: float
    high: float


def observe(network: DeepLabV3Plus, images: Tensor) -> dict[str, Observed]:
    """Run a folded network on (N, 3, H, W) and look at every layer."""
    seen: dict[str, Observed] = {}

    def look(layer: Layer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
            after = answer if layer.activation is None else layer.activation(answer)
            seen[layer.name] = Observed(
                mean=answer.mean((0, 2, 3)),
                highest=after.abs().amax((0, 2, 3)),
                low=min(0.0, float(given[0].min())),
                high=max(0.0, float(given[0].max())),
            )

        return hook

    with _hooks({layer.convolution: look(layer) for layer in layers(network)}), torch.no_grad():
        network(images)
    return seen


def rounded_weight(weight: Tensor) -> Tensor:
    """(O, I, k, k) as int8 with one scale per output channel would hold it, in float."""
    scale = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
    return (weight / scale).round() * scale


def rounded_input(x: Tensor, low: float, high: float, *, symmetric: bool = False) -> Tensor:
    """``x`` in integers that span ``low`` to ``high``, zero being one of them.

    Args:
        x: Any shape.
        low, high: ``low <= 0 <= high``.
        symmetric: Zero point 0, so 255 levels from ``-max(-low, high)`` to the same above zero; else 256
            levels from ``low`` to ``high``.
    """
    if symmetric:
        scale, zero, levels = max(-low, high, 1e-12) / 127, 127, 254
    else:
        scale = max(high - low, 1e-12) / 255
        zero, levels = round(-low / scale), 255
    # In place: these are the largest tensors there are, and every copy of them costs more than the sums.
    return (x / scale).round_().clamp_(-zero, levels - zero).mul_(scale)


@contextlib.contextmanager
def rounding(
    network: DeepLabV3Plus,
    observed: Mapping[str, Observed],
    keep: Collection[str] = (),
    *,
    symmetric: bool = False,
) -> Iterator[None]:
    """While this is open, the network computes as an INT8 file does in which the layers ``keep`` stay float.

    Their weights are not rounded. Their inputs are, as other layers left them, and so are not only where a
    layer in float reads what another one computed.

    Args:
        network: Folded.
        observed: What :func:`observe` saw of it; its ranges are those of the integers.
        keep: Names of layers.
        symmetric: See :func:`rounded_input`. The image is not rounded then: its scale follows from the
            contract, and its integers are the pixels.
    """
    chain = layers(network)
    reading = [
        layer
        for layer in chain
        if (layer.name not in keep or layer.follows not in keep) and (layer.sources or not symmetric)
    ]

    def round_input(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
        low, high = observed[name].low, observed[name].high
        return lambda _, given: (rounded_input(given[0], low, high, symmetric=symmetric),)

    handles = [layer.convolution.register_forward_pre_hook(round_input(layer.name)) for layer in reading]
    try:
        with rounded_weights([layer for layer in chain if layer.name not in keep]):
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def rounded_weights(chosen: Sequence[Layer]) -> Iterator[None]:
    """While this is open, these layers have the weights that int8 would leave of theirs."""
    weights = [layer.convolution.weight.clone() for layer in chosen]
    try:
        for layer in chosen:
            layer.convolution.weight.data.copy_(rounded_weight(layer.convolution.weight))
        yield
    finally:
        for layer, weight in zip(chosen, weights, strict=True):
            layer.convolution.weight.data.copy_(weight)


@contextlib.contextmanager
def _hooks(hooks: Mapping[nn.Module, Callable[..., object]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
