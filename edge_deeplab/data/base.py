"""Splits, pairs and the registry of data kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, Labels, read_image, read_mask
from edge_deeplab.metrics import IGNORE
from edge_deeplab.plugins import discover
from edge_deeplab.spec import PERSON_CLASSES, ClassInfo


@dataclass(frozen=True)
class Pair:
    """A photo and the picture of its class ids."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class Split:
    """The pairs of one part of a data set.

    Attributes:
        name: For tables: last folder of the path and the split, e.g. ``eg/val``.
        pairs: In a fixed order (sorted by name).
        classes: Index = class id.
    """

    name: str
    pairs: tuple[Pair, ...]
    classes: tuple[ClassInfo, ...] = PERSON_CLASSES

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Frame, Labels]:
        """Photo BGR uint8 (H, W, 3) and class ids uint8 (H, W), 255 = ignore.

        Raises:
            UserError: Unreadable, sizes differ, or an id out of range; the message names the pair.
        """
        pair = self.pairs[index]
        image, mask = read_image(pair.image), read_mask(pair.mask)
        if image.shape[:2] != mask.shape:
            raise UserError(
                f"photo and mask differ in size: {pair.image} is {image.shape[1]}x{image.shape[0]}, "
                f"{pair.mask} is {mask.shape[1]}x{mask.shape[0]}; correct the pair or remove it"
            )
        if len(self.classes) == 2:
            return image, _binary(mask)
        highest = int(mask[mask != IGNORE].max(initial=0))
        if highest >= len(self.classes):
            raise UserError(
                f"{pair.mask} holds class id {highest}, but there are only ids 0 to "
                f"{len(self.classes) - 1} (255 = ignore)"
            )
        return image, mask


def _binary(mask: Labels) -> Labels:
    """0/1 masks stay (255 = ignore beside a 1); 0/255 masks, soft edges included, are cut at 128."""
    if (mask == 1).any() and np.isin(mask, (0, 1, IGNORE)).all():
        return mask
    return (mask >= 128).astype(np.uint8)


@dataclass(frozen=True)
class Kind:
    """A data set layout.

    Attributes:
        help: One line for ``--help`` and docs.
        open: (path, split) -> :class:`Split`; raises UserError that says what is off.
    """

    help: str
    open: Callable[[Path, str], Split]


def kinds() -> dict[str, Kind]:
    """All data kinds by name."""
    return discover("edge_deeplab.data", "kind_", "KIND")


def open_split(spec: str, split: str) -> Split:
    """Open part of a data set.

    Args:
        spec: ``KIND:PATH``, e.g. ``folder:../data/eg``.
        split: ``train`` or ``val``.

    Raises:
        UserError: Unknown kind, or the layout is off.
    """
    kind, colon, path = spec.partition(":")
    known = kinds()
    if not colon or kind not in known:
        raise UserError(f"--data {spec!r} must be KIND:PATH with KIND one of: {', '.join(known)}")
    opened = known[kind].open(Path(path).expanduser(), split)
    if not opened.pairs:
        raise UserError(f"{spec}: the {split} split is empty")
    return opened
