"""AISegment matting human datasets: 34,427 half-length portraits of 600x800 with their cut-outs."""

from __future__ import annotations

from pathlib import Path

from edge_deeplab.data.base import Kind, Pair, Split
from edge_deeplab.data.decode import person_from_alpha
from edge_deeplab.data.layout import find_root, found_in, gap, in_split, split_name
from edge_deeplab.errors import UserError

CURE = "give the folder matting_human_half, with clip_img and matting in it"


def _by_name(folder: Path, prefix: str, suffix: str) -> dict[str, Path]:
    """Files ``GROUP/<prefix>NUMBER/NAME<suffix>`` by ``GROUP/NUMBER/NAME``.

    The archive was packed on a Mac and is littered with ``._*`` files, which are no pictures.
    """
    files = sorted(folder.glob(f"*/{prefix}*/*{suffix}"))
    if not files:
        raise UserError(f"{folder} has no */{prefix}*/*{suffix}; {found_in(folder)}; {CURE}")
    return {
        f"{file.parts[-3]}/{file.parts[-2].removeprefix(prefix)}/{file.stem}": file
        for file in files
        if not any(part.startswith("._") for part in file.parts[-3:])
    }


def _open(path: Path, split: str) -> Split:
    root = find_root(path, ("clip_img", "matting"), ("matting_human_half",), CURE)
    images = _by_name(root / "clip_img", "clip_", ".jpg")
    masks = _by_name(root / "matting", "matting_", ".png")
    missing = sorted(images.keys() - masks.keys())
    # The published archive lacks a cut-out for one or two photos; more means it was not unpacked whole.
    if len(missing) > max(2, len(images) // 1000):
        lines = [f"{images[name]} has no cut-out in {root / 'matting'}" for name in missing]
        gap(lines, f"{lines[0]} ({len(missing)} of {len(images)} such); unpack the archive again")
    pairs = tuple(
        Pair(images[name], masks[name])
        for name in sorted(images.keys() & masks.keys())
        if in_split(name, split)
    )
    notes = (f"{len(missing)} photos without a cut-out left out",) if missing else ()
    return Split(split_name(root, split), pairs, decode=person_from_alpha, notes=notes)


KIND = Kind(
    "AISegment matting human half, person where alpha >= 128; every 20th picture is val",
    _open,
    license="MIT; photos from Flickr, Baidu and Taobao",
)
