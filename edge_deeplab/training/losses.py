"""What training minimises, on logits brought to input size by the model's own bilinear resize."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_deeplab.metrics import IGNORE
from edge_deeplab.models.layers import bilinear
from edge_deeplab.training.config import TrainConfig


def segmentation_loss(
    logits: Tensor, label: Tensor, band: Tensor, config: TrainConfig, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy, heavier near contours and on rare classes, plus Dice for binary models.

    The band follows PortraitNet's finding that the contour is where portraits are won; its weights
    are normalised, so that their sum is that of an unweighted loss.

    Args:
        logits: (N, K, h, w) at any stride, K = 1 for binary models.
        label: uint8 (N, H, W), 255 ignored.
        band: uint8 (N, H, W), 1 near a contour.
        config: Gives ``boundary_weight``, ``ohem`` and ``dice``.
        weights: Weight of every class id, float32 (classes,); None: all alike.
    """
    logits = bilinear(logits.float(), (label.shape[1], label.shape[2]))
    known = label != IGNORE
    weight = (1 + (config.boundary_weight - 1) * band) * known
    if weights is not None:
        weight = weight * weights[torch.where(known, label, 0).long()]
    if logits.shape[1] > 1:
        each = F.cross_entropy(logits, label.long(), ignore_index=IGNORE, reduction="none")
        return _weighted_mean(each, weight, config.ohem)
    target = (label == 1).float()
    logit = logits[:, 0]
    each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    loss = _weighted_mean(each, weight, config.ohem)
    if config.dice:
        probability = torch.sigmoid(logit) * known
        hits = (probability * target).sum((1, 2))
        sizes = probability.sum((1, 2)) + (target * known).sum((1, 2))
        # One pixel of smoothing: a picture without people and without false alarms costs nothing.
        loss = loss + config.dice * (1 - (2 * hits + 1) / (sizes + 1)).mean()
    return loss


def _weighted_mean(each: Tensor, weight: Tensor, hardest: float) -> Tensor:
    """Weighted mean over all pixels, or over the share ``hardest`` of those that count, by their loss."""
    if hardest < 1:
        each, weight = each.flatten(), weight.flatten()
        count = max(1, round(hardest * int(weight.count_nonzero())))
        chosen = torch.where(weight > 0, each.detach(), -1).topk(count, sorted=False).indices
        each, weight = each[chosen], weight[chosen]
    return (each * weight).sum() / weight.sum().clamp(min=1)


def class_weights(counts: Sequence[int], rule: Literal["median", "log"]) -> Tensor:
    """Weights of the classes by their numbers of training pixels, float32 (classes,), mean 1 over pixels.

    ``median``: median frequency balancing (Eigen & Fergus, ICCV 2015; SegNet). ``log``: 1 / ln(1.02 + share)
    (ENet). Both are divided by their mean over the training pixels, so that the learning rate keeps its
    meaning. A class without pixels gets the weight 0.
    """
    total = sum(counts)
    shares = [count / total for count in counts]
    there = sorted(share for share in shares if share)
    median = there[len(there) // 2]
    raw = [
        0.0 if not share else median / share if rule == "median" else 1 / math.log(1.02 + share)
        for share in shares
    ]
    mean = sum(weight * share for weight, share in zip(raw, shares, strict=True))
    return torch.tensor([weight / mean for weight in raw])
