"""What the kinds share: finding folders, lists and pairs, and saying what is off."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from edge_deeplab.data.base import Pair
from edge_deeplab.errors import UserError, because
from edge_deeplab.imaging import IMAGE_SUFFIXES

VAL_EVERY = 20
"""Where authors publish no split, one picture in this many is for validation."""


_gaps: ContextVar[list[str] | None] = ContextVar("gaps", default=None)


@contextmanager
def gaps_listed() -> Iterator[list[str]]:
    """Within it, photos without labels are left out of splits, and listed here, a line each.

    For ``data check``, which tells all that is wrong; whoever trains or evaluates is stopped at the first.
    """
    found: list[str] = []
    token = _gaps.set(found)
    try:
        yield found
    finally:
        _gaps.reset(token)


def gap(lines: Sequence[str], message: str) -> None:
    """Something is missing: listed for :func:`gaps_listed`, an error for everybody else."""
    listed = _gaps.get()
    if listed is None:
        raise UserError(message)
    listed += lines


def find_root(path: Path, expected: tuple[str, ...], inside: tuple[str, ...], cure: str) -> Path:
    """The data set's own folder: ``path``, or one of the folders ``inside`` it.

    Args:
        path: What the user gave.
        expected: Files or folders the data set's folder must hold.
        inside: Relative folders to try after ``path`` itself.
        cure: What to give instead, for the error.

    Raises:
        UserError: None of them holds all that is expected; says what is missing and what is there.
    """
    for root in (path, *(path / name for name in inside)):
        if all((root / name).exists() for name in expected):
            return root
    missing = [name for name in expected if not (path / name).exists()]
    raise UserError(f"{path} has no {' and no '.join(missing)}; {found_in(path)}; {cure}")


def found_in(folder: Path, most: int = 6) -> str:
    """What a folder holds, for an error message: ``found a/, b/, c.txt and 12 more``."""
    try:
        names = sorted(f"{file.name}{'/' if file.is_dir() else ''}" for file in folder.iterdir())
    except OSError as error:
        return f"cannot read {folder}: {because(error)}"
    names = [name for name in names if not name.startswith(".")]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"found {', '.join(names[:most]) or 'nothing'}{more}"


def pictures(folder: Path, layout: str) -> dict[str, Path]:
    """The pictures of a folder by name without suffix, sorted; hidden files are passed over.

    Args:
        folder: Where to look; folders in it are not entered.
        layout: What the data set should look like, for the error.

    Raises:
        UserError: No such folder, or two pictures share a name.
    """
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        parent = next((above for above in folder.parents if above.is_dir()), folder)
        raise UserError(
            f"cannot read {folder}: {because(error)}; {layout} ({found_in(parent)} in {parent})"
        ) from error
    found: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            if file.stem in found:
                raise UserError(f"two pictures share a name: {found[file.stem]} and {file}")
            found[file.stem] = file
    return found


def pair_by_name(images: Mapping[str, Path], masks: Mapping[str, Path], where: Path) -> tuple[Pair, ...]:
    """Pairs of all photos with the masks of the same name.

    Raises:
        UserError: A photo without a mask, or a mask without a photo.
    """
    for missing, what in ((images.keys() - masks.keys(), "mask"), (masks.keys() - images.keys(), "photo")):
        if missing:
            present = images if what == "mask" else masks
            lines = [f"{present[name]} has no {what} of the same name" for name in sorted(missing)]
            gap(lines, f"{lines[0]} ({len(missing)} such in {where})")
    return tuple(Pair(image, masks[name]) for name, image in sorted(images.items()) if name in masks)


def pair_by_list(
    names: Iterable[str], source: Path, images: Mapping[str, Path], masks: Mapping[str, Path]
) -> tuple[Pair, ...]:
    """Pairs of the names in a list, sorted.

    Args:
        names: Names without suffix.
        source: The list they come from, for the error.
        images, masks: All there are, by name.

    Raises:
        UserError: A photo or mask that the list names is not there.
    """
    wanted = sorted(set(names))
    for there, what in ((images, "photo"), (masks, "mask")):
        missing = [name for name in wanted if name not in there]
        if missing:
            lines = [f"{source} names {name}, but there is no {what} of that name" for name in missing]
            gap(lines, f"{lines[0]} ({len(missing)} of {len(wanted)} missing); unpack the data set again")
    return tuple(Pair(images[name], masks[name]) for name in wanted if name in images and name in masks)


def read_lines(file: Path) -> list[str]:
    """The lines of a text file that hold anything, stripped.

    Raises:
        UserError: Unreadable, or not UTF-8 text.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {file}: {because(error)}; {found_in(file.parent)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text; save it as UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def split_name(root: Path, split: str) -> str:
    """Name of a split for tables: the data set's last folder and the split."""
    return f"{root.resolve().name}/{split}"


def in_split(name: str, split: str) -> bool:
    """Whether a picture belongs to ``train`` or ``val``, where the authors publish no split.

    Follows from the name alone, so other pictures, their order and the machine change nothing.
    """
    return (zlib.crc32(name.encode()) % VAL_EVERY == 0) == (split == "val")
