"""Training samples: which picture comes when, and what is done to it.

Everything random about a sample follows from (seed, epoch, index), so the number of workers, a kill
and a resume change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors

from edge_deeplab.data import Split
from edge_deeplab.imaging import Frame
from edge_deeplab.training.augment import (
    MILD,
    WIDE,
    Warp,
    contour_band,
    painted_background,
    paste,
    photometric,
    uniform,
)
from edge_deeplab.training.config import TrainConfig

Key = tuple[int, int]
"""(epoch, index of the picture)."""


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, well mixed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Samples(Dataset[dict[str, Tensor]]):
    """Augmented pictures of several splits, as one list.

    Each sample: ``image`` uint8 (3, H, W) RGB, ``label`` uint8 (H, W), ``band`` uint8 (H, W), 1 near a
    contour.
    """

    def __init__(self, splits: list[Split], config: TrainConfig) -> None:
        self.splits = splits
        self.config = config
        self.places = [(s, i) for s, split in enumerate(splits) for i in range(len(split))]
        self.binary = len(splits[0].classes) == 2
        self.mild = Warp(config.size, MILD, fill=0.1)
        self.wide = Warp(config.size, WIDE, fill=0.3)
        self.photometric = photometric()

    def __len__(self) -> int:
        return len(self.places)

    def _read(self, index: int) -> tuple[Any, Any]:
        split, position = self.places[index]
        image, label = self.splits[split].read(position)
        rgb: Frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
        return tv_tensors.Image(torch.from_numpy(rgb).permute(2, 0, 1)), tv_tensors.Mask(
            torch.from_numpy(label)
        )

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        epoch, index = key
        c = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed_seed(c.seed, epoch, index))
            share = c.strong * (0.5 if epoch >= c.epochs * (1 - c.mild_tail) else 1.0)
            strong = uniform(0, 1) < share
            image, label = self._read(index)
            image, label = (self.wide if strong else self.mild)(image, label)
            if strong and self.binary:
                chance = uniform(0, 1)
                if chance < 0.4:
                    other = int(torch.randint(len(self), ()))
                    onto, onto_label = self.wide(*self._read(other))
                    image, label = paste(image, label, onto, onto_label)
                elif chance < 0.4 + c.backdrop:
                    image = painted_background(image, label)
            image, label = self.photometric(tv_tensors.Image(image), tv_tensors.Mask(label))
            band = torch.from_numpy(contour_band(label.numpy(), c.boundary_width))
        return {
            "image": image.as_subclass(Tensor).contiguous(),
            "label": label.as_subclass(Tensor).contiguous(),
            "band": band,
        }


class Batches(Sampler[list[Key]]):
    """Keys of every batch from ``start`` on: a fresh permutation each epoch, the last short batch dropped."""

    def __init__(self, samples: int, config: TrainConfig, start: int, total: int) -> None:
        self.samples, self.config, self.start, self.total = samples, config, start, total

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        batch, per_epoch = self.config.batch, self.samples // self.config.batch
        order: list[int] = []
        drawn = -1
        for step in range(self.start, self.total):
            epoch, place = divmod(step, per_epoch)
            if epoch != drawn:
                order = (
                    np.random.default_rng(mixed_seed(self.config.seed, epoch))
                    .permutation(self.samples)
                    .tolist()
                )
                drawn = epoch
            yield [(epoch, index) for index in order[place * batch : (place + 1) * batch]]


def _single_threaded(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def loader(samples: Samples, config: TrainConfig, start: int, total: int) -> DataLoader[dict[str, Tensor]]:
    """Batches from step ``start`` to ``total``, read ahead by worker processes."""
    return DataLoader(
        samples,
        batch_sampler=Batches(len(samples), config, start, total),
        num_workers=config.workers,
        worker_init_fn=_single_threaded,
        prefetch_factor=4 if config.workers else None,
        pin_memory=config.device == "cuda",
    )
