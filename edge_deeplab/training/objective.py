"""The loss of one part of a batch, so that the parts' sum is the whole batch's loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.distillation import channel_wise, logits_kl
from edge_deeplab.training.losses import dice_loss, pixel_weights, segmentation_loss


@dataclass(frozen=True)
class Part:
    """Pictures that go through the network together.

    Attributes:
        image: float32 (n, 3, H, W), scaled as the contract says.
        label: uint8 (n, H, W), 255 ignored.
        weight: float32 (n, H, W), what each pixel counts.
    """

    image: Tensor
    label: Tensor
    weight: Tensor


class Objective:
    """Cross-entropy, Dice for binary models, and what a teacher adds.

    Args:
        config: Which terms, and how much of each.
        classes: Weight of every class, float32 (classes,), or None.
        teacher: Scaled pictures -> logits, or None.
    """

    def __init__(
        self, config: TrainConfig, classes: Tensor | None = None, teacher: nn.Module | None = None
    ) -> None:
        self.config, self.classes, self.teacher = config, classes, teacher

    def part(self, image: Tensor, label: Tensor, band: Tensor) -> Part:
        """Work out how much each pixel counts."""
        return Part(image, label, pixel_weights(label, band, self.config, self.classes))

    def __call__(self, logits: Tensor, part: Part, total_weight: Tensor, parts: int) -> Tensor:
        """A part's share of the batch's loss.

        Cross-entropy is a mean over the batch's pixels by weight, wherever they are computed; the other
        terms are means over pictures, and every part has as many.

        Args:
            logits: (n, K, h, w).
            part: What they were computed from.
            total_weight: Sum of the weights of all pixels of the batch, in all parts.
            parts: Number of parts of the batch.
        """
        c = self.config
        share = part.weight.sum() / total_weight.clamp(min=1) if c.ohem == 1 else 1 / parts
        loss = segmentation_loss(logits, part.label, part.weight, c) * share
        if c.dice and logits.shape[1] == 1:
            loss = loss + c.dice / parts * dice_loss(logits, part.label)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(part.image)
            if c.distill_kl:
                loss = loss + c.distill_kl / parts * logits_kl(logits, wanted, c.temperature)
            if c.distill_cwd:
                loss = loss + c.distill_cwd / parts * channel_wise(logits, wanted, c.temperature)
        return loss
