"""A contact sheet: photos of a split beside their labels."""

from __future__ import annotations

import cv2
import numpy as np

from edge_deeplab.data.base import Split
from edge_deeplab.data.decode import present
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, Labels, overlay, resize_frame
from edge_deeplab.metrics import IGNORE
from edge_deeplab.spec import ClassInfo, InputContract

TILE = 200
"""Longest side of a photo on the sheet."""

COLUMNS = 4
CAPTION = 18
WHITE, GRAY = (255, 255, 255), (70, 70, 70)


def contact_sheet(split: Split, count: int = 24) -> Frame:
    """Up to ``count`` photos, evenly spread over the split, each beside its tinted labels.

    Pixels that count nowhere are darkened. Pairs that cannot be read are left out. Below stand the
    colours of the classes that occur.

    Returns:
        BGR uint8 (H, W, 3).
    """
    pictures, names, seen = [], [], set()
    for index in dict.fromkeys(int(i) for i in np.linspace(0, len(split) - 1, count)):
        try:
            image, labels = split.read(index)
        except UserError:
            continue
        image, labels = _small(image, labels)
        seen.update(present(labels))
        pictures.append(np.hstack([image, tinted(image, labels, split.classes)]))
        names.append(split.pairs[index].image.name)
    height = max((picture.shape[0] for picture in pictures), default=1)
    width = max((picture.shape[1] for picture in pictures), default=2 * TILE)
    tiles = [_framed(*each, height, width) for each in zip(pictures, names, strict=True)]
    blank = np.full((height + CAPTION, width + 8, 3), 255, np.uint8)
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    return np.vstack([*rows, _legend(split.classes, seen, COLUMNS * (width + 8))])


def tinted(image: Frame, labels: Labels, classes: tuple[ClassInfo, ...]) -> Frame:
    """BGR (H, W, 3) with the classes tinted; a background class stays clear, ignored pixels go dark."""
    ids, shown = labels, classes
    if classes[0].name.lower() != "background":
        # The shared overlay leaves id 0 clear; give that place to the ignored pixels (255 + 1 = 0).
        ids, shown = labels + np.uint8(1), (ClassInfo("ignored", (0, 0, 0)), *classes)
    height, width = labels.shape
    contract = InputContract("sheet", "", height, width, shown)
    painted = overlay(image, ids, contract)
    ignored = labels == IGNORE
    painted[ignored] = image[ignored] // 3
    return painted


def _small(image: Frame, labels: Labels) -> tuple[Frame, Labels]:
    height, width = labels.shape
    factor = TILE / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    ids = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resize_frame(image, *size), np.asarray(ids, np.uint8)


def _framed(picture: Frame, name: str, height: int, width: int) -> Frame:
    """A picture centred in a white frame of (height, width) with its name below."""
    tile = np.full((height + CAPTION, width + 8, 3), 255, np.uint8)
    top, left = (height - picture.shape[0]) // 2, 4 + (width - picture.shape[1]) // 2
    tile[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    most = max(8, width // 7)  # letters that fit
    if len(name) > most:
        name = f"{name[: most // 2 - 1]}..{name[-most // 2 + 1 :]}"
    _write(tile, name, 4, height + CAPTION - 5)
    return tile


def _legend(classes: tuple[ClassInfo, ...], seen: set[int], width: int) -> Frame:
    """A line of colour patches with names, wrapped to ``width``."""
    entries = [(info.name, info.color[::-1]) for k, info in enumerate(classes) if k in seen]
    if IGNORE in seen:
        entries.append(("ignored (darkened)", GRAY))
    column, line = 200, 22
    across = max(1, width // column)
    legend = np.full((line * -(-len(entries) // across) + 10, width, 3), 255, np.uint8)
    for place, (name, color) in enumerate(entries):
        x, y = 6 + place % across * column, 6 + place // across * line
        cv2.rectangle(legend, (x, y), (x + 16, y + 14), color, -1)
        _write(legend, name[:28], x + 22, y + 12)
    return legend


def _write(picture: Frame, text: str, x: int, y: int) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font has no other letters
    cv2.putText(picture, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, GRAY, 1, cv2.LINE_AA)
