"""What is in a data set, and what is wrong with it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.data.base import SizeMismatch, Split
from edge_deeplab.data.decode import UnknownId
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame
from edge_deeplab.metrics import IGNORE

HASH_SIDE = 16
HASH_BITS = HASH_SIDE**2

NEAR = 32
"""Hashes that differ in at most this many of their 256 bits are of the same photo.

Measured on three public sets, val against train: a copy saved at JPEG quality 40 or at half the size
differs in at most 4 bits, one made brighter with more contrast in at most 30, one with 2 % cut off each
side in 30 or so; different photos, of 2,707, in at least 64.
"""

Progress = Callable[..., Iterable["Look"]]
"""Wraps an iterable; takes ``total``, as tqdm does."""


@dataclass(frozen=True)
class Problem:
    """Something wrong, and its one line: ``unpaired``, ``unreadable``, ``size``, ``id`` or ``duplicate``."""

    what: str
    message: str


@dataclass(frozen=True)
class Look:
    """One pair, looked at.

    Attributes:
        problem: What is wrong with it; then the rest is empty.
        size: (width, height).
        pixels: Pixels per id, int64 (256,).
        hashes: Perceptual hash of the photo and of its mirror image, packed uint8 (2, 32); None for a
            blank photo.
    """

    problem: Problem | None = None
    size: tuple[int, int] = (0, 0)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    hashes: NDArray[np.uint8] | None = None


@dataclass
class Summary:
    """All pairs of a split, added up.

    Attributes:
        split: What was looked at.
        pixels: Pixels per id, int64 (256,); 255 = ignored.
        pictures: Pictures in which an id occurs, int64 (256,).
        unlabelled: Pictures in which nothing counts.
        sizes: Pictures per (width, height).
        problems: In the order of the pairs.
        hashes: By index of the pair.
    """

    split: Split
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    pictures: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    unlabelled: int = 0
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    hashes: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

    def add(self, index: int, seen: Look) -> None:
        """Add the pair at ``index``."""
        if seen.problem is not None:
            self.problems.append(seen.problem)
            return
        self.pixels += seen.pixels
        self.pictures += seen.pixels > 0
        self.unlabelled += not seen.pixels[:IGNORE].any()
        self.sizes[seen.size] = self.sizes.get(seen.size, 0) + 1
        if seen.hashes is not None:
            self.hashes[index] = seen.hashes

    def as_record(self) -> dict[str, Any]:
        """The figures as a JSON-ready dict, classes by name."""
        return {
            "split": self.split.name,
            "pairs": len(self.split),
            "sizes": {f"{w}x{h}": count for (w, h), count in sorted(self.sizes.items())},
            "ignored_pixels": int(self.pixels[IGNORE]),
            "unlabelled_pictures": self.unlabelled,
            "classes": {
                info.name: {"pixels": int(self.pixels[k]), "pictures": int(self.pictures[k])}
                for k, info in enumerate(self.split.classes)
            },
            "notes": list(self.split.notes),
            "problems": [{"what": problem.what, "message": problem.message} for problem in self.problems],
        }


# -- one pair ----------------------------------------------------------------------------------


def look(split: Split, index: int) -> Look:
    """Read a pair and say what is in it, or what is wrong with it."""
    try:
        image, labels = split.read(index)
    except SizeMismatch as error:
        return Look(Problem("size", str(error)))
    except UnknownId as error:
        return Look(Problem("id", str(error)))
    except UserError as error:
        return Look(Problem("unreadable", str(error)))
    pixels = np.bincount(labels.reshape(-1), minlength=256)
    return Look(None, (image.shape[1], image.shape[0]), pixels, perceptual_hash(image))


def perceptual_hash(image: Frame) -> NDArray[np.uint8] | None:
    """Hash of a photo BGR (H, W, 3) and of its mirror image, packed uint8 (2, 32); None if blank.

    The signs of the 16x16 lowest frequencies (DCT) against their median, of the photo shrunk to 64x64
    gray: size, compression and colour change few of the 256 bits.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    side = 4 * HASH_SIDE
    small = cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < 2:
        return None  # nothing but noise to go by
    low = cv2.dct(small)[:HASH_SIDE, :HASH_SIDE]
    # Mirrored, the horizontal waves of odd number change sign.
    signs = np.where(np.arange(HASH_SIDE) % 2, -1, 1)
    both = np.stack([low, low * signs]).reshape(2, -1)
    return np.packbits(both > np.median(both[:, 1:], axis=1, keepdims=True), axis=1)


# -- a whole split -----------------------------------------------------------------------------


def check_split(split: Split, *, workers: int = 1, progress: Progress = lambda items, **_: items) -> Summary:
    """Look at every pair of a split.

    Args:
        split: Pictures and masks.
        workers: Processes; 1 stays in this one.
        progress: Wraps the iterable of looks, e.g. a progress bar.

    Raises:
        UserError: A worker process died.
    """
    summary = Summary(split)
    with _looks(split, min(workers, len(split))) as looks:
        for index, seen in enumerate(progress(looks, total=len(split))):
            summary.add(index, seen)
    return summary


@contextmanager
def _looks(split: Split, workers: int) -> Iterator[Iterable[Look]]:
    """The looks at all pairs, in order."""
    if workers < 2:
        yield map(partial(look, split), range(len(split)))
        return
    # Spawned, not forked: a fork would copy OpenCV's threads in whatever state they are in.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(split,))
    try:
        yield pool.map(_look_in_worker, range(len(split)), chunksize=8)
    except BrokenProcessPool as error:
        raise UserError(
            f"a process that read {split.name} died, most likely for lack of memory; try --workers 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_workers_split: Split


def _start_worker(split: Split) -> None:
    global _workers_split  # sent once, not with every picture
    _workers_split = split
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's


def _look_in_worker(index: int) -> Look:
    return look(_workers_split, index)


# -- between splits ----------------------------------------------------------------------------


def duplicates(held_out: Summary, other: Summary) -> list[Problem]:
    """Photos of ``held_out`` that are in ``other`` too, re-encoded, resized or mirrored perhaps."""
    if not held_out.hashes or not other.hashes:
        return []
    own = _signs([hashes[0] for hashes in held_out.hashes.values()])
    others = _signs([both for hashes in other.hashes.values() for both in hashes])
    places, other_places = list(held_out.hashes), list(other.hashes)
    problems = []
    for start in range(0, len(own), 512):  # bounds the memory: 512 rows of float32
        # Of signs, the product counts agreements minus disagreements.
        distances = (HASH_BITS - own[start : start + 512] @ others.T) / 2
        for row, nearest in enumerate(distances.argmin(axis=1)):
            distance = int(distances[row, nearest])
            if distance <= NEAR:
                mirrored = ", mirrored" if nearest % 2 else ""
                image = held_out.split.pairs[places[start + row]].image
                twin = other.split.pairs[other_places[nearest // 2]].image
                problems.append(
                    Problem(
                        "duplicate",
                        f"{image} of {held_out.split.name} looks like {twin} of {other.split.name} "
                        f"({distance} of {HASH_BITS} bits differ{mirrored}); keep one of them",
                    )
                )
    return problems


def _signs(packed: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Packed hashes -> -1 and 1, float32 (N, 256)."""
    return np.unpackbits(np.stack(packed), axis=1).astype(np.float32) * 2 - 1
