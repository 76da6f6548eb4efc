"""Dropout that draws the same masks however a batch is split over processes and parts."""

from __future__ import annotations

from collections.abc import Sequence

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

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same; before a training step :attr:`seeds` gets N numbers."""
        if not self.training or not self.p:
            return x
        generator = torch.Generator(x.device)
        keep = torch.empty_like(x)
        for mask, seed in zip(keep, self.seeds, strict=True):
            mask.bernoulli_(1 - self.p, generator=generator.manual_seed(seed))
        return x * keep.div_(1 - self.p)
