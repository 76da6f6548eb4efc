"""What training minimises, on logits brought to input size by the model's own bilinear resize."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_deeplab.metrics import IGNORE
from edge_deeplab.models.layers import bilinear
from edge_deeplab.training.config import TrainConfig


def segmentation_loss(logits: Tensor, label: Tensor, band: Tensor, config: TrainConfig) -> Tensor:
    """Cross-entropy, heavier near contours, plus Dice for binary models.

    The band follows PortraitNet's finding that the contour is where portraits are won; its weights
    are normalised, so that their sum is that of an unweighted loss.

    Args:
        logits: (N, K, h, w) at any stride, K = 1 for binary models.
        label: uint8 (N, H, W), 255 ignored.
        band: uint8 (N, H, W), 1 near a contour.
        config: Gives ``boundary_weight`` and ``dice``.
    """
    logits = bilinear(logits.float(), (label.shape[1], label.shape[2]))
    known = label != IGNORE
    weight = (1 + (config.boundary_weight - 1) * band) * known
    if logits.shape[1] > 1:
        each = F.cross_entropy(logits, label.long(), ignore_index=IGNORE, reduction="none")
        return (each * weight).sum() / weight.sum().clamp(min=1)
    target = (label == 1).float()
    logit = logits[:, 0]
    each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    loss = (each * weight).sum() / weight.sum().clamp(min=1)
    if config.dice:
        probability = torch.sigmoid(logit) * known
        hits = (probability * target).sum((1, 2))
        sizes = probability.sum((1, 2)) + (target * known).sum((1, 2))
        # One pixel of smoothing: a picture without people and without false alarms costs nothing.
        loss = loss + config.dice * (1 - (2 * hits + 1) / (sizes + 1)).mean()
    return loss
