"""Dropout that draws the same masks however a batch is split over processes and parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn


class SeededDropout(nn.Module):
    """Dropout whose mask for a picture follows from that picture's seed alone.

    Args:
        p: Share of values that become zero.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.seeds: Sequence[int] = ()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same; before a training step :attr:`seeds` gets N numbers."""
        return masked(x, self.seeds, self.p) if self.training and self.p else x


def _masked(x: Tensor, seeds: Sequence[int], p: float) -> Tensor:
    generator = torch.Generator(x.device)
    keep = torch.empty_like(x)
    for mask, seed in zip(keep, seeds, strict=True):
        mask.bernoulli_(1 - p, generator=generator.manual_seed(seed))
    return x * keep.div_(1 - p)


masked = cast("Callable[[Tensor, Sequence[int], float], Tensor]", torch.compiler.disable(_masked))  # type: ignore[no-untyped-call]
"""Not compiled: the compiler knows no generators of one's own."""
