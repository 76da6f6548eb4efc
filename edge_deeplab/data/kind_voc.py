"""PASCAL VOC 2012 segmentation, and SBD's extra masks where they are there.

``train`` is the ``trainaug`` list with ``SegmentationClassAug`` when both are present (10,582 pictures, as
in the DeepLab papers), else VOC's own 1,464.
"""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.data.base import Kind, Split
from edge_deeplab.data.layout import find_root, found_in, pair_by_list, pictures, read_lines, split_name
from edge_deeplab.errors import UserError
from edge_deeplab.spec import ClassInfo

CURE = "give the folder VOC2012 of the VOCdevkit"
LISTS = "ImageSets/Segmentation"
AUGMENTED = "SegmentationClassAug"
AUGMENTED_LISTS = (f"{LISTS}/trainaug.txt", f"{LISTS}/train_aug.txt", f"{LISTS}Aug/train_aug.txt")

_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)


def _color(index: int) -> tuple[int, int, int]:
    """The VOC colour of a class: the bits of its id, dealt to red, green and blue from the top."""
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue


CLASSES = tuple(ClassInfo(name, _color(index)) for index, name in enumerate(_NAMES.split()))


def _names(source: Path) -> list[str]:
    """Names in a list. Some ``trainaug`` lists give paths of photo and mask instead of names."""
    return [Path(line.split()[0]).stem for line in read_lines(source)]


def _augmented(root: Path) -> Path | None:
    """The list of SBD's training pictures, or None where there is no SBD."""
    source = next((root / name for name in AUGMENTED_LISTS if (root / name).is_file()), None)
    there = (root / AUGMENTED).is_dir()
    if source is None and there:
        raise UserError(
            f"{root} has {AUGMENTED}, but no {AUGMENTED_LISTS[0]}; add the list, or take the folder away "
            f"to train on VOC's own list ({found_in(root / LISTS)} in {LISTS})"
        )
    if source is not None and not there:
        raise UserError(
            f"{source} is there, but no folder {root / AUGMENTED}; add SBD's masks as PNGs, or take the "
            "list away to train on VOC's own"
        )
    return source


def _open(path: Path, split: str) -> Split:
    needed = (LISTS, "JPEGImages", "SegmentationClass")
    root = find_root(path, needed, ("VOC2012", "VOCdevkit/VOC2012"), CURE)
    augmented = _augmented(root) if split == "train" else None
    masks = pictures(root / "SegmentationClass", CURE)
    source = augmented or root / LISTS / f"{split}.txt"
    names = _names(source)
    if augmented is not None:
        held_out = root / LISTS / "val.txt"
        leaked = sorted(set(names) & set(_names(held_out) if held_out.exists() else ()))
        if leaked:
            raise UserError(
                f"{source} holds {len(leaked)} pictures of val.txt, e.g. {leaked[0]}: training on it "
                "would make val worthless; use the list of 10,582 names"
            )
        # VOC's own masks mark the objects' borders as void; SBD's do not.
        masks = {**pictures(root / AUGMENTED, CURE), **masks}
    pairs = pair_by_list(names, source, pictures(root / "JPEGImages", CURE), masks)
    return Split(split_name(root, "trainaug" if augmented else split), pairs, CLASSES)


KIND = Kind(
    "PASCAL VOC 2012, 21 classes; with SBD's trainaug list when it is there",
    _open,
    ("train", "val", "trainval"),
    "photos from Flickr under its terms of use; for research",
)
