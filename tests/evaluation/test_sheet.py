"""Photo, truth and answer side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_deeplab.data import Pair, Split
from edge_deeplab.evaluation.sheet import CAPTION, TILE, Shown, sheet
from edge_deeplab.imaging import write_image


def test_a_sheet(tmp_path: Path) -> None:
    pairs = []
    for index, (height, width) in enumerate([(48, 64), (100, 50), (30, 30)]):
        image = np.full((height, width, 3), 40 + 60 * index, np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[:, width // 2 :] = 1
        write_image(tmp_path / f"{index}.png", image)
        write_image(tmp_path / f"{index}m.png", mask)
        pairs.append(Pair(tmp_path / f"{index}.png", tmp_path / f"{index}m.png"))
    split = Split("toy/val", tuple(pairs))
    shown = [Shown(split, index, f"0.5 toy {index} ü") for index in range(3)]
    drawn = sheet(lambda frame: np.ones(frame.shape[:2], np.uint8), shown)
    # The tallest and the widest of the three decide the tile; two a row, the last place blank.
    assert drawn.shape == (2 * (TILE + CAPTION), 2 * (3 * TILE + 10), 3)
    first = drawn[:180, : 3 * TILE]
    assert (first[90, 10] == 40).all()  # the photo
    assert (first[90, TILE + 30] == 40).all()  # its truth: background left clear
    assert (first[90, TILE + 200] != 40).any()  # person tinted
    assert (first[90, 2 * TILE + 30] != 40).any()  # the answer: all person
    assert (drawn[TILE + CAPTION :, 3 * TILE + 10 :] == 255).all()
