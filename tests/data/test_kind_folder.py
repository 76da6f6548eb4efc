"""The plain folders' own tests are in ``tests/test_data_folder.py``; here what all kinds need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.data.decode import UnknownId


def build(root: Path, make: Any) -> Path:
    for split in ("train", "val", "test"):
        for index in range(2):
            make.photo(root / split / "images" / f"{split}{index}.png")
            make.gray(root / split / "masks" / f"{split}{index}.png", make.ids(0, 255))
    return root


def test_palette_masks_hold_indices(tmp_path: Path, make: Any) -> None:
    """Two classes with a palette of black and red: 0 and 1, whatever the colours."""
    build(tmp_path, make)
    for index in range(2):
        path = tmp_path / "val" / "masks" / f"val{index}.png"
        make.palette(path, make.ids(0, 1, 1), [(0, 0, 0), (200, 10, 10)], depth=1)
    np.testing.assert_array_equal(open_split(f"folder:{tmp_path}", "val").read(1)[1], make.ids(0, 1, 1))


def test_indices_of_a_palette_are_never_shades(tmp_path: Path, make: Any) -> None:
    build(tmp_path, make)
    make.palette(tmp_path / "val" / "masks" / "val1.png", make.ids(0, 90, 200, 255), [(0, 0, 0)] * 256)
    split = open_split(f"folder:{tmp_path}", "val")
    np.testing.assert_array_equal(split.read(0)[1], make.ids(0, 1))
    with pytest.raises(UnknownId, match=r"val1\.png holds 90, 200, like class ids; .* or 0/255 in gray"):
        split.read(1)
