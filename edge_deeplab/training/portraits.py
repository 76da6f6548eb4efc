"""Augmentation of whole pictures: mild warps, and for a share of them other backgrounds and company."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision import tv_tensors

from edge_deeplab.metrics import IGNORE
from edge_deeplab.spec import ClassInfo
from edge_deeplab.training.augment import MILD, WIDE, Warp, painted_background, paste, photometric, uniform
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.sample import Read, Sample


class Portraits:
    """The recipe without ``--crop``: the whole picture stretched to the input, as inference shows it.

    Args:
        config: Gives the shares of strong augmentation.
        count: Number of pictures, to draw company from.
        classes: Of the labels. People can be pasted where background and person are the only ones.
    """

    def __init__(self, config: TrainConfig, count: int, classes: Sequence[ClassInfo]) -> None:
        self.config, self.count, self.binary = config, count, len(classes) == 2
        # Around a person is background. Of several classes, 0 may be any: sky, road, wall.
        outside = 0 if self.binary else IGNORE
        self.mild = Warp(config.size, MILD, fill=0.1, outside=outside, resize=config.resize)
        self.wide = Warp(config.size, WIDE, fill=0.3, outside=outside, resize=config.resize)
        self.photometric = photometric(classes)

    def __call__(self, read: Read, epoch: int, index: int) -> Sample:
        """One augmented picture and its labels."""
        c = self.config
        share = c.strong * (0.5 if epoch >= c.epochs * (1 - c.mild_tail) else 1.0)
        strong = uniform(0, 1) < share
        image, label = (self.wide if strong else self.mild)(*read(index))
        if strong and self.binary:
            chance = uniform(0, 1)
            if chance < 0.4:
                other = int(torch.randint(self.count, ()))
                onto, onto_label = self.wide(*read(other))
                image, label = paste(image, label, onto, onto_label)
            elif chance < 0.4 + c.backdrop:
                image = painted_background(image, label)
        changed: Sample = self.photometric(tv_tensors.Image(image), tv_tensors.Mask(label))
        return changed
