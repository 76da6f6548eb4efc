"""Supervisely Person: 5,711 photos whose people are polygons and bitmaps in JSON files.

``neutral`` objects count nowhere. In photos tagged ``not-marked-people`` some people were not labelled, so
only the labelled ones count there.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.data.decode import UnknownId
from edge_deeplab.data.layout import found_in, gap, in_split, pictures, split_name
from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes
from edge_deeplab.imaging import Labels
from edge_deeplab.metrics import IGNORE

CURE = "give the folder that holds ds1/img, ds1/ann, ds2/img …"
UNMARKED = "not-marked-people"


def _bitmap(shape: dict[str, Any], size: tuple[int, int]) -> Labels:
    """A bitmap object: a zlib-packed PNG in base64, its corner at ``origin`` (x, y)."""
    data = zlib.decompress(base64.b64decode(shape["data"]))
    picture: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError("a bitmap is no PNG")
    inside = (picture if picture.ndim == 2 else picture[..., -1]) > 0  # gray, or the alpha channel
    left, top = (int(value) for value in shape["origin"])
    mask = np.zeros(size, np.uint8)
    # Some bitmaps reach over the edge of the photo.
    part = inside[max(0, -top) : size[0] - top, max(0, -left) : size[1] - left]
    top, left = max(0, top), max(0, left)
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask


def _polygon(shape: dict[str, Any], size: tuple[int, int]) -> Labels:
    """A polygon object; its corners name pixels, as Supervisely draws them."""
    mask = np.zeros(size, np.uint8)
    for rings, value in (([shape["exterior"]], 1), (shape["interior"], 0)):
        for ring in rings:
            if ring:
                cv2.fillPoly(mask, [np.rint(np.array(ring, np.float64)).astype(np.int32)], value)
    return mask


def _tags(record: dict[str, Any]) -> list[str]:
    """Tag names: plain strings in the first release, records later."""
    return [tag if isinstance(tag, str) else tag["name"] for tag in record.get("tags", [])]


def _paint(record: dict[str, Any]) -> Labels:
    """The labels of one annotation, uint8 (H, W)."""
    size = int(record["size"]["height"]), int(record["size"]["width"])
    labels = np.full(size, IGNORE if UNMARKED in _tags(record) else 0, np.uint8)
    # Neutral objects first: what is a person as well stays a person.
    for item in sorted(record["objects"], key=lambda item: item["classTitle"] != "neutral"):
        title = item["classTitle"]
        if title != "neutral" and not title.startswith("person"):
            raise UnknownId(f"object of class {title!r}; expected person_poly, person_bmp or neutral")
        bitmap = item.get("bitmap") or {}
        mask = _bitmap(bitmap, size) if bitmap.get("data") else _polygon(item["points"], size)
        labels[mask > 0] = IGNORE if title == "neutral" else 1
    return labels


def _decode(pair: Pair) -> Labels:
    try:
        return _paint(json.loads(read_bytes(pair.mask)))
    except UnknownId as error:
        raise UnknownId(f"{pair.mask}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error, cv2.error) as error:
        raise UserError(
            f"cannot read {pair.mask}: not a Supervisely annotation ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); unpack the data set again"
        ) from error


def _annotation(image: Path) -> Path:
    """``ann/NAME.json`` of the first release or ``ann/NAME.png.json`` of later ones."""
    folder = image.parent.parent / "ann"
    full = folder / f"{image.name}.json"
    return full if full.is_file() else folder / f"{image.stem}.json"


def _open(path: Path, split: str) -> Split:
    folders = sorted(path.glob("ds*/img")) or sorted(path.glob("*/ds*/img"))
    if not folders:
        raise UserError(f"{path} has no ds*/img; {found_in(path)}; {CURE}")
    root = folders[0].parent.parent
    pairs = []
    for folder in folders:
        for image in pictures(folder, CURE).values():
            if not _annotation(image).is_file():
                line = f"{image} has no annotation {_annotation(image)}"
                found = f"{found_in(folder.parent)} in {folder.parent}"
                gap([line], f"{line}; {found}; unpack the data set again")
            elif in_split(f"{folder.parent.name}/{image.stem}", split):
                pairs.append(Pair(image, _annotation(image)))
    return Split(split_name(root, split), tuple(pairs), decode=_decode)


KIND = Kind(
    "Supervisely Person (ds*/img, ds*/ann): polygons and bitmaps; every 20th picture is val",
    _open,
    license="non-commercial: research, teaching, publications; photos from Pexels",
)
