from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError
from edge_deeplab.spec import ClassInfo


def build(root: Path, make: Any) -> Path:
    root = root / "ADEChallengeData2016"
    for split, folder in (("train", "training"), ("val", "validation")):
        for index in (1, 2):
            name = f"ADE_{split}_{index:08d}"
            make.photo(root / "images" / folder / f"{name}.jpg")
            make.gray(root / "annotations" / folder / f"{name}.png", make.ids(0, 1, 13, 150))
    return root


def info(names: int = 150) -> str:
    rows = [f"{k}\t0.01\t10\t1\tclass {k}, other name" for k in range(1, names + 1)]
    return "\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]) + "\n"


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    return build(tmp_path, make)


def test_other_objects_are_ignored(root: Path, make: Any) -> None:
    split = open_split(f"ade20k:{root.parent}", "val")
    assert split.name == "ADEChallengeData2016/val"
    np.testing.assert_array_equal(split.read(0)[1], make.ids(255, 0, 12, 149))


def test_the_published_classes(root: Path) -> None:
    classes = open_split(f"ade20k:{root}", "val").classes
    assert len(classes) == 150
    assert classes[0] == ClassInfo("wall", (120, 120, 120))
    assert classes[12] == ClassInfo("person", (150, 5, 61))
    assert classes[149] == ClassInfo("flag", (92, 0, 255))
    assert len({info.name for info in classes}) == 150


def test_names_come_from_the_archive(root: Path, make: Any) -> None:
    make.text(root / "objectInfo150.txt", info())
    assert open_split(f"ade20k:{root}", "val").classes[149] == ClassInfo("class 150", (92, 0, 255))


def test_a_file_with_other_names(root: Path, make: Any) -> None:
    make.text(root / "objectInfo150.txt", info(149))
    with pytest.raises(UserError, match=r"objectInfo150\.txt names 149 different classes, expected 150"):
        open_split(f"ade20k:{root}", "val")


def test_an_id_beyond_the_classes(root: Path, make: Any) -> None:
    make.gray(root / "annotations/validation/ADE_val_00000001.png", make.ids(151))
    with pytest.raises(UserError, match=r"ADE_val_00000001\.png holds id 151, .* \(ids 0 to 150\)"):
        open_split(f"ade20k:{root}", "val").read(0)


def test_the_full_ade20k_is_another_data_set(tmp_path: Path) -> None:
    (tmp_path / "ADE20K_2021_17_01" / "images" / "ADE").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has no annotations; found images/; .*the full ADE20K"):
        open_split(f"ade20k:{tmp_path / 'ADE20K_2021_17_01'}", "val")
