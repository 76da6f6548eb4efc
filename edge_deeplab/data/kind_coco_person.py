"""COCO 2017: person against everything else. Crowds count nowhere.

Pictures without a person are left out. Polygons and both run-length encodings are decoded here:
pycocotools would add a compiled dependency for a few lines.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.data.layout import find_root, found_in, pictures, split_name
from edge_deeplab.data.shapes import Points, fill_polygon, mask_from_counts, unpack_counts
from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes
from edge_deeplab.imaging import Labels
from edge_deeplab.metrics import IGNORE

CURE = "give the folder that holds annotations, train2017 and val2017"
PERSON = 1
"""COCO's category id of a person."""


@dataclass(frozen=True)
class _Region:
    """One person, or a crowd: polygons, or run lengths as a list or a compressed string."""

    picture: int
    crowd: bool
    polygons: tuple[Points, ...] = ()
    counts: Any = None


@dataclass(frozen=True)
class _People:
    """Decoder: the regions of each picture, by file name."""

    source: Path
    sizes: dict[str, tuple[int, int]]
    regions: dict[str, list[_Region]]

    def __call__(self, pair: Pair) -> Labels:
        height, width = self.sizes[pair.image.name]
        labels = np.zeros((height, width), np.uint8)
        # Crowds first: a person in front of a crowd stays a person.
        for region in sorted(self.regions[pair.image.name], key=lambda region: not region.crowd):
            value = IGNORE if region.crowd else 1
            for polygon in region.polygons:
                fill_polygon(labels, polygon, value)
            if region.counts is not None:
                try:
                    text = isinstance(region.counts, str)
                    counts = unpack_counts(region.counts) if text else region.counts
                    labels[mask_from_counts(counts, height, width) > 0] = value
                except ValueError as error:
                    raise UserError(f"{self.source}: {pair.image.name}: {error}") from error
        return labels


def _slim(record: dict[str, Any]) -> Any:
    """Turn annotations into regions while the file is parsed: the records would take gigabytes."""
    if "segmentation" not in record:
        return record
    if record["category_id"] != PERSON:
        return None
    shape, crowd = record["segmentation"], bool(record.get("iscrowd"))
    if isinstance(shape, list):
        polygons = tuple(np.array(polygon, np.float32).reshape(-1, 2) for polygon in shape if polygon)
        return _Region(record["image_id"], crowd, polygons)
    # Parsed before the annotation around it, a run-length record is whole here.
    counts = shape["counts"]
    packed = counts if isinstance(counts, str) else np.array(counts, np.int32)
    return _Region(record["image_id"], crowd, counts=packed)


def _read(source: Path) -> tuple[dict[int, dict[str, Any]], list[_Region]]:
    """The picture records by id, and the regions with people."""
    try:
        data = json.loads(read_bytes(source), object_hook=_slim)
        names = {category["id"]: category["name"] for category in data["categories"]}
        if names.get(PERSON) != "person":
            raise UserError(f"{source} has no category 1 'person'; expected COCO's instances_*2017.json")
        images = {record["id"]: record for record in data["images"]}
        regions = [region for region in data["annotations"] if region is not None]
        if not all(isinstance(region, _Region) for region in regions):
            raise KeyError("segmentation")
        return images, regions
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source} is no COCO instances file ({type(error).__name__}: {error}); download it again"
        ) from error


def _open(path: Path, split: str) -> Split:
    name = f"annotations/instances_{split}2017.json"
    root = find_root(path, (name,), ("coco", "COCO"), CURE)
    folder = next((root / at for at in (f"{split}2017", f"images/{split}2017") if (root / at).is_dir()), None)
    if folder is None:
        raise UserError(f"{root} has neither {split}2017 nor images/{split}2017; {found_in(root)}; {CURE}")
    source = root / name
    records, everyone = _read(source)
    regions: dict[str, list[_Region]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    try:
        for region in everyone:
            record = records[region.picture]
            regions.setdefault(record["file_name"], []).append(region)
            sizes[record["file_name"]] = int(record["height"]), int(record["width"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{source}: the record of a picture is missing or lacks {error}") from error
    there = {file.name: file for file in pictures(folder, CURE).values()}
    missing = sorted(regions.keys() - there.keys())
    if missing:
        raise UserError(
            f"{source} names {missing[0]}, but there is no {folder / missing[0]} "
            f"({len(missing)} of {len(regions)} missing); unpack {split}2017.zip again"
        )
    pairs = tuple(Pair(there[file], source) for file in sorted(regions))
    notes = (f"{len(records) - len(pairs)} pictures without a person left out",)
    return Split(split_name(root, split), pairs, decode=_People(source, sizes, regions), notes=notes)


KIND = Kind(
    "COCO 2017 instances: person against the rest, crowds ignored",
    _open,
    license="annotations CC BY 4.0; photos from Flickr under its terms of use",
)
