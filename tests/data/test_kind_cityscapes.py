from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError

# (id in labelIds, train id) as in the authors' table.
SCORED = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
PLACES = {
    "train": ("aachen/aachen_000000_000019", "bochum/bochum_000000_000313"),
    "val": ("lindau/lindau_000000_000019", "munster/munster_000001_000019"),
}


def build(root: Path, make: Any) -> Path:
    for split, places in PLACES.items():
        for place in places:
            make.photo(root / "leftImg8bit" / split / f"{place}_leftImg8bit.png")
            truth = root / "gtFine" / split
            make.gray(truth / f"{place}_gtFine_labelIds.png", make.ids(*range(34)))
            make.gray(truth / f"{place}_gtFine_color.png", np.zeros((48, 64, 3)))
            make.gray(truth / f"{place}_gtFine_instanceIds.png", make.ids(0))
            make.text(truth / f"{place}_gtFine_polygons.json", "{}")
    return root


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    return build(tmp_path / "cityscapes", make)


def test_label_ids_become_train_ids(root: Path) -> None:
    split = open_split(f"cityscapes:{root}", "train")
    assert split.name == "cityscapes/train"
    assert [pair.image.parent.name for pair in split.pairs] == ["aachen", "bochum"]
    expected = [SCORED.index(label) if label in SCORED else 255 for label in range(34)]
    np.testing.assert_array_equal(split.read(0)[1][0, :34], expected)


def test_the_published_classes(root: Path) -> None:
    classes = open_split(f"cityscapes:{root}", "val").classes
    assert len(classes) == 19
    assert (classes[0].name, classes[0].color) == ("road", (128, 64, 128))
    assert (classes[18].name, classes[18].color) == ("bicycle", (119, 11, 32))


def test_train_id_pictures_come_first(root: Path, make: Any) -> None:
    place = PLACES["val"][0]
    path = root / "gtFine" / "val" / f"{place}_gtFine_labelTrainIds.png"
    make.gray(path, make.ids(18, 255))
    split = open_split(f"cityscapes:{root}", "val")
    assert [pair.mask.name.split("_")[-1] for pair in split.pairs] == ["labelTrainIds.png", "labelIds.png"]
    np.testing.assert_array_equal(split.read(0)[1], make.ids(18, 255))
    make.gray(path, make.ids(19))
    with pytest.raises(UserError, match=r"labelTrainIds\.png holds class id 19"):
        split.read(0)


def test_an_unknown_label_id(root: Path, make: Any) -> None:
    path = make.gray(root / "gtFine" / "val" / f"{PLACES['val'][0]}_gtFine_labelIds.png", make.ids(7, 34))
    message = rf"{re.escape(str(path))} holds id 34, which this data set does not have \(ids 0 to 33\)"
    with pytest.raises(UserError, match=message):
        open_split(f"cityscapes:{root}", "val").read(0)


def test_polygons_without_pictures(root: Path) -> None:
    for file in (root / "gtFine" / "val").glob("*/*.png"):
        file.unlink()
    with pytest.raises(
        UserError, match=r"gtFine/val has no CITY/\*_gtFine_labelIds\.png; found lindau/, munster/"
    ):
        open_split(f"cityscapes:{root}", "val")


def test_one_archive_is_missing(root: Path) -> None:
    shutil.rmtree(root / "gtFine")
    with pytest.raises(UserError, match=r"has no gtFine; found leftImg8bit/; .*gtFine_trainvaltest\.zip"):
        open_split(f"cityscapes:{root}", "val")


def test_a_photo_without_labels(root: Path) -> None:
    (root / "gtFine" / "train" / f"{PLACES['train'][1]}_gtFine_labelIds.png").unlink()
    with pytest.raises(
        UserError, match=r"bochum_000000_000313_leftImg8bit\.png has no mask of the same name"
    ):
        open_split(f"cityscapes:{root}", "train")
