from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
# Columns 50 to 54 of 48x64, as pycocotools writes it: 2400 off, 240 on, 432 off.
PACKED = {"size": [48, 64], "counts": "P[2`7`="}


def annotation(picture: int, shape: Any, category: int = 1, crowd: int = 0) -> dict[str, Any]:
    return {"image_id": picture, "category_id": category, "iscrowd": crowd, "segmentation": shape}


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def write(root: Path, make: Any, split: str, annotations: list[dict[str, Any]], pictures: int = 3) -> None:
    images = [
        {"id": k, "file_name": f"{split}{k:012d}.jpg", "height": 48, "width": 64, "license": 3}
        for k in range(1, pictures + 1)
    ]
    for record in images:
        make.photo(root / f"{split}2017" / record["file_name"])
    record = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}
    make.json(root / "annotations" / f"instances_{split}2017.json", record)


def build(root: Path, make: Any) -> Path:
    """Picture 1 has a person of two parts, 2 a crowd and a person in it, 3 only a dog."""
    root = root / "coco"
    crowd = {"size": [48, 64], "counts": [48 * 10, 48 * 20, 48 * 34]}
    for split in ("train", "val"):
        annotations = [
            annotation(1, [box(4, 8, 20, 40), box(30.0, 8.0, 34.5, 12.0)]),
            annotation(1, [box(40, 0, 64, 48)], category=18),
            annotation(2, [box(20, 10, 40, 20)]),
            annotation(2, crowd, crowd=1),
            annotation(2, PACKED),
            annotation(3, [box(0, 0, 9, 9)], category=18),
        ]
        write(root, make, split, annotations)
    return root


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    return build(tmp_path, make)


def test_polygons(root: Path) -> None:
    split = open_split(f"coco-person:{root}", "val")
    labels = split.read(0)[1]
    expected = np.zeros((48, 64), np.uint8)
    expected[8:40, 4:20] = 1
    expected[8:12, 30:34] = 1
    np.testing.assert_array_equal(labels[:, :34], expected[:, :34])
    assert not labels[:, 35:].any()  # column 34 is half covered


def test_crowds_are_ignored_and_people_in_front_of_them_are_not(root: Path) -> None:
    expected = np.zeros((48, 64), np.uint8)
    expected[:, 10:30] = 255
    expected[10:20, 20:40] = 1
    expected[:, 50:55] = 1
    np.testing.assert_array_equal(open_split(f"coco-person:{root}", "train").read(1)[1], expected)


def test_pictures_without_people_are_left_out(root: Path) -> None:
    split = open_split(f"coco-person:{root}", "val")
    assert [pair.image.name for pair in split.pairs] == ["val000000000001.jpg", "val000000000002.jpg"]
    assert split.notes == ("1 pictures without a person left out",)
    assert [info.name for info in split.classes] == ["background", "person"]


def test_photos_may_lie_in_images(root: Path) -> None:
    (root / "images").mkdir()
    (root / "val2017").rename(root / "images" / "val2017")
    assert len(open_split(f"coco-person:{root.parent}", "val")) == 2


def test_no_photos(root: Path) -> None:
    (root / "val2017").rename(root / "val2014")
    with pytest.raises(
        UserError, match=r"has neither val2017 nor images/val2017; found annotations/, train2017/"
    ):
        open_split(f"coco-person:{root}", "val")


def test_no_annotations(root: Path) -> None:
    (root / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(UserError, match=r"has no annotations/instances_val2017\.json; found annotations/"):
        open_split(f"coco-person:{root}", "val")


def test_a_photo_is_missing(root: Path) -> None:
    (root / "val2017" / "val000000000002.jpg").unlink()
    with pytest.raises(UserError, match=r"names val0+2\.jpg, but there is no .* \(1 of 2 missing\)"):
        open_split(f"coco-person:{root}", "val")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "wall"}]}),
        json.dumps(
            {"images": [], "annotations": [{"image_id": 1, "caption": "a dog"}], "categories": CATEGORIES}
        ),
        json.dumps(
            {"images": [], "annotations": [annotation(1, [box(0, 0, 9, 9)])], "categories": CATEGORIES}
        ),
        json.dumps({"images": [], "annotations": [annotation(1, [[1, 2, 3]])], "categories": CATEGORIES}),
        json.dumps(
            {"images": [], "annotations": [annotation(1, {"size": [2, 2]})], "categories": CATEGORIES}
        ),
    ],
)
def test_another_file(root: Path, text: str) -> None:
    source = root / "annotations" / "instances_val2017.json"
    source.write_text(text)
    with pytest.raises(UserError, match=r"instances_val2017\.json") as caught:
        open_split(f"coco-person:{root}", "val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [48, 64], "counts": [1, 2, 3]},
        {"size": [48, 64], "counts": [-1, 48 * 64 + 1]},
        {"size": [48, 64], "counts": "P[2`7"},
        {"size": [48, 64], "counts": "not a string of runs"},
        {"size": [48, 64], "counts": "é"},
        {"size": [48, 64], "counts": ""},
    ],
)
def test_run_lengths_that_do_not_fit(root: Path, make: Any, shape: Any) -> None:
    write(root, make, "val", [annotation(1, shape)])
    with pytest.raises(UserError, match=r"instances_val2017\.json: val0+1\.jpg: ") as caught:
        open_split(f"coco-person:{root}", "val").read(0)
    assert "\n" not in str(caught.value)
