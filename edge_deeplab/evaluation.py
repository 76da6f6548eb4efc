"""Score anything that segments frames on labelled pictures, through the shared processing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edge_deeplab.data import Split
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, Labels
from edge_deeplab.metrics import Evaluator, Scores
from edge_deeplab.spec import InputContract


def evaluate(
    segment: Callable[[Frame], Labels],
    split: Split,
    *,
    boundary: bool = True,
    progress: Callable[[Any], Any] = iter,
) -> Scores:
    """Segment every picture of a split at its own size and score the labels.

    Args:
        segment: BGR uint8 (H, W, 3) -> class ids uint8 (H, W), e.g. ``lambda f: model.segment(f).labels``.
        split: Pictures and masks.
        boundary: Measure boundary IoU too.
        progress: Wraps the range of picture indices, e.g. a progress bar.
    """
    evaluator = Evaluator(len(split.classes), boundary=boundary)
    for index in progress(range(len(split))):
        image, truth = split.read(index)
        evaluator.add(segment(image), truth)
    return evaluator.scores()


def check_classes(contract: InputContract, split: Split) -> None:
    """Refuse to score a model on data with other classes.

    Raises:
        UserError: The numbers of classes differ.
    """
    if len(contract.classes) != len(split.classes):
        raise UserError(
            f"{contract.name} has {len(contract.classes)} classes, {split.name} has {len(split.classes)}; "
            "evaluate it on data with the same classes"
        )


def metric_name(split: Split) -> str:
    """Name in a contract's metrics of the figure that models are chosen by, e.g. ``eg/val iou``."""
    return f"{split.name} {'iou' if len(split.classes) == 2 else 'miou'}"


def as_record(scores: Scores, split: Split) -> dict[str, Any]:
    """The scores as a JSON-ready dict, classes by name; None for what does not exist (JSON has no NaN)."""
    names = [info.name for info in split.classes]
    return {
        "data": split.name,
        "images": scores.images,
        "miou": _figure(scores.miou),
        "iou": {name: _figure(v) for name, v in zip(names, scores.iou, strict=True)},
        "foreground_iou": _figure(scores.foreground_iou),
        "mean_image_iou": _figure(scores.image_iou),
        "pixel_accuracy": _figure(scores.pixel_accuracy),
        "boundary_iou": {name: _figure(v) for name, v in zip(names, scores.boundary_iou, strict=True)},
    }


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else value
