from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError


def build(root: Path, make: Any) -> Path:
    root = root / "EG1800"
    for part, numbers in (("train", (1, 3)), ("test", (2, 5))):
        for number in numbers:
            make.photo(root / "Images" / f"{number:05d}.png")
        make.text(root / f"eg1800_{part}.txt", "".join(f"{number:05d}.png\n" for number in numbers))
    for number in range(1, 8):  # the authors pass on more labels than photos
        make.gray(root / "Labels" / f"{number:05d}.png", make.ids(0, 1))
    return root


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    return build(tmp_path, make)


def test_lists_and_masks(root: Path, make: Any) -> None:
    train, val = (open_split(f"eg1800:{root.parent}", name) for name in ("train", "val"))
    assert [pair.image.name for pair in train.pairs] == ["00001.png", "00003.png"]
    assert [pair.image.name for pair in val.pairs] == ["00002.png", "00005.png"]
    assert val.name == "EG1800/val"
    np.testing.assert_array_equal(val.read(0)[1], make.ids(0, 1))


def test_higher_values_are_background_as_in_the_authors_loader(root: Path, make: Any) -> None:
    make.gray(root / "Labels" / "00002.png", make.ids(0, 1, 2, 255))
    np.testing.assert_array_equal(open_split(f"eg1800:{root}", "val").read(0)[1], make.ids(0, 1, 0, 0))


def test_masks_of_0_and_255(root: Path, make: Any) -> None:
    make.gray(root / "Labels" / "00002.png", make.ids(0, 255))
    with pytest.raises(UserError, match=r"Labels/00002\.png holds values up to 255, but no 1; .*folder:PATH"):
        open_split(f"eg1800:{root}", "val").read(0)


def test_an_empty_mask_is_a_picture_without_person(root: Path, make: Any) -> None:
    make.gray(root / "Labels" / "00002.png", make.ids(0))
    assert not open_split(f"eg1800:{root}", "val").read(0)[1].any()


@pytest.mark.parametrize(("folder", "what"), [("Images", "photo"), ("Labels", "mask")])
def test_a_listed_file_is_missing(root: Path, folder: str, what: str) -> None:
    (root / folder / "00005.png").unlink()
    with pytest.raises(
        UserError, match=rf"eg1800_test\.txt names 00005, but there is no {what} of that name"
    ):
        open_split(f"eg1800:{root}", "val")


def test_no_list(root: Path) -> None:
    (root / "eg1800_test.txt").unlink()
    with pytest.raises(
        UserError, match=r"has no eg1800_test\.txt; found Images/, Labels/, eg1800_train\.txt"
    ):
        open_split(f"eg1800:{root}", "val")
