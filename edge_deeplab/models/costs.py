"""Parameters and multiply-adds, counted by running the network once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters, batch norm's scale and shift included."""
    return sum(p.numel() for p in model.parameters())


def multiply_adds(model: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of all convolutions for one (1, 3, height, width) input.

    As in the papers, only convolutions count: batch norm folds away, and additions, resizing and
    activations are left out.
    """
    total = 0

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            per_pixel = module.weight[0].numel() * module.out_channels
            total += per_pixel * output.shape[2] * output.shape[3]

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    training = model.training
    try:
        model.eval()
        with torch.inference_mode():
            device = next(model.parameters()).device
            model(torch.zeros(1, 3, height, width, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return total
