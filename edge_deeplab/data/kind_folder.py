"""Plain folders: ``PATH/{train,val}/{images,masks}``, a mask for every photo, same name, PNG best.

Two classes (background, person): masks hold 0/1 or 0/255. More classes: put their names, one a line,
in ``PATH/classes.txt``; masks then hold the line numbers from 0, and 255 where nothing counts.
"""

from __future__ import annotations

import colorsys
from pathlib import Path

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.errors import UserError, because
from edge_deeplab.imaging import IMAGE_SUFFIXES
from edge_deeplab.spec import PERSON_CLASSES, ClassInfo


def _pictures(folder: Path) -> dict[str, Path]:
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"cannot read {folder}: {because(error)}; "
            "a folder data set is PATH/{train,val}/{images,masks}"
        ) from error
    found: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            if file.stem in found:
                raise UserError(f"two pictures share a name: {found[file.stem]} and {file}")
            found[file.stem] = file
    return found


def _classes(path: Path) -> tuple[ClassInfo, ...]:
    file = path / "classes.txt"
    if not file.exists():
        return PERSON_CLASSES
    names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if len(names) < 2:
        raise UserError(f"{file} must name at least two classes, one a line")
    # Evenly spread hues; the first class is background by convention and stays black.
    hues = (colorsys.hsv_to_rgb(k / (len(names) - 1), 0.75, 0.95) for k in range(len(names) - 1))
    colors = [(0, 0, 0), *((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in hues)]
    return tuple(ClassInfo(name, color) for name, color in zip(names, colors, strict=True))


def _open(path: Path, split: str) -> Split:
    images, masks = _pictures(path / split / "images"), _pictures(path / split / "masks")
    for missing, where in ((images.keys() - masks.keys(), "mask"), (masks.keys() - images.keys(), "photo")):
        if missing:
            name = min(missing)
            present = (images if where == "mask" else masks)[name]
            raise UserError(
                f"{present} has no {where} of the same name ({len(missing)} such in {path / split})"
            )
    pairs = tuple(Pair(image, masks[stem]) for stem, image in images.items())
    return Split(f"{path.resolve().name}/{split}", pairs, _classes(path))


KIND = Kind("folders {train,val}/{images,masks}, masks 0/255 or class ids", _open)
