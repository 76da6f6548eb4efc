from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.data.layout import in_split
from edge_deeplab.errors import UserError

SIZE = {"height": 48, "width": 64}


def polygon(
    exterior: list[list[int]], *interior: list[list[int]], title: str = "person_poly"
) -> dict[str, Any]:
    return {
        "classTitle": title,
        "points": {"exterior": exterior, "interior": list(interior)},
        "bitmap": None,
    }


def bitmap(mask: Any, origin: tuple[int, int], alpha: bool = True) -> dict[str, Any]:
    """A bitmap object: a PNG whose alpha (or gray) is the mask, packed by zlib, in base64."""
    mask = np.asarray(mask, np.uint8) * 255
    pixels = np.dstack([mask] * 4) if alpha else mask
    done, png = cv2.imencode(".png", pixels)
    assert done
    data = base64.b64encode(zlib.compress(png.tobytes())).decode()
    return {
        "classTitle": "person_bmp",
        "points": {"exterior": [], "interior": []},
        "bitmap": {"origin": list(origin), "data": data},
    }


def square(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def names(split: str, count: int) -> list[str]:
    every = (f"pexels-photo-{number}" for number in range(1000))
    return [name for name in every if in_split(f"ds1/{name}", split)][:count]


def build(root: Path, make: Any) -> Path:
    root = root / "Supervisely Person Dataset"
    make.json(root / "meta.json", {"classes": []})
    for split in ("train", "val"):
        for index, name in enumerate(names(split, 3)):
            make.photo(root / "ds1" / "img" / f"{name}.png")
            objects = [polygon(square(4, 4, 20, 30)), bitmap(np.ones((5, 6)), (40, 10))]
            # Older releases leave out the picture's suffix.
            suffix = ".png.json" if index else ".json"
            record = {"size": SIZE, "tags": [], "objects": objects}
            make.json(root / "ds1" / "ann" / f"{name}{suffix}", record)
    return root


@pytest.fixture
def labels_of(tmp_path: Path, make: Any) -> Any:
    """``labels_of(objects, tags)``: what is read from an annotation."""
    root = build(tmp_path, make)

    def read(objects: list[Any], tags: list[Any] | None = None) -> Any:
        split = open_split(f"supervisely-person:{root}", "val")
        split.pairs[0].mask.write_text(json.dumps({"size": SIZE, "tags": tags or [], "objects": objects}))
        return split.read(0)[1]

    return read


def test_polygons_and_bitmaps(tmp_path: Path, make: Any) -> None:
    split = open_split(f"supervisely-person:{build(tmp_path, make).parent}", "train")
    assert split.name == "Supervisely Person Dataset/train"
    assert [pair.image.stem for pair in split.pairs] == names("train", 3)
    assert [pair.mask.name.count(".") for pair in split.pairs] == [1, 2, 2]
    expected = np.zeros((48, 64), np.uint8)
    expected[4:31, 4:21] = 1  # corners name pixels
    expected[10:15, 40:46] = 1
    for index in range(3):
        np.testing.assert_array_equal(split.read(index)[1], expected)


def test_a_hole(labels_of: Any) -> None:
    labels = labels_of([polygon(square(0, 0, 30, 30), square(10, 10, 20, 20))])
    assert labels[5, 5] == 1 and labels[15, 15] == 0
    # Another person shows through the hole.
    labels = labels_of(
        [polygon(square(12, 12, 14, 14)), polygon(square(0, 0, 30, 30), square(10, 10, 20, 20))]
    )
    assert labels[13, 13] == 1 and labels[18, 18] == 0


def test_a_bitmap_over_the_edge(labels_of: Any) -> None:
    labels = labels_of([bitmap(np.ones((10, 10)), (60, -4), alpha=False)])
    expected = np.zeros((48, 64), np.uint8)
    expected[:6, 60:] = 1
    np.testing.assert_array_equal(labels, expected)


def test_a_bitmap_keeps_its_shape(labels_of: Any) -> None:
    np.testing.assert_array_equal(labels_of([bitmap(np.eye(8), (3, 5))])[5:13, 3:11], np.eye(8))


def test_neutral_objects_are_ignored(labels_of: Any) -> None:
    neutral = polygon(square(0, 0, 20, 20), title="neutral")
    labels = labels_of([polygon(square(10, 10, 30, 30)), neutral])
    assert labels[5, 5] == 255
    assert labels[15, 15] == 1, "a person in it stays one"
    assert labels[40, 40] == 0


@pytest.mark.parametrize("tag", ["not-marked-people", {"name": "not-marked-people", "value": None}])
def test_where_people_are_not_marked_only_the_marked_count(labels_of: Any, tag: Any) -> None:
    labels = labels_of([polygon(square(10, 10, 30, 30))], [tag])
    assert labels[20, 20] == 1
    assert labels[40, 40] == 255


def test_an_object_without_corners(labels_of: Any) -> None:
    assert not labels_of([polygon([])]).any()


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (
            [{**polygon(square(0, 0, 9, 9)), "classTitle": "car"}],
            "object of class 'car'; expected person_poly",
        ),
        ([{"classTitle": "person_poly"}], "not a Supervisely annotation"),
        ([{"classTitle": "person_bmp", "bitmap": {"data": "????", "origin": [0, 0]}}], "not a Supervisely"),
        (
            [{"classTitle": "person_bmp", "bitmap": {"data": "aGVsbG8=", "origin": [0, 0]}}],
            "not a Supervisely",
        ),
        (
            [
                {
                    "classTitle": "person_bmp",
                    "bitmap": {"data": base64.b64encode(zlib.compress(b"x")).decode(), "origin": [0, 0]},
                }
            ],
            "a bitmap is no PNG",
        ),
        (["no object"], "not a Supervisely annotation"),
    ],
)
def test_objects_that_are_off(labels_of: Any, objects: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        labels_of(objects)
    assert ".json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_photo_without_annotation(tmp_path: Path, make: Any) -> None:
    root = build(tmp_path, make)
    (root / "ds1" / "ann" / f"{names('train', 1)[0]}.json").unlink()
    with pytest.raises(
        UserError, match=r"\.png has no annotation .*\.json; found ann/, img/ in .*ds1; unpack"
    ):
        open_split(f"supervisely-person:{root}", "val")
