from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split, open_splits
from edge_deeplab.errors import UserError
from edge_deeplab.spec import ClassInfo

# The first colours of VOC's palette, and that of void.
COLORS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
PALETTE = COLORS + [(0, 0, 0)] * 249 + [(224, 224, 192)]
TRAIN, VAL, EXTRA = ("2007_000032", "2007_000039"), ("2007_000033", "2007_000042"), ("2008_000002",)


def build(root: Path, make: Any) -> Path:
    voc = root / "VOCdevkit" / "VOC2012"
    for name in (*TRAIN, *VAL, *EXTRA):
        make.photo(voc / "JPEGImages" / f"{name}.jpg")
    for name in (*TRAIN, *VAL):
        make.palette(voc / "SegmentationClass" / f"{name}.png", make.ids(0, 255, 3, 20), PALETTE)
    lists = voc / "ImageSets" / "Segmentation"
    make.text(lists / "train.txt", "\n".join(TRAIN) + "\n")
    make.text(lists / "val.txt", "\n".join(VAL) + "\n")
    make.text(lists / "trainval.txt", "\n".join(sorted(TRAIN + VAL)) + "\n")
    return voc


def add_sbd(voc: Path, make: Any, names: tuple[str, ...] = (*TRAIN, *EXTRA)) -> Path:
    """SBD's masks for all its pictures, VOC's among them: gray, without void."""
    for name in names:
        make.gray(voc / "SegmentationClassAug" / f"{name}.png", make.ids(0, 7))
    return make.text(voc / "ImageSets/Segmentation/trainaug.txt", "\n".join(names))


@pytest.fixture
def voc(tmp_path: Path, make: Any) -> Path:
    return build(tmp_path, make)


def test_palette_masks_and_lists(voc: Path, make: Any) -> None:
    split = open_split(f"voc:{voc}", "train")
    assert split.name == "VOC2012/train"
    assert [pair.image.stem for pair in split.pairs] == list(TRAIN)
    np.testing.assert_array_equal(split.read(0)[1], make.ids(0, 255, 3, 20))
    assert [pair.image.stem for pair in open_split(f"voc:{voc}", "trainval").pairs] == sorted(TRAIN + VAL)


def test_the_published_classes(voc: Path) -> None:
    classes = open_split(f"voc:{voc}", "val").classes
    assert len(classes) == 21
    assert [info.color for info in classes[:6]] == COLORS
    assert classes[15] == ClassInfo("person", (192, 128, 128))
    assert classes[20] == ClassInfo("tvmonitor", (0, 64, 128))


@pytest.mark.parametrize("up", [0, 1, 2])
def test_any_folder_of_the_devkit_will_do(voc: Path, up: int) -> None:
    path = (voc, *voc.parents)[up]
    assert open_split(f"voc:{path}", "val").name == "VOC2012/val"


def test_devkits_in_several_places_have_names_of_their_own(tmp_path: Path, make: Any) -> None:
    one, other = build(tmp_path / "a", make), build(tmp_path / "b", make)
    found = open_splits([f"voc:{one}", f"voc:{other}"], "val")
    assert [split.name for split in found] == [f"{top}/VOCdevkit/VOC2012/val" for top in "ab"]
    found = open_splits([f"voc:{one.parent}", f"voc:{tmp_path / 'b'}"], "val")
    assert [split.name for split in found] == ["VOCdevkit/VOC2012/val", "b/VOC2012/val"]


def test_sbd_is_used_for_training_alone(voc: Path, make: Any) -> None:
    add_sbd(voc, make)
    train, val = (open_split(f"voc:{voc}", name) for name in ("train", "val"))
    assert train.name == "VOC2012/trainaug"
    assert [pair.image.stem for pair in train.pairs] == [*TRAIN, *EXTRA]
    folders = [pair.mask.parent.name for pair in train.pairs]
    assert folders == ["SegmentationClass", "SegmentationClass", "SegmentationClassAug"]
    np.testing.assert_array_equal(train.read(2)[1], make.ids(0, 7))
    assert [pair.image.stem for pair in val.pairs] == list(VAL)


def test_a_list_of_paths(voc: Path, make: Any) -> None:
    source = add_sbd(voc, make)
    lines = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in (*TRAIN, *EXTRA)]
    source.rename(make.text(source.with_name("train_aug.txt"), ""))
    make.text(source.with_name("train_aug.txt"), "\n".join(lines))
    assert len(open_split(f"voc:{voc}", "train")) == 3


def test_half_of_sbd(voc: Path, make: Any) -> None:
    source = add_sbd(voc, make)
    shutil.move(source, source.with_suffix(".bak"))
    with pytest.raises(UserError, match=r"has SegmentationClassAug, but no .*trainaug\.txt; add the list"):
        open_split(f"voc:{voc}", "train")
    shutil.move(source.with_suffix(".bak"), source)
    shutil.rmtree(voc / "SegmentationClassAug")
    with pytest.raises(UserError, match=r"trainaug\.txt is there, but no folder .*SegmentationClassAug"):
        open_split(f"voc:{voc}", "train")
    assert len(open_split(f"voc:{voc}", "val")) == 2


def test_sbds_own_list_would_train_on_val(voc: Path, make: Any) -> None:
    add_sbd(voc, make, (*TRAIN, *EXTRA, VAL[1]))
    with pytest.raises(UserError, match=f"trainaug.txt holds 1 pictures of val.txt, e.g. {VAL[1]}"):
        open_split(f"voc:{voc}", "train")


@pytest.mark.parametrize(("folder", "what"), [("JPEGImages", "photo"), ("SegmentationClass", "mask")])
def test_a_listed_file_is_missing(voc: Path, folder: str, what: str) -> None:
    next(file for file in (voc / folder).iterdir() if file.stem == VAL[0]).unlink()
    message = rf"val\.txt names {VAL[0]}, but there is no {what} of that name \(1 of 2 missing\)"
    with pytest.raises(UserError, match=message):
        open_split(f"voc:{voc}", "val")


def test_a_missing_list(voc: Path) -> None:
    (voc / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(
        UserError, match=r"cannot read .*val\.txt: no such file.*; found train\.txt, trainval\.txt"
    ):
        open_split(f"voc:{voc}", "val")


def test_an_id_beyond_the_classes(voc: Path, make: Any) -> None:
    path = voc / "SegmentationClass" / f"{VAL[0]}.png"
    make.palette(path, make.ids(0, 21), PALETTE)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} holds class id 21, .* only ids 0 to 20"):
        open_split(f"voc:{voc}", "val").read(0)
