"""EG1800 portraits as PortraitNet's authors pass them on: 1,447 and 289 pictures, masks 0/1."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.data.decode import UnknownId, read_ids
from edge_deeplab.data.layout import find_root, pair_by_list, pictures, read_lines, split_name
from edge_deeplab.imaging import Labels

CURE = "give the folder EG1800, with eg1800_train.txt, eg1800_test.txt, Images and Labels in it"
LISTS = {"train": "eg1800_train.txt", "val": "eg1800_test.txt"}


def _decode(pair: Pair) -> Labels:
    """Person where the mask is 1. Higher values are background, as in the authors' own loader."""
    mask = read_ids(pair.mask)
    labels = (mask == 1).astype(np.uint8)
    if mask.any() and not labels.any():
        raise UnknownId(
            f"{pair.mask} holds values up to {mask.max()}, but no 1; masks of EG1800 are 0/1 "
            "(for 0/255 masks use folder:PATH)"
        )
    return labels


def _open(path: Path, split: str) -> Split:
    root = find_root(path, (LISTS[split], "Images", "Labels"), ("EG1800",), CURE)
    source = root / LISTS[split]
    names = [Path(line).stem for line in read_lines(source)]
    pairs = pair_by_list(names, source, pictures(root / "Images", CURE), pictures(root / "Labels", CURE))
    return Split(split_name(root, split), pairs, decode=_decode)


KIND = Kind(
    "EG1800 portraits, masks 0/1; eg1800_test.txt is val",
    _open,
    license="academic use; photos from Flickr belong to their authors",
)
