"""An artefact is only kept when it answers as PyTorch does on real pictures, through its own runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.data import Split
from edge_deeplab.errors import UserError
from edge_deeplab.export import sample
from edge_deeplab.export.base import Inspection, Progress, Tolerance, silent
from edge_deeplab.export.report import LayerError, Report
from edge_deeplab.files import sha256
from edge_deeplab.imaging import Frame, Labels, pictures_in, read_image
from edge_deeplab.metrics import Evaluator, agreement
from edge_deeplab.runtimes.base import Runtime

Samples = list[tuple[str, Callable[[], tuple[Frame, Labels | None]]]]
"""Pictures to compare on: a name, and a function that reads picture and mask (or None)."""


WORST = 5
"""Pictures listed as the worst."""


def sample_views() -> Samples:
    """Eight views of the packaged portrait: whole, mirrored, cropped, wide, tall, dark, small."""
    return [(name, partial(_unlabelled, view)) for name, view in sample.views()]


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
    inspection: Inspection | None = None,
    layers: tuple[LayerError, ...] = (),
    notes: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Report:
    """Run artefact and reference on the same pictures and compare outputs and labels.

    Both have the same head and size, and their labels come from the same shared processing. Output
    values are compared too, except those of a class map, which are labels already.

    Args:
        artefact, reference: Opened.
        samples: Pictures, with masks or without.
        path: Of the artefact; ``name`` is what the report calls it.
        name, target, source: For the report.
        tolerance: What is allowed.
        inspection, layers, notes: For the report.
        progress: Shows progress.
    """
    if not samples:
        raise UserError("there are no pictures to verify on")
    contract = artefact.contract
    classes = len(contract.classes)
    scored = {"reference": Evaluator(classes, boundary=False), "artefact": Evaluator(classes, boundary=False)}
    difference = 0.0
    agreements: list[tuple[float, str, int]] = []
    masks = False
    for picture, read in progress(samples, "verifying"):
        frame, truth = read()
        (ours, values), (theirs, wanted) = _answer(artefact, frame), _answer(reference, frame)
        agreements.append((agreement(ours, theirs), picture, ours.size))
        if contract.head != "classmap":
            difference = float(np.maximum(difference, np.abs(values - wanted).max()))  # keeps NaN
        if truth is not None:
            masks = True
            scored["artefact"].add(ours, truth)
            scored["reference"].add(theirs, truth)
    total = sum(size for _, _, size in agreements)
    same = sum(share * size for share, _, size in agreements) / total
    worst = sorted((share, picture) for share, picture, _ in agreements)[:WORST]
    reference_iou, artefact_iou = (scored[who].scores().foreground_iou for who in ("reference", "artefact"))
    # Neither masks nor labels may hold anything that counts, and then there is no IoU to decide by.
    decided = masks and not math.isnan(reference_iou) and not math.isnan(artefact_iou)
    if masks and not decided:
        notes = (*notes, f"the masks ({source}) hold nothing that IoU could be measured on: labels decide")
    failures = []
    if not same >= tolerance.agreement and not (decided and tolerance.masks_decide):
        failures.append(f"only {same:.4%} of labels agree")
    if contract.head != "classmap" and tolerance.logits is not None and not difference <= tolerance.logits:
        failures.append(f"outputs differ by up to {difference:.3g}")
    if decided and not reference_iou - artefact_iou <= tolerance.iou_drop:
        lost = 100 * (reference_iou - artefact_iou)
        failures.append(f"IoU fell by {lost:.2f} points, from {reference_iou:.4f} to {artefact_iou:.4f}")
    return Report(
        artefact=name,
        bytes=path.stat().st_size,
        sha256=sha256(path),
        target=target,
        precision=contract.precision,
        head=contract.head,
        input=f"{contract.dtype} {contract.layout} {contract.height}x{contract.width}",
        source=source,
        pictures=len(samples),
        logits_difference=difference if contract.head != "classmap" else None,
        agreement=same,
        worst_agreement=worst[0][0],
        worst_picture=worst[0][1],
        worst=tuple((picture, share) for share, picture in worst),
        iou_reference=reference_iou if decided else None,
        iou_artefact=artefact_iou if decided else None,
        tolerance=tolerance,
        failures=tuple(failures),
        versions={**reference.versions(), **artefact.versions()},
        quantization=contract.quantization,
        inspection=inspection,
        layers=layers,
        reference=reference.title,
        notes=notes,
    )


def _answer(runtime: Runtime, frame: Frame) -> tuple[Labels, NDArray[np.float32]]:
    """Labels at the frame's size, and the output's values (N, K, h, w) or, for a class map, (N, h, w)."""
    contract = runtime.contract
    output = runtime.infer(imaging.preprocess(frame, contract))
    labels, _ = imaging.postprocess(output[0], contract, *frame.shape[:2])
    values = output.astype(np.float32)
    channels_last = contract.layout == "NHWC" and contract.head != "classmap"
    return labels, np.moveaxis(values, -1, 1) if channels_last else values
