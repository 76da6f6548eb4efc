"""EasyPortrait: video-call portraits with the person and eight parts of the face."""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.data.base import Kind, Split
from edge_deeplab.data.layout import find_root, pair_by_name, pictures, split_name
from edge_deeplab.spec import ClassInfo

CURE = "give the folder that holds images/{train,val,test} and annotations/{train,val,test}"

CLASSES = (
    ClassInfo("background", (0, 0, 0)),
    ClassInfo("person", (223, 87, 188)),
    ClassInfo("skin", (160, 221, 255)),
    ClassInfo("left brow", (130, 106, 237)),
    ClassInfo("right brow", (200, 121, 255)),
    ClassInfo("left eye", (255, 183, 255)),
    ClassInfo("right eye", (0, 144, 193)),
    ClassInfo("lips", (113, 137, 255)),
    ClassInfo("teeth", (230, 232, 230)),
)


def _open(path: Path, split: str) -> Split:
    root = find_root(path, ("images", "annotations"), ("EasyPortrait", "easyportrait"), CURE)
    folders = [root / part / split for part in ("images", "annotations")]
    images, masks = (pictures(folder, CURE) for folder in folders)
    return Split(split_name(root, split), pair_by_name(images, masks, folders[1]), CLASSES)


KIND = Kind(
    "EasyPortrait, 9 classes: background, person, skin, brows, eyes, lips, teeth",
    _open,
    ("train", "val", "test"),
    "a variant of CC BY-SA 4.0",
)
