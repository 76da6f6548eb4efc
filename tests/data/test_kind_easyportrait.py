from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError


def build(root: Path, make: Any) -> Path:
    for split in ("train", "val", "test"):
        for index in range(2):
            name = f"{split}-0a1b-{index}"
            make.photo(root / "images" / split / f"{name}.jpg")
            make.gray(root / "annotations" / split / f"{name}.png", make.ids(*range(9)))
    make.text(root / "annotations" / "meta.zip", "not looked at")
    return root


def test_the_nine_classes(tmp_path: Path, make: Any) -> None:
    split = open_split(f"easyportrait:{build(tmp_path, make)}", "test")
    assert [info.name for info in split.classes] == [
        "background",
        "person",
        "skin",
        "left brow",
        "right brow",
        "left eye",
        "right eye",
        "lips",
        "teeth",
    ]
    assert split.classes[1].color == (223, 87, 188)
    np.testing.assert_array_equal(split.read(0)[1], make.ids(*range(9)))


def test_palette_masks(tmp_path: Path, make: Any) -> None:
    split = open_split(f"easyportrait:{build(tmp_path, make)}", "val")
    make.palette(split.pairs[0].mask, make.ids(0, 8), [(k, 0, 0) for k in range(9)], depth=4)
    np.testing.assert_array_equal(split.read(0)[1], make.ids(0, 8))


def test_an_id_beyond_the_classes(tmp_path: Path, make: Any) -> None:
    split = open_split(f"easyportrait:{build(tmp_path, make)}", "val")
    make.gray(split.pairs[0].mask, make.ids(0, 9))
    with pytest.raises(UserError, match=r"val-0a1b-0\.png holds class id 9, but there are only ids 0 to 8"):
        split.read(0)


def test_an_archive_was_not_unpacked(tmp_path: Path, make: Any) -> None:
    root = build(tmp_path, make)
    shutil.rmtree(root / "annotations" / "val")
    with pytest.raises(UserError, match=r"annotations/val: no such file .*found meta\.zip, test/, train/ in"):
        open_split(f"easyportrait:{root}", "val")


def test_a_photo_without_mask(tmp_path: Path, make: Any) -> None:
    root = build(tmp_path, make)
    (root / "annotations" / "val" / "val-0a1b-1.png").unlink()
    with pytest.raises(UserError, match=r"val-0a1b-1\.jpg has no mask of the same name"):
        open_split(f"easyportrait:{root}", "val")
