"""Plain folders: ``PATH/{train,val}/{images,masks}``, a mask for every photo, same name, PNG best.

Two classes (background, person): masks hold 0/1 or 0/255. More classes: put their names, one a line,
in ``PATH/classes.txt``; masks then hold the line numbers from 0, and 255 where nothing counts.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.data.decode import UnknownId, read_ids, stored_ids
from edge_deeplab.data.layout import pair_by_name, pictures, read_lines, split_name
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Labels
from edge_deeplab.metrics import IGNORE
from edge_deeplab.spec import PERSON_CLASSES, ClassInfo

LAYOUT = "a folder data set is PATH/{train,val}/{images,masks}"


LOOKED_AT = 64
"""Masks read when a split is opened, to tell which of the two conventions it follows."""


@dataclass(frozen=True)
class Binary:
    """Reads masks of two classes.

    Attributes:
        ids: The split holds 0/1 with 255 = ignore; otherwise 0/255, soft edges cut at 128. One
            convention for a whole split: a 0/1 mask without a person may hold 0 and 255 only, and 255
            must not become a person there.
    """

    ids: bool

    def __call__(self, pair: Pair) -> Labels:
        """Class ids uint8 (H, W).

        Raises:
            UnknownId: The mask follows neither, or the other convention.
        """
        mask = read_ids(pair.mask)
        if self.ids != _holds_ids(mask) and _tells(mask):
            raise UnknownId(
                f"{pair.mask} is {'no' if self.ids else 'a'} 0/1 mask (255 = ignore), unlike others of its "
                "split; save all masks of a split alike, 0/1 or 0/255"
            )
        if not self.ids and 0 < mask.max() < 128:
            raise UnknownId(
                f"{pair.mask} holds values up to {mask.max()}; masks of two classes are 0/1 or 0/255 "
                "(for more classes name them in classes.txt)"
            )
        return mask if self.ids else (mask >= 128).astype(np.uint8)


def _holds_ids(mask: Labels) -> bool:
    return bool(np.isin(mask, (0, 1, IGNORE)).all())


def _tells(mask: Labels) -> bool:
    """Whether a mask is right in one convention only; one of 0 and 255 alone is right in both."""
    return not np.isin(mask, (0, IGNORE)).all()


def _binary(pairs: Sequence[Pair]) -> Binary:
    """The first mask, of some spread over the split, that is only right in one convention decides."""
    for pair in pairs[:: max(1, len(pairs) // LOOKED_AT)]:
        try:
            mask = read_ids(pair.mask)
        except UserError:
            continue  # named when it is read for real, or by `data check`
        if _tells(mask):
            return Binary(ids=_holds_ids(mask))
    return Binary(ids=False)


def _classes(file: Path) -> tuple[ClassInfo, ...]:
    names = read_lines(file)
    if len(names) < 2:
        raise UserError(f"{file} must name at least two classes, one a line")
    if len(names) > IGNORE:
        raise UserError(f"{file} names {len(names)} classes; at most 255 fit, as id 255 counts nowhere")
    # Evenly spread hues; the first class is background by convention and stays black.
    hues = (colorsys.hsv_to_rgb(k / (len(names) - 1), 0.75, 0.95) for k in range(len(names) - 1))
    colors = [(0, 0, 0), *((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in hues)]
    return tuple(ClassInfo(name, color) for name, color in zip(names, colors, strict=True))


def _open(path: Path, split: str) -> Split:
    folder, names = path / split, path / "classes.txt"
    classes = _classes(names) if names.exists() else PERSON_CLASSES
    pairs = pair_by_name(pictures(folder / "images", LAYOUT), pictures(folder / "masks", LAYOUT), folder)
    return Split(split_name(path, split), pairs, classes, _binary(pairs) if len(classes) == 2 else stored_ids)


KIND = Kind("folders {train,val}/{images,masks}, masks 0/255 or class ids", _open, ("train", "val", "test"))
