"""Cityscapes, fine annotations: the 19 classes that its benchmark scores."""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.data.decode import IdTable, stored_ids
from edge_deeplab.data.layout import find_root, found_in, pair_by_name, split_name
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Labels
from edge_deeplab.metrics import IGNORE
from edge_deeplab.spec import ClassInfo

CURE = "give the folder that leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip were unpacked in"
PHOTO = "_leftImg8bit.png"
LABELS = "_gtFine_labelIds.png"
TRAIN_IDS = "_gtFine_labelTrainIds.png"

# Train id = place in this list; the first number is the id in labelIds pictures.
_SCORED = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CLASSES = tuple(ClassInfo(name, color) for _, name, color in _SCORED)
_from_label_ids = IdTable(
    {**dict.fromkeys(range(34), IGNORE), **{label: train for train, (label, _, _) in enumerate(_SCORED)}}
)


def _decode(pair: Pair) -> Labels:
    return (stored_ids if pair.mask.name.endswith(TRAIN_IDS) else _from_label_ids)(pair)


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """Files ``CITY/NAME<suffix>`` by NAME, which begins with the city."""
    return {file.name.removesuffix(suffix): file for file in folder.glob(f"*/*{suffix}")}


def _open(path: Path, split: str) -> Split:
    root = find_root(path, ("leftImg8bit", "gtFine"), ("cityscapes",), CURE)
    photos, truth = root / "leftImg8bit" / split, root / "gtFine" / split
    images = _by_name(photos, PHOTO)
    masks = {**_by_name(truth, LABELS), **_by_name(truth, TRAIN_IDS)}
    for files, folder, suffix in ((images, photos, PHOTO), (masks, truth, LABELS)):
        if not files:
            raise UserError(f"{folder} has no CITY/*{suffix}; {found_in(folder)}; {CURE}")
    return Split(split_name(root, split), pair_by_name(images, masks, truth), CLASSES, _decode)


KIND = Kind(
    "Cityscapes fine annotations, 19 classes (leftImg8bit, gtFine)",
    _open,
    license="non-commercial: research, teaching, publications; registration needed",
)
