"""Optimiser and schedule: the papers' SGD with momentum or AdamW, rates per group, warm-up, poly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.training.config import TrainConfig


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Factor on the peak rate: linear warm-up, then poly (1 - t)^power (DeepLab, section 4.1)."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    return float((1 - (step - config.warmup) / max(1, total - config.warmup)) ** config.power)


def parameter_groups(model: DeepLabV3Plus, config: TrainConfig) -> list[dict[str, Any]]:
    """Backbone and head with rates of their own; no decay where there is only one weight per channel."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for module_name, module in model.named_modules():
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        for name, parameter in module.named_parameters(recurse=False):
            decays = isinstance(module, nn.Conv2d) and name == "weight" and not depthwise
            groups.setdefault((module_name.startswith("backbone."), decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": config.lr * (config.backbone_lr if backbone else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (backbone, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def make_optimizer(model: DeepLabV3Plus, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser that ``config.optimizer`` names, over :func:`parameter_groups`."""
    groups = parameter_groups(model, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, foreach=True)
    return torch.optim.AdamW(groups, lr=config.lr, foreach=True)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to ``factor`` of its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
