"""Training samples: which picture comes when, and what is done to it.

Everything random about a sample follows from (seed, epoch, index), so the number of workers, a kill
and a resume change nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torchvision import tv_tensors

from edge_deeplab.data import Split
from edge_deeplab.data.base import Pair
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame
from edge_deeplab.training.augment import contour_band
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.crops import crops
from edge_deeplab.training.distributed import World
from edge_deeplab.training.portraits import Portraits
from edge_deeplab.training.sample import Recipe, Sample

Key = tuple[int, int]
"""(epoch, index of the picture)."""

WORKER_GONE = (
    "a process that reads pictures was killed, most likely for lack of memory; go on from the last "
    "checkpoint with --resume and fewer --workers"
)


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
        classes = splits[0].classes
        self.recipe: Recipe = crops(config, classes) or Portraits(config, len(self.places), classes)

    def __len__(self) -> int:
        return len(self.places)

    def pair(self, index: int) -> Pair:
        """The files of a picture."""
        split, position = self.places[index]
        return self.splits[split].pairs[position]

    def read(self, index: int) -> Sample:
        """A picture and its labels, as they are on disk."""
        split, position = self.places[index]
        image, label = self.splits[split].read(position)
        rgb: Frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
        return tv_tensors.Image(torch.from_numpy(rgb).permute(2, 0, 1)), tv_tensors.Mask(
            torch.from_numpy(label)
        )

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed_seed(self.config.seed, epoch, index))
            image, label = self.recipe(self.read, epoch, index)
            band = torch.from_numpy(contour_band(label.numpy(), self.config.boundary_width))
        return {
            "image": image.as_subclass(Tensor).contiguous(),
            "label": label.as_subclass(Tensor).contiguous(),
            "band": band,
        }


class Batches(Sampler[list[Key]]):
    """Keys of every batch from ``start`` on: a fresh permutation each epoch, the last short batch dropped.

    Args:
        samples: Number of pictures.
        config: Gives ``batch`` and ``seed``.
        start, total: First step, and the one to stop before.
        world: Give each process its consecutive share of the batch; None: all of it.
    """

    def __init__(
        self, samples: int, config: TrainConfig, start: int, total: int, world: World | None = None
    ) -> None:
        self.samples, self.config, self.start, self.total = samples, config, start, total
        self.rank, self.size = (world.rank, world.size) if world else (0, 1)

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        batch, per_epoch = self.config.batch, self.samples // self.config.batch
        own = batch // self.size
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
            first = place * batch + self.rank * own
            yield [(epoch, index) for index in order[first : first + own]]


def _single_threaded(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


class _Answers(Dataset["dict[str, Tensor] | UserError"]):
    """Samples, or what is wrong with them: raised in a worker, it would come back with a traceback inside."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, key: Key) -> dict[str, Tensor] | UserError:
        try:
            return self.samples[key]
        except UserError as error:
            return error


def _batch_or_error(answers: list[dict[str, Tensor] | UserError]) -> dict[str, Tensor] | UserError:
    wrong = [answer for answer in answers if isinstance(answer, UserError)]
    if wrong:
        return wrong[0]
    batch: dict[str, Tensor] = default_collate(answers)
    return batch


def loader(
    samples: Samples, config: TrainConfig, batches: Batches, *, pin: bool = False
) -> Iterator[dict[str, Tensor]]:
    """The samples of ``batches``, read ahead by worker processes; ``pin``: for copies to a GPU.

    Raises:
        UserError: A photo or its labels cannot be used; raised at the batch that needs them. Or a worker is
            gone.
    """
    answers: DataLoader[dict[str, Tensor] | UserError] = DataLoader(
        _Answers(samples),
        batch_sampler=batches,
        num_workers=config.workers,
        collate_fn=_batch_or_error,
        worker_init_fn=_single_threaded,
        prefetch_factor=4 if config.workers else None,
        pin_memory=pin,
    )
    try:
        for answer in answers:
            if isinstance(answer, UserError):
                raise answer
            yield answer
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        # A worker hands its tensors over through a socket of its own, which goes with it.
        if not config.workers or "in DataLoader worker process" in str(error):
            raise
        _bury()
        raise UserError(WORKER_GONE) from error


def _bury() -> None:
    """Take notice of workers that ended: else torch tells of them with the next child that ends, anywhere."""
    for process in multiprocessing.active_children():
        process.join(0.2)


@contextmanager
def workers_watched() -> Iterator[None]:
    """Say in one line that a worker process was killed; torch tells it anywhere, by a signal handler.

    Raises:
        UserError: A worker is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        _bury()
        raise UserError(WORKER_GONE) from error
