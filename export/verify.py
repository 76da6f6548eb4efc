"""An artefact is only kept when it answers as PyTorch does on real pictures, through its own runtime."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.data import Split
from edge_deeplab.errors import UserError
from edge_deeplab.export.base import Tolerance
from edge_deeplab.files import sha256
from edge_deeplab.imaging import Frame, Labels, pictures_in, read_image
from edge_deeplab.metrics import Evaluator, agreement
from edge_deeplab.runtimes.base import Runtime

SAMPLE = Path(__file__).resolve().parent / "sample.jpg"
"""A NASA portrait (public domain) that comes with the package, for users without pictures at hand."""


@dataclass(frozen=True)
class Report:
    """How an artefact compares with PyTorch.

    Attributes:
        pictures: How many real pictures were compared, and ``source`` where they came from.
        logits_difference: Largest absolute difference of any output value; None for a class map.
        agreement: Share of all pixels with the same label; ``worst_agreement`` of the worst picture.
        iou_reference, iou_artefact: Foreground IoU (mIoU for several classes); None without masks.
        passed: Whether it is within ``tolerance``.
    """

    artefact: str
    bytes: int
    sha256: str
    target: str
    precision: str
    head: str
    source: str
    pictures: int
    logits_difference: float | None
    agreement: float
    worst_agreement: float
    worst_picture: str
    iou_reference: float | None
    iou_artefact: float | None
    tolerance: Tolerance
    failures: tuple[str, ...]
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        """No tolerance was exceeded."""
        return not self.failures

    def to_json(self) -> str:
        """For the file beside the artefact."""
        return json.dumps({"passed": self.passed, **dataclasses.asdict(self)}, indent=2)

    def table(self) -> str:
        """For people."""
        rows = [
            ("artefact", f"{self.artefact}, {self.bytes / 1e6:.2f} MB"),
            ("compared", f"with PyTorch on {self.pictures} pictures ({self.source})"),
            (
                "same label",
                f"{self.agreement:.4%} of pixels (at least {self.tolerance.agreement:.2%}); "
                f"worst {self.worst_agreement:.4%}, {self.worst_picture}",
            ),
        ]
        if self.logits_difference is not None:
            limit = "" if self.tolerance.logits is None else f" (at most {self.tolerance.logits:g})"
            rows.append(("output difference", f"{self.logits_difference:.2e} at most{limit}"))
        if self.iou_reference is not None and self.iou_artefact is not None:
            rows.append(("IoU", f"{self.iou_artefact:.4f}, PyTorch {self.iou_reference:.4f}"))
        rows.append(("verdict", "verified" if self.passed else "REFUSED: " + "; ".join(self.failures)))
        return "\n".join(f"  {name:18} {value}" for name, value in rows)


Samples = list[tuple[str, Callable[[], tuple[Frame, Labels | None]]]]
"""Pictures to compare on: a name, and a function that reads picture and mask (or None)."""


def sample_views() -> Samples:
    """Eight views of the packaged portrait: whole, mirrored, cropped, wide, tall, dark, small."""
    image = read_image(SAMPLE)
    height, width = image.shape[:2]
    views: list[tuple[str, Frame]] = [
        ("whole", image),
        ("mirrored", np.ascontiguousarray(image[:, ::-1])),
        ("face", image[: height // 2, width // 4 : width * 3 // 4]),
        ("upper half", image[: height * 5 // 8]),
        ("left", image[:, : width * 5 // 8]),
        ("dark", (image * 0.45).astype(np.uint8)),
        ("webcam", imaging.resize_frame(image[: height * 3 // 4], 480, 640)),
        ("small", imaging.resize_frame(image, 120, 90)),
    ]
    return [(f"{SAMPLE.name}, {name}", partial(_unlabelled, view)) for name, view in views]


def folder_pictures(folder: Path, count: int) -> Samples:
    """Up to ``count`` pictures of a folder, evenly spread."""
    return [(file.name, partial(_unlabelled, file)) for file in _spread(pictures_in(folder), count)]


def labelled_pictures(split: Split, count: int) -> Samples:
    """Up to ``count`` labelled pictures of a split, evenly spread."""
    places = _spread(list(range(len(split))), count)
    return [(split.pairs[place].image.name, partial(split.read, place)) for place in places]


def _unlabelled(picture: Frame | Path) -> tuple[Frame, None]:
    frame = read_image(picture) if isinstance(picture, Path) else np.ascontiguousarray(picture)
    return frame, None


def _spread(items: list[Any], count: int) -> Iterator[Any]:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return (items[i] for i in places)


def verify(
    artefact: Runtime,
    reference: Runtime,
    samples: Samples,
    *,
    path: Path,
    name: str,
    target: str,
    source: str,
    tolerance: Tolerance,
    progress: Callable[[Any], Any] = iter,
) -> Report:
    """Run artefact and reference on the same pictures and compare outputs and labels.

    Both have the same head and size, and their labels come from the same shared processing. Output
    values are compared too, except those of a class map, which are labels already.
    """
    if not samples:
        raise UserError("there are no pictures to verify on")
    contract = artefact.contract
    classes = len(contract.classes)
    scored = {"reference": Evaluator(classes, boundary=False), "artefact": Evaluator(classes, boundary=False)}
    difference = 0.0
    agreements: list[tuple[float, str, int]] = []
    masks = False
    for picture, read in progress(samples):
        frame, truth = read()
        ours, theirs = artefact.segment(frame).labels, reference.segment(frame).labels
        agreements.append((agreement(ours, theirs), picture, ours.size))
        if contract.head != "classmap":
            difference = float(np.maximum(difference, _difference(artefact, reference, frame)))  # keeps NaN
        if truth is not None:
            masks = True
            scored["artefact"].add(ours, truth)
            scored["reference"].add(theirs, truth)
    total = sum(size for _, _, size in agreements)
    same = sum(share * size for share, _, size in agreements) / total
    worst, worst_name, _ = min(agreements)
    iou = {k: v.scores().foreground_iou if masks else None for k, v in scored.items()}
    failures = []
    if same < tolerance.agreement:
        failures.append(f"only {same:.4%} of labels agree")
    if contract.head != "classmap" and tolerance.logits is not None and not difference <= tolerance.logits:
        failures.append(f"outputs differ by up to {difference:.3g}")
    if (
        iou["reference"] is not None
        and iou["artefact"] is not None
        and iou["reference"] - iou["artefact"] > tolerance.iou_drop
    ):
        failures.append(f"IoU fell from {iou['reference']:.4f} to {iou['artefact']:.4f}")
    return Report(
        artefact=name,
        bytes=path.stat().st_size,
        sha256=sha256(path),
        target=target,
        precision=contract.precision,
        head=contract.head,
        source=source,
        pictures=len(samples),
        logits_difference=difference if contract.head != "classmap" else None,
        agreement=same,
        worst_agreement=worst,
        worst_picture=worst_name,
        iou_reference=iou["reference"],
        iou_artefact=iou["artefact"],
        tolerance=tolerance,
        failures=tuple(failures),
        versions={**reference.versions(), **artefact.versions()},
    )


def _difference(artefact: Runtime, reference: Runtime, frame: Frame) -> float:
    outputs: list[NDArray[Any]] = []
    for runtime in (artefact, reference):
        output = runtime.infer(imaging.preprocess(frame, runtime.contract)).astype(np.float32)
        outputs.append(np.moveaxis(output, -1, 1) if runtime.contract.layout == "NHWC" else output)
    return float(np.abs(outputs[0] - outputs[1]).max())
