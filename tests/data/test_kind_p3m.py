from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError

FOLDERS = {
    "train": "blurred_image",
    "validation/P3M-500-P": "blurred_image",
    "validation/P3M-500-NP": "original_image",
}


def build(root: Path, make: Any) -> Path:
    root = root / "P3M-10k"
    for folder, photos in FOLDERS.items():
        for index in range(2):
            name = f"p_{folder[-4:].strip('/')}{index}"
            make.photo(root / folder / photos / f"{name}.jpg")
            make.gray(root / folder / "mask" / f"{name}.png", make.ids(0, 127, 128, 255))
    return root


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    return build(tmp_path, make)


def test_mattes_are_cut_at_128(root: Path, make: Any) -> None:
    split = open_split(f"p3m:{root.parent}", "train")
    assert split.name == "P3M-10k/train"
    np.testing.assert_array_equal(split.read(0)[1], make.ids(0, 0, 1, 1))


def test_val_is_both_sets(root: Path) -> None:
    folders = [pair.image.parent.name for pair in open_split(f"p3m:{root}", "val").pairs]
    assert folders == ["blurred_image"] * 2 + ["original_image"] * 2
    assert [pair.image.parent.name for pair in open_split(f"p3m:{root}", "val-np").pairs] == folders[2:]
    assert [pair.image.parent.name for pair in open_split(f"p3m:{root}", "val-p").pairs] == folders[:2]


def test_a_matte_saved_as_colour(root: Path, make: Any) -> None:
    pair = open_split(f"p3m:{root}", "val").pairs[0]
    make.gray(pair.mask, np.repeat(make.ids(0, 255)[..., None], 3, axis=2))
    np.testing.assert_array_equal(open_split(f"p3m:{root}", "val").read(0)[1], make.ids(0, 1))


def test_half_of_val_is_missing(root: Path) -> None:
    shutil.rmtree(root / "validation" / "P3M-500-NP")
    with pytest.raises(
        UserError, match=r"P3M-500-NP/original_image: no such file or directory; .*P3M-500-P/"
    ):
        open_split(f"p3m:{root}", "val")
    assert len(open_split(f"p3m:{root}", "val-p")) == 2


def test_a_photo_without_a_matte(root: Path) -> None:
    next((root / "train" / "mask").iterdir()).unlink()
    with pytest.raises(UserError, match=r"has no mask of the same name \(1 such in .*train\)"):
        open_split(f"p3m:{root}", "train")
