"""What training minimises, on logits brought to input size by the model's own bilinear resize."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_deeplab.errors import UserError
from edge_deeplab.metrics import IGNORE
from edge_deeplab.models.layers import bilinear
from edge_deeplab.training.config import TrainConfig


def pixel_weights(label: Tensor, band: Tensor, config: TrainConfig, classes: Tensor | None = None) -> Tensor:
    """How much every pixel counts: 0 where ignored, more near contours and on rare classes.

    The band follows PortraitNet's finding that the contour is where portraits are won.

    Args:
        label: uint8 (N, H, W), 255 ignored.
        band: uint8 (N, H, W), 1 near a contour.
        config: Gives ``boundary_weight``.
        classes: Weight of every class id, float32 (classes,); None: all alike.

    Returns:
        float32 (N, H, W).
    """
    known = label != IGNORE
    weight = (1 + (config.boundary_weight - 1) * band) * known
    if classes is not None:
        weight = weight * classes[torch.where(known, label, 0).long()]
    return weight


def segmentation_loss(logits: Tensor, label: Tensor, weight: Tensor, config: TrainConfig) -> Tensor:
    """Weighted mean of the cross-entropy over pixels.

    Args:
        logits: (N, K, h, w) at any stride, K = 1 for binary models.
        label: uint8 (N, H, W), 255 ignored.
        weight: float32 (N, H, W), 0 where ignored; only its proportions matter.
        config: Gives ``ohem``.
    """
    logits = bilinear(logits.float(), (label.shape[1], label.shape[2]))
    if logits.shape[1] > 1:
        each = F.cross_entropy(logits, label.long(), ignore_index=IGNORE, reduction="none")
    else:
        each = F.binary_cross_entropy_with_logits(logits[:, 0], (label == 1).float(), reduction="none")
    if config.ohem < 1:
        each, weight = _hardest(each.flatten(), weight.flatten(), config.ohem)
    return (each * weight).sum() / weight.sum().clamp(min=1)


def _hardest(each: Tensor, weight: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The share of the pixels that count with the highest loss, as TF DeepLab's hard example mining."""
    count = max(1, round(share * int(weight.count_nonzero())))
    chosen = torch.where(weight > 0, each.detach(), -1).topk(count, sorted=False).indices
    return each[chosen], weight[chosen]


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """1 - Dice of the foreground, averaged over pictures, for a binary model.

    Args:
        logits: (N, 1, h, w) at any stride.
        label: uint8 (N, H, W), 255 ignored.
    """
    known, target = label != IGNORE, (label == 1).float()
    logit = bilinear(logits.float(), (label.shape[1], label.shape[2]))[:, 0]
    probability = torch.sigmoid(logit) * known
    hits = (probability * target).sum((1, 2))
    sizes = probability.sum((1, 2)) + target.sum((1, 2))
    # One pixel of smoothing: a picture without people and without false alarms costs nothing.
    return (1 - (2 * hits + 1) / (sizes + 1)).mean()


def class_weights(counts: Sequence[int], near: Sequence[int], rule: Literal["median", "log"]) -> Tensor:
    """Weights of the classes by how frequent they are in training, float32 (classes,), mean 1 over pixels.

    ``median``: median frequency over a class's own, which is its share of the pixels of those pictures that
    hold it (Eigen & Fergus, ICCV 2015; SegNet). ``log``: 1 / ln(1.02 + share of all pixels) (ENet). Both are
    divided by their mean over the training pixels, so that the learning rate keeps its meaning. A class
    without pixels gets the weight 0.

    Args:
        counts: Pixels of every class; ignored ones are nobody's.
        near: Labelled pixels, of any class, in the pictures that hold the class.
        rule: See above.

    Raises:
        UserError: There are no pixels.
    """
    total = sum(counts)
    if not total:
        raise UserError(
            "no label of the training pictures counts, so --class-weights has nothing to weigh; "
            "see what edge-deeplab data check says"
        )
    shares = [count / total for count in counts]
    if rule == "median":
        # The median itself is a common factor, and goes with the mean.
        raw = [around / count if count else 0.0 for count, around in zip(counts, near, strict=True)]
    else:
        raw = [1 / math.log(1.02 + share) if share else 0.0 for share in shares]
    mean = sum(weight * share for weight, share in zip(raw, shares, strict=True))
    return torch.tensor([weight / mean for weight in raw])
