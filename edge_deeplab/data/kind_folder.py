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
from numpy.typing import NDArray

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.data.decode import PngForm, UnknownId, histogram, png_form, read_ids, stored_ids
from edge_deeplab.data.layout import pair_by_name, pictures, read_lines, split_name
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Labels
from edge_deeplab.metrics import IGNORE
from edge_deeplab.spec import PERSON_CLASSES, ClassInfo

LAYOUT = "a folder data set is PATH/{train,val}/{images,masks}"


LOOKED_AT = 64
"""Masks read when a split is opened, to tell which of the two conventions it follows."""

CHANCE = 0.02
"""Of a matte's edge the few soft pixels may all be dark by chance: up to this share of the white ones."""

BLACK_AND_WHITE = PngForm(bits=1, palette=False)
"""PNGs of 1 bit are right in both conventions: white is the person."""


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
        mask, form = read_ids(pair.mask), png_form(pair.mask)
        if form == BLACK_AND_WHITE:
            return mask
        counts = histogram(mask)
        ids = _class_ids(counts, palette=form.palette)
        if ids:
            raise UnknownId(
                f"{pair.mask} holds {_listed(ids)}, like class ids; masks of two classes are 0/1 "
                "(255 = ignore) or 0/255 in gray (name more classes in classes.txt, or change the ids)"
            )
        if self.ids != _holds_ids(counts) and _tells(counts):
            raise UnknownId(
                f"{pair.mask} is {'no' if self.ids else 'a'} 0/1 mask (255 = ignore), unlike others of its "
                "split; save all masks of a split alike, 0/1 or 0/255"
            )
        return mask if self.ids else (mask >= 128).astype(np.uint8)


def _class_ids(counts: NDArray[np.float32], *, palette: bool) -> list[int]:
    """The values that show class ids, which must not be cut at 128; none in a mask 0/1 or 0/255.

    A soft edge crosses all of 0 to 255, so it has pixels on both sides of 128. Ids lie below, and 255 is
    their border or what was not labelled. A palette's indices are never shades.
    """
    odd = np.flatnonzero(counts[2:IGNORE]) + 2
    low, high = counts[2:128].sum(), counts[128:IGNORE].sum()
    if palette or (not high and low > CHANCE * counts[IGNORE]):
        return odd.tolist()
    return []


def _listed(ids: list[int], most: int = 6) -> str:
    return ", ".join(map(str, ids[:most])) + (
        f" and {len(ids) - most} more values" if len(ids) > most else ""
    )


def _holds_ids(counts: NDArray[np.float32]) -> bool:
    return not counts[2:IGNORE].any()


def _tells(counts: NDArray[np.float32]) -> bool:
    """Whether a mask is right in one convention only; one of 0 and 255 alone is right in both."""
    return bool(counts[1:IGNORE].any())


def _binary(pairs: Sequence[Pair]) -> Binary:
    """The first mask, of some spread over the split, that is only right in one convention decides."""
    for pair in pairs[:: max(1, len(pairs) // LOOKED_AT)]:
        try:
            counts = histogram(read_ids(pair.mask))
        except UserError:
            continue  # named when it is read for real, or by `data check`
        if _tells(counts) and png_form(pair.mask) != BLACK_AND_WHITE:
            return Binary(ids=_holds_ids(counts))
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
