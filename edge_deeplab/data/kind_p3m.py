"""P3M-10k: portraits with alpha mattes; faces blurred in ``train`` and ``val-p``, not in ``val-np``."""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.data.base import Kind, Split
from edge_deeplab.data.decode import person_from_matte
from edge_deeplab.data.layout import find_root, pair_by_name, pictures, split_name

CURE = "give the folder P3M-10k, with train/blurred_image and train/mask in it"
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (("train", "blurred_image"),),
    "val-p": (("validation/P3M-500-P", "blurred_image"),),
    "val-np": (("validation/P3M-500-NP", "original_image"),),
}
PARTS["val"] = PARTS["val-p"] + PARTS["val-np"]


def _open(path: Path, split: str) -> Split:
    first = f"{PARTS[split][0][0]}/mask"
    root = find_root(path, (first,), ("P3M-10k",), CURE)
    pairs = tuple(
        pair
        for folder, photos in PARTS[split]
        for pair in pair_by_name(
            pictures(root / folder / photos, CURE), pictures(root / folder / "mask", CURE), root / folder
        )
    )
    return Split(split_name(root, split), pairs, decode=person_from_matte)


KIND = Kind(
    "P3M-10k portrait matting, person where alpha >= 128; val is P3M-500-P and -NP",
    _open,
    ("train", "val", "val-p", "val-np"),
    "MIT after agreeing to the release agreement",
)
