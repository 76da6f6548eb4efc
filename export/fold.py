"""Batch norm folded into the convolutions, and the layers of a network by name.

Quantisation sees weights as they will be multiplied, so folding comes first. The fused layers are also
the unit in which layers are kept in float and errors are measured.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.layers import Conv2d, ConvBNAct


class FoldedConv2d(Conv2d):
    """Our convolution with the bias that batch norm left; for inference only."""

    def __init__(self, convolution: Conv2d, weight: Tensor, bias: Tensor) -> None:
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size[0],
            stride=convolution.stride[0],
            dilation=convolution.dilation[0],
            groups=convolution.groups,
            padding="same" if convolution.same else "symmetric",
        )
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        padding = self.padding
        if self.same and self.stride[0] == 2 and self.kernel_size[0] > 1:
            height, width = x.shape[-2:]
            x, padding = F.pad(x, (width % 2, 1, height % 2, 1)), (0, 0)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


@dataclass(frozen=True)
class Layer:
    """A fused layer: convolution, batch norm folded in, and its activation.

    Attributes:
        name: Of the module in the network whose output is the layer's: ``backbone.blocks.3.depthwise``.
        convolution: With weight (O, I / groups, k, k) and bias (O,).
        activation: None: linear.
        sources: Layers that its input comes from, through additions, concatenations and resizing.
        follows: The layer whose output it reads as it is and alone; None where there is none.
    """

    name: str
    convolution: nn.Conv2d
    activation: nn.Module | None
    sources: tuple[str, ...]
    follows: str | None


def fold(network: DeepLabV3Plus) -> DeepLabV3Plus:
    """A copy in evaluation mode without batch norm; computes the same up to rounding.

    A network that is folded already is copied as it is.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvBNAct) and isinstance(module[1], nn.BatchNorm2d):
            _fold(module)
    return network.requires_grad_(False)


def _fold(unit: ConvBNAct) -> None:
    convolution, norm = unit[0], unit[1]
    if (
        not isinstance(convolution, Conv2d)
        or not isinstance(norm, nn.BatchNorm2d)
        or norm.running_var is None
        or norm.running_mean is None
    ):
        raise TypeError("a unit is a convolution of ours, then a batch norm with statistics")
    # In float64: the fold is done once, its rounding stays for ever.
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = convolution.weight.double() * factor[:, None, None, None]
    bias = norm.bias.double() - norm.running_mean.double() * factor
    unit[0] = FoldedConv2d(convolution, weight.float(), bias.float())
    unit[1] = nn.Identity()


def layers(network: DeepLabV3Plus) -> list[Layer]:
    """The layers of a folded network in the order they run.

    How they hang together is read from the record that autograd keeps of one run.
    """
    runs: list[tuple[str, nn.Module, Any, Any]] = []

    def record(name: str) -> Any:
        return lambda module, given, answer: runs.append((name, module, given[0].grad_fn, answer.grad_fn))

    inside = {module[0] for module in network.modules() if isinstance(module, ConvBNAct)}
    handles = [
        module.register_forward_hook(record(name))
        for name, module in network.named_modules()
        if isinstance(module, (ConvBNAct, nn.Conv2d)) and module not in inside
    ]
    with torch.enable_grad():
        end = network(torch.zeros(1, 3, 64, 64, requires_grad=True)).grad_fn
    for handle in handles:
        handle.remove()
    makers = {answer: name for name, _, _, answer in runs}
    readers = _readers(end)
    return [
        Layer(
            name,
            convolution=_convolution(module),
            activation=module[2] if isinstance(module, ConvBNAct) and len(module) > 2 else None,
            sources=_sources(given, makers),
            follows=makers[given] if given in makers and readers[given] == 1 else None,
        )
        for name, module, given, _ in runs
    ]


def _convolution(module: nn.Module) -> nn.Conv2d:
    convolution = module[0] if isinstance(module, ConvBNAct) else module
    if not isinstance(convolution, nn.Conv2d):
        raise TypeError(f"{type(convolution).__name__} is no convolution")
    return convolution


def _readers(end: Any) -> Counter[Any]:
    """How often each step's result is read, over everything that ``end`` depends on."""
    readers: Counter[Any] = Counter()
    seen, todo = {end}, [end]
    while todo:
        for step, _ in todo.pop().next_functions:
            readers[step] += 1
            if step is not None and step not in seen:
                seen.add(step)
                todo.append(step)
    return readers


def _sources(step: Any, makers: Mapping[Any, str]) -> tuple[str, ...]:
    """The layers reached from ``step`` backwards without passing another layer."""
    if step is None:
        return ()
    if step in makers:
        return (makers[step],)
    found = [name for earlier, _ in step.next_functions for name in _sources(earlier, makers)]
    return tuple(dict.fromkeys(found))
