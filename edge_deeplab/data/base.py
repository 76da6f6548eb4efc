"""Splits, pairs and the registry of data kinds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_deeplab.data.decode import Decode, UnknownId, present, stored_ids
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, Labels, read_image
from edge_deeplab.metrics import IGNORE
from edge_deeplab.plugins import discover
from edge_deeplab.spec import PERSON_CLASSES, ClassInfo


class SizeMismatch(UserError):
    """A photo and its labels differ in size."""


@dataclass(frozen=True)
class Pair:
    """A photo and the file that holds its labels: a picture of ids, or whatever the kind decodes."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class Split:
    """The pairs of one part of a data set.

    Attributes:
        name: For tables: last folder of the path and the split, e.g. ``eg/val``.
        pairs: In a fixed order (sorted by name).
        classes: Index = class id.
        decode: A pair -> its class ids; by default the mask's own gray levels or palette indices.
        notes: What the kind left out, a line each.
    """

    name: str
    pairs: tuple[Pair, ...]
    classes: tuple[ClassInfo, ...] = PERSON_CLASSES
    decode: Decode = field(default=stored_ids, compare=False, repr=False)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def listing(self) -> list[int]:
        """Number of pictures, and a checksum of their names in order: which picture an index is."""
        names = "\n".join(pair.image.name for pair in self.pairs)
        return [len(self.pairs), zlib.crc32(names.encode())]

    def read(self, index: int) -> tuple[Frame, Labels]:
        """Photo BGR uint8 (H, W, 3) and class ids uint8 (H, W), 255 = ignore.

        Raises:
            UserError: Unreadable, sizes differ (:class:`SizeMismatch`), or an id out of range
                (:class:`~edge_deeplab.data.decode.UnknownId`); the message names the pair.
        """
        pair = self.pairs[index]
        image, labels = read_image(pair.image), self.decode(pair)
        if image.shape[:2] != labels.shape:
            turned = image.shape[:2] == labels.shape[::-1]
            raise SizeMismatch(
                f"photo and mask differ in size: {pair.image} is {image.shape[1]}x{image.shape[0]}, "
                f"{pair.mask} is {labels.shape[1]}x{labels.shape[0]}"
                f"{' (does EXIF data turn the photo?)' if turned else ''}; correct the pair or remove it"
            )
        highest = max((value for value in present(labels) if value != IGNORE), default=0)
        if highest >= len(self.classes):
            raise UnknownId(
                f"{pair.mask} holds class id {highest}, but there are only ids 0 to "
                f"{len(self.classes) - 1} (255 = ignore)"
            )
        return image, labels


@dataclass(frozen=True)
class Kind:
    """A data set layout.

    Attributes:
        help: One line for ``--help`` and docs.
        open: (path, split) -> :class:`Split`; raises UserError that says what is off.
        splits: The parts it has; ``train`` and ``val`` at least.
        license: What the data may be used for, in a few words, from its authors.
    """

    help: str
    open: Callable[[Path, str], Split]
    splits: tuple[str, ...] = ("train", "val")
    license: str = "that of your own pictures"


def kinds() -> dict[str, Kind]:
    """All data kinds by name: ``kind_coco_person.py`` is ``coco-person``."""
    found: dict[str, Kind] = discover("edge_deeplab.data", "kind_", "KIND")
    return {name.replace("_", "-"): kind for name, kind in found.items()}


def open_split(spec: str, split: str) -> Split:
    """Open part of a data set.

    Args:
        spec: ``KIND:PATH``, e.g. ``folder:../data/eg``.
        split: ``train``, ``val``, or another part the kind has.

    Raises:
        UserError: Unknown kind or split, or the layout is off.
    """
    kind, colon, path = spec.partition(":")
    known = kinds()
    if not colon or kind not in known:
        raise UserError(f"--data {spec!r} must be KIND:PATH with KIND one of: {', '.join(known)}")
    if split not in known[kind].splits:
        raise UserError(f"{spec}: there is no split {split!r}; {kind} has {', '.join(known[kind].splits)}")
    opened = known[kind].open(Path(path).expanduser(), split)
    if not opened.pairs:
        raise UserError(f"{spec}: the {split} split is empty")
    return opened


def open_splits(specs: Sequence[str], split: str) -> list[Split]:
    """Open part of several data sets, each under a name of its own.

    Figures, curves and records go by name, so data sets whose last folders are called alike get the
    folders above them too: ``mine/eg/val`` and ``theirs/eg/val``. The same spec twice keeps one name.

    Args:
        specs, split: As for :func:`open_split`.

    Raises:
        UserError: As :func:`open_split`.
    """
    opened = [open_split(spec, split) for spec in specs]
    for name in {one.name for one in opened}:
        alike = [index for index, one in enumerate(opened) if one.name == name]
        for index, apart in zip(alike, _apart(name, [_place(specs[k]) for k in alike]), strict=True):
            opened[index] = replace(opened[index], name=apart)
    return opened


Place = tuple[str, tuple[str, ...]]
"""Kind, and the folders that lead to a data set, from the root of the disk."""


def _place(spec: str) -> Place:
    kind, _, path = spec.partition(":")
    return kind, Path(path).expanduser().resolve().parts[1:]


def _apart(name: str, places: Sequence[Place]) -> list[str]:
    """The name of each place: ``name`` after as few folders as tell the places apart."""
    own = name.partition("/")[0]
    # The name begins with the data set's own folder, which may also lie inside the one given.
    above = [folders[:-1] if folders[-1:] == (own,) else folders for _, folders in places]
    for depth in range(max(map(len, above)) + 1):
        names = ["/".join((*folders[max(0, len(folders) - depth) :], name)) for folders in above]
        if len(set(names)) == len(set(places)):
            return names
    return [f"{kind}:{name}" for kind, _ in places]  # one folder, read as two kinds
