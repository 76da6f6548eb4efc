"""Score anything that segments frames on labelled pictures, through the shared processing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from edge_deeplab.data import Split
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, Labels
from edge_deeplab.metrics import Evaluator, Scores, confidence_interval
from edge_deeplab.spec import InputContract

Segment = Callable[[Frame], Labels]
"""BGR uint8 (H, W, 3) -> class ids uint8 (H, W), e.g. ``lambda f: model.segment(f).labels``."""

Progress = Callable[[Any], Any]
"""Wraps the picture indices, e.g. a progress bar."""


def evaluate(segment: Segment, split: Split, *, boundary: bool = True, progress: Progress = iter) -> Scores:
    """Segment every picture of a split at its own size and score the labels.

    Args:
        segment: See :data:`Segment`.
        split: Pictures and masks.
        boundary: Measure boundary IoU too.
        progress: See :data:`Progress`.
    """
    return tally(segment, split, boundary=boundary, progress=progress).scores()


def tally(
    segment: Segment,
    split: Split,
    *,
    indices: Sequence[int] | None = None,
    boundary: bool = True,
    progress: Progress = iter,
    also: Callable[[Labels, Labels], None] | None = None,
) -> Evaluator:
    """As :func:`evaluate`, but the counts, of all pictures or those at ``indices``; they can be merged.

    ``also`` is called with every picture's answer and truth, to measure more in the same pass.
    """
    evaluator = Evaluator(len(split.classes), boundary=boundary)
    for index in progress(range(len(split)) if indices is None else indices):
        image, truth = split.read(index)
        labels = segment(image)
        evaluator.add(labels, truth, index)
        if also is not None:
            also(labels, truth)
    return evaluator


def check_classes(contract: InputContract, split: Split) -> None:
    """Refuse to score a model on data with other classes.

    Names may differ (a dog or a cat as foreground, another spelling); one name for two ids may not.

    Raises:
        UserError: The numbers of classes differ, or a class has another id in the model than in the data.
    """
    if len(contract.classes) != len(split.classes):
        raise UserError(
            f"{contract.name} has {len(contract.classes)} classes, {split.name} has {len(split.classes)}; "
            "evaluate it on data with the same classes"
        )
    ours, theirs = ([info.name for info in each.classes] for each in (contract, split))
    for name in ours:
        if name in theirs and theirs.index(name) != ours.index(name):
            raise UserError(
                f"class {name} has id {ours.index(name)} in {contract.name}, {theirs.index(name)} in "
                f"{split.name}; evaluate it on data with the classes in the same order"
            )


def chosen_by(split: Split) -> str:
    """The figure that models are chosen by, as :func:`as_record` names it."""
    return "foreground_iou" if len(split.classes) == 2 else "miou"


def metric_name(split: Split) -> str:
    """Name of that figure in a contract's metrics, e.g. ``eg/val iou``."""
    return f"{split.name} {'iou' if len(split.classes) == 2 else 'miou'}"


def as_record(scores: Scores, split: Split, evaluator: Evaluator | None = None) -> dict[str, Any]:
    """The scores as a JSON-ready dict, classes by name; None for what does not exist (JSON has no NaN).

    Args:
        scores: What was found.
        split: On what.
        evaluator: The counts behind them, for a confidence interval.
    """
    names = [info.name for info in split.classes]
    record: dict[str, Any] = {
        "data": split.name,
        "images": scores.images,
        "chosen_by": chosen_by(split),
        "miou": figure(scores.miou),
        "iou": {name: figure(v) for name, v in zip(names, scores.iou, strict=True)},
        "foreground_iou": figure(scores.foreground_iou),
        "mean_image_iou": figure(scores.image_iou),
        "pixel_accuracy": figure(scores.pixel_accuracy),
        "boundary_iou": {name: figure(v) for name, v in zip(names, scores.boundary_iou, strict=True)},
    }
    if evaluator is not None:
        ends = confidence_interval(list(evaluator.tallies.values()))
        record["interval_95"] = [figure(end) for end in ends]
    return record


def figure(value: float) -> float | None:
    """A number for JSON: None for NaN."""
    return None if math.isnan(value) else value
