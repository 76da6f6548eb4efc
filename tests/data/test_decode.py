"""Label files into ids: above all palette PNGs, whose indices OpenCV does not give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.data import Pair
from edge_deeplab.data.decode import IdTable, UnknownId, present, read_ids
from edge_deeplab.errors import UserError


@pytest.mark.parametrize("line_filter", [0, 1, 2])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_indices(tmp_path: Path, make: Any, depth: int, line_filter: int) -> None:
    random = np.random.default_rng(depth)
    ids = random.integers(0, 2**depth, (13, 21))  # lines that end within a byte
    colors = [tuple(int(v) for v in random.integers(0, 256, 3)) for _ in range(2**depth)]
    path = make.palette(tmp_path / "mask.png", ids, colors, depth, line_filter)
    seen = cv2.imread(str(path), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(seen, np.array(colors)[ids][..., ::-1], "a sound file")
    read = read_ids(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, ids)


def test_two_indices_of_one_colour_stay_apart(tmp_path: Path, make: Any) -> None:
    ids = make.ids(0, 1, 2)
    path = make.palette(tmp_path / "mask.png", ids, [(0, 0, 0), (9, 9, 9), (9, 9, 9)])
    np.testing.assert_array_equal(read_ids(path), ids)


@pytest.mark.parametrize("optimize", [False, True])
def test_palettes_as_pillow_writes_them(tmp_path: Path, make: Any, optimize: bool) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow writes the pictures")
    ids = make.ids(0, 1, 5, 255)
    picture = pil.fromarray(ids).convert("L")
    picture.putpalette(list(range(256)) * 3)
    picture.save(tmp_path / "mask.png", optimize=optimize, transparency=0)
    with pil.open(tmp_path / "mask.png") as file:
        assert file.mode == "P"
        np.testing.assert_array_equal(read_ids(tmp_path / "mask.png"), np.array(file))


def test_gray_masks_stay_as_they_are(tmp_path: Path, make: Any) -> None:
    ids = make.ids(0, 7, 255)
    np.testing.assert_array_equal(read_ids(make.gray(tmp_path / "mask.png", ids)), ids)


@pytest.mark.parametrize("keep", [0, 20, 30, 60, -40, -13, -1])
def test_a_palette_png_cut_short(tmp_path: Path, make: Any, keep: int) -> None:
    path = make.palette(tmp_path / "mask.png", make.ids(0, 1), [(0, 0, 0), (1, 1, 1)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"cannot read .*mask\.png"):
        read_ids(path)


def test_colour_masks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="has 3 channels of uint8; masks must be 8-bit with one channel"):
        read_ids(path)


def test_a_table_of_ids(tmp_path: Path, make: Any) -> None:
    decode = IdTable({0: 255, 7: 0, 9: 1})
    path = make.gray(tmp_path / "mask.png", make.ids(7, 9, 0))
    np.testing.assert_array_equal(decode(Pair(path, path)), make.ids(0, 1, 255))
    make.gray(path, make.ids(7, 8, 3))
    with pytest.raises(
        UnknownId, match=r"mask\.png holds id 8, which this data set does not have \(ids 0 to 9\)"
    ):
        decode(Pair(path, path))


def test_present() -> None:
    assert present(np.array([[3, 0], [255, 3]], np.uint8)) == [0, 3, 255]
