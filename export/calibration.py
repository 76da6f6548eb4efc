"""Pictures that INT8 ranges are measured on, chosen once and written down, and a cache of what they gave."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError
from edge_deeplab.export.base import METHODS, Method
from edge_deeplab.files import cache_folder, read_bytes, write_text
from edge_deeplab.imaging import Frame, pictures_in, read_image
from edge_deeplab.spec import InputContract, Quantization
from edge_deeplab.version import __version__
from edge_deeplab.zoo import is_shipped

MINIMUM = 16
"""Fewer pictures than this are refused: ranges measured on a handful are those pictures' own."""

COUNT = 128
"""Pictures taken by default. More changed ranges little (docs/export.md)."""

LOOKS = 32
"""Pictures looked at for doubts about them; a few are enough to see that a folder is the wrong one."""

CACHE_FORMAT = 1

Note = Callable[[str], None]
"""Takes one line for the user: a doubt, not an error."""


@dataclass(frozen=True)
class Picture:
    """One calibration picture: its name, the SHA-256 of its file or pixels, and a function that reads it."""

    name: str
    sha256: str
    read: Callable[[], Frame] = dataclasses.field(compare=False, repr=False)


@dataclass(frozen=True)
class Calibration:
    """What INT8 ranges are measured on. Made by :func:`choose` or :func:`packaged`.

    Attributes:
        source: Where the pictures come from, for people.
        pictures: In a fixed order.
        method: How ranges follow from values.
        seed: Of the choice.
    """

    source: str
    pictures: tuple[Picture, ...]
    method: Method = "minmax"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"no calibration method {self.method!r}; there are: {', '.join(METHODS)}")

    @cached_property
    def sha256(self) -> str:
        """Hash over names and contents, in order: what a report names instead of the whole list."""
        lines = (f"{picture.sha256} {picture.name}\n" for picture in self.pictures)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def tensors(self, contract: InputContract) -> Tensors:
        """The pictures as input tensors of a model; may be iterated any number of times."""
        return Tensors(self.pictures, contract)

    def record(self, scheme: str, float_layers: tuple[str, ...] = ()) -> Quantization:
        """For the contract of the artefact."""
        return Quantization(
            scheme=scheme,
            method=self.method,
            pictures=len(self.pictures),
            source=self.source,
            sha256=self.sha256,
            float_layers=float_layers,
        )


@dataclass(frozen=True)
class Tensors:
    """Input tensors (1, ...) as ``contract`` says, read and scaled anew on every pass.

    A generator would be empty on its second pass, and calibrators pass twice: to count, then to measure.
    """

    pictures: tuple[Picture, ...]
    contract: InputContract

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for picture in self.pictures:
            yield imaging.preprocess(picture.read(), self.contract)


# -- choosing ----------------------------------------------------------------------------------


def choose(spec: str, count: int = COUNT, *, method: Method = "minmax", seed: int = 0) -> Calibration:
    """Choose pictures at random, the same ones for the same seed and files.

    Args:
        spec: A folder of pictures, or ``KIND:PATH``: its train split, since val is what accuracy is
            measured on.
        count: How many; all there are when there are fewer, but never fewer than :data:`MINIMUM`.
        method: How ranges follow from values.
        seed: Of the choice.

    Raises:
        UserError: Too few pictures, one that cannot be read, or no such folder or kind.
    """
    _check_count(count)
    folder = Path(spec).expanduser()
    if folder.is_dir() or ":" not in spec:
        files, source = pictures_in(folder), str(folder)
    else:
        split = open_split(spec, "train")
        files, source = [pair.image for pair in split.pairs], split.name
    if len(files) < MINIMUM:
        raise UserError(
            f"--calibration {spec} has {len(files)} pictures; INT8 ranges need {MINIMUM} or more, "
            "best 100 or more"
        )
    chosen = sorted(random.Random(seed).sample(range(len(files)), min(count, len(files))))
    return Calibration(source, tuple(_picture(files[place]) for place in chosen), method, seed)


def packaged(count: int = COUNT, *, method: Method = "minmax", seed: int = 0) -> Calibration:
    """Views of the packaged portrait: mirrored, cropped, turned, shaded. For shipped models only."""
    from edge_deeplab.export.sample import augmented

    views = augmented(count, seed)
    pictures = (
        Picture(name, hashlib.sha256(view.tobytes()).hexdigest(), partial(np.copy, view))
        for name, view in views
    )
    return Calibration("views of the packaged portrait", tuple(pictures), method, seed)


def for_shipped(model: str, count: int = COUNT, *, method: Method = "minmax", seed: int = 0) -> Calibration:
    """The packaged pictures, for a model that came with the package.

    Raises:
        UserError: It is another model: what its camera sees, nobody here knows. Or too few are asked for.
    """
    if not is_shipped(model):
        raise UserError(
            "INT8 measures ranges on pictures like those the model will see: "
            f"give --calibration DIR or KIND:PATH, {MINIMUM} or more, best 100 or more"
        )
    _check_count(count)
    return packaged(count, method=method, seed=seed)


def _check_count(count: int) -> None:
    if count < MINIMUM:
        raise UserError(f"--calibration-count {count} is too few; take {MINIMUM} or more, best 100 or more")


def _picture(path: Path) -> Picture:
    """Decodes the file once: an unreadable one is named now, not minutes into the export."""
    read_image(path)
    return Picture(path.name, hashlib.sha256(read_bytes(path)).hexdigest(), partial(read_image, path))


# -- doubts ------------------------------------------------------------------------------------


def doubts(
    calibration: Calibration, contract: InputContract, segment: Callable[[Frame], NDArray[np.uint8]] | None
) -> list[str]:
    """What about these pictures makes bad ranges likely, a line each; empty when nothing does.

    Args:
        calibration: The pictures.
        contract: Of the model.
        segment: BGR frame -> labels by the float model, to see whether it finds anything in them;
            None: only the pixels are looked at.
    """
    same = len(calibration.pictures) - len({picture.sha256 for picture in calibration.pictures})
    looked_at = calibration.pictures[:: max(1, len(calibration.pictures) // LOOKS)]
    total = len(looked_at)
    flat = noisy = empty = 0
    for picture in looked_at:
        frame = imaging.to_input_size(imaging.as_color(picture.read()), contract, channels="BGR")
        gray = frame.mean(axis=2)
        spread = float(gray.std())
        if spread < 4:
            flat += 1
        elif _neighbours(gray) < 0.3:
            noisy += 1
        if segment is not None:
            found = np.bincount(segment(frame).ravel(), minlength=2) / frame[..., 0].size
            empty += bool(found.max() > 0.99)
    found_what = "both classes" if contract.binary else "more than one class"
    lines = [
        (same * total // len(calibration.pictures), f"{same} are copies of others"),
        (flat, f"{flat} of {total} show hardly anything (gray levels differ by less than 4)"),
        (noisy, f"{noisy} of {total} look like noise (neighbouring pixels are unrelated)"),
        (empty, f"in {empty} of {total} the float model does not find {found_what}"),
    ]
    return [
        f"calibration pictures ({calibration.source}): {line}; INT8 may lose accuracy on real ones"
        for count, line in lines
        if count > total // 4
    ]


def _neighbours(gray: NDArray[Any]) -> float:
    """Correlation of horizontal neighbours: near 1 in photos, near 0 in noise."""
    return float(np.corrcoef(gray[:, :-1].ravel(), gray[:, 1:].ravel())[0, 1])


# -- statistics and their cache ----------------------------------------------------------------


def own_versions() -> dict[str, str]:
    """Of what reads, resizes and counts the pictures, whoever runs the model: part of every cache's key."""
    return {"edge-deeplab": __version__, "numpy": np.__version__, "opencv": cv2.__version__}


def statistics(
    calibration: Calibration,
    contract: InputContract,
    *,
    graph: str,
    tools: Mapping[str, str],
    compute: Callable[[], dict[str, Any]],
    note: Note,
) -> dict[str, Any]:
    """What ``compute`` measures, or the same from the cache.

    The cache's key is everything the result depends on; anything else than the exact same question
    is a miss. A damaged cache file is measured anew and written over.

    Args:
        calibration: Pictures and method.
        contract: Of the model: size and preprocessing enter the key.
        graph: SHA-256 of the float graph that is measured, weights included.
        tools: Versions of the packages that measure, besides those of :func:`own_versions`.
        compute: Measures; its answer must be JSON.
        note: Told of a damaged or unwritable cache.
    """
    question = {
        "format": CACHE_FORMAT,
        "graph": graph,
        "input": {
            name: getattr(contract, name)
            for name in ("height", "width", "resize", "channels", "mean", "std", "layout", "dtype")
        },
        "pictures": calibration.sha256,
        "method": calibration.method,
        "tools": {**own_versions(), **tools},
    }
    text = json.dumps(question, sort_keys=True)
    path = cache_folder() / "calibration" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    if path.is_file():
        stored = _load(path, text)
        if stored is not None:
            return stored
        note(f"the calibration cache {path} is damaged; measured anew")
    answer = compute()
    body = json.dumps(answer, sort_keys=True)
    whole = {"question": text, "sha256": hashlib.sha256(body.encode()).hexdigest(), "answer": answer}
    try:
        write_text(path, json.dumps(whole))
    except UserError as error:
        note(f"ranges were not cached: {error}")
    return answer


def _load(path: Path, question: str) -> dict[str, Any] | None:
    try:
        record = json.loads(read_bytes(path))
        answer: dict[str, Any] = record["answer"]
        body = json.dumps(answer, sort_keys=True).encode()
        right = record["question"] == question and record["sha256"] == hashlib.sha256(body).hexdigest()
    except (ValueError, KeyError, TypeError, UserError):
        return None
    return answer if right else None
