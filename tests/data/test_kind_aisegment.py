from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.data.layout import in_split
from edge_deeplab.errors import UserError

CLIP = "1803151818/{}_00000000"


def names(split: str, count: int) -> list[str]:
    """Numbers of pictures that fall into a split."""
    every = (f"1803151818-{number:08d}" for number in range(10_000))
    return [name for name in every if in_split(f"1803151818/00000000/{name}", split)][:count]


def build(root: Path, make: Any) -> Path:
    root = root / "matting_human_half"
    for name in (*names("train", 4), *names("val", 2)):
        make.photo(root / "clip_img" / CLIP.format("clip") / f"{name}.jpg")
        cut_out = np.dstack([np.full((48, 64, 3), 9), make.ids(0, 127, 128, 255)])
        make.gray(root / "matting" / CLIP.format("matting") / f"{name}.png", cut_out)
    # What a Mac leaves in an archive.
    make.text(root / "matting" / CLIP.format("._matting"), "Mac OS X")
    make.text(root / "matting" / CLIP.format("matting") / f"._{names('train', 1)[0]}.png", "Mac OS X")
    make.text(root / "clip_img" / CLIP.format("clip") / f"._{names('train', 1)[0]}.jpg", "Mac OS X")
    return root


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    return build(tmp_path, make)


def test_the_alpha_channel_is_cut_at_128(root: Path, make: Any) -> None:
    split = open_split(f"aisegment:{root.parent}", "train")
    assert split.name == "matting_human_half/train"
    assert [pair.image.stem for pair in split.pairs] == names("train", 4)
    np.testing.assert_array_equal(split.read(0)[1], make.ids(0, 0, 1, 1))
    assert not split.notes


def test_the_split_never_changes(root: Path) -> None:
    """These are in val on every machine: nobody trains on what others score on."""
    assert [pair.image.stem for pair in open_split(f"aisegment:{root}", "val").pairs] == names("val", 2)
    assert names("val", 2) == ["1803151818-00000000", "1803151818-00000040"]


def test_one_picture_in_twenty_is_val() -> None:
    share = sum(in_split(f"a/b/{k}", "val") for k in range(10_000)) / 10_000
    assert 0.04 < share < 0.06


def test_a_few_photos_lack_a_cut_out(root: Path) -> None:
    cut_outs = [root / "matting" / CLIP.format("matting") / f"{name}.png" for name in names("train", 3)]
    cut_outs[0].unlink()
    cut_outs[1].unlink()
    split = open_split(f"aisegment:{root}", "train")
    assert len(split) == 2
    assert split.notes == ("2 photos without a cut-out left out",)
    cut_outs[2].unlink()
    with pytest.raises(UserError, match=r"\.jpg has no cut-out in .*matting \(3 of 6 such\); unpack"):
        open_split(f"aisegment:{root}", "train")


def test_other_folders_inside(root: Path) -> None:
    (root / "clip_img" / "1803151818").rename(root / "clip_img" / "moved")
    (root / "clip_img" / "moved" / "clip_00000000").rename(root / "clip_img" / "moved" / "photos")
    with pytest.raises(UserError, match=r"clip_img has no \*/clip_\*/\*\.jpg; found moved/"):
        open_split(f"aisegment:{root}", "train")


def test_a_cut_out_without_alpha(root: Path, make: Any) -> None:
    split = open_split(f"aisegment:{root}", "val")
    make.gray(split.pairs[0].mask, make.ids(0, 255))
    with pytest.raises(UserError, match=r"\.png has no alpha channel; expected an RGBA PNG"):
        split.read(0)
