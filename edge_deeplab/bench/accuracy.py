"""Quality of the contenders, beside their speed: masks of labelled pictures, scored by the shared metrics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2

from edge_deeplab.bench.record import Accuracy, Contender, Mark, Result
from edge_deeplab.bench.subject import Ours, open_subject
from edge_deeplab.data import Split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation import check_classes, evaluate
from edge_deeplab.metrics import Scores


class Bar(Protocol):
    """Wraps the range of picture indices; the text says who is scored on what."""

    def __call__(self, items: Any, *, text: str) -> Any:
        """Iterates over ``items``."""


def with_accuracy(
    result: Result, contenders: Sequence[Contender], splits: Sequence[Split], bar: Bar
) -> Result:
    """The result with the accuracy of every contender that was measured.

    Masks are computed on this machine, whichever one was timed: an artefact's answers are the same up to
    rounding. Where an artefact cannot be opened here (an engine built for another GPU) or has other classes
    than the data, the entry is marked instead. Contenders that differ in threads alone are scored once.

    Args:
        result: Of the run.
        contenders: Of the job, in the order of the entries.
        splits: Labelled pictures.
        bar: Progress.
    """
    known: dict[str, tuple[Accuracy, ...] | UserError] = {}
    entries = []
    for entry, contender in zip(result.entries, contenders, strict=True):
        if entry.error is None:
            key = repr(dataclasses.replace(contender, name="", threads=None))
            if key not in known:
                known[key] = _scored(contender, splits, bar)
            found = known[key]
            if isinstance(found, UserError):
                text = str(found).replace(contender.path, Path(contender.path).name)
                mark = Mark("incomplete", f"accuracy not measured: {text}")
                entry = dataclasses.replace(entry, marks=(*entry.marks, mark))
            else:
                entry = dataclasses.replace(entry, accuracy=found)
        entries.append(entry)
    return result.replace(entries=tuple(entries))


def _scored(contender: Contender, splits: Sequence[Split], bar: Bar) -> tuple[Accuracy, ...] | UserError:
    """What stops the scoring is returned, not raised: minutes of timing must not be lost to it."""
    try:
        subject = open_subject(contender)
        if contender.threads is not None:
            cv2.setNumThreads(contender.threads)
        found = []
        for split in splits:
            if isinstance(subject, Ours):
                check_classes(subject.runtime.contract, split)
            elif len(split.classes) != 2:
                raise UserError(f"peers are scored on two classes, {split.name} has {len(split.classes)}")
            progress = partial(bar, text=f"{contender.name} on {split.name}")
            scores = evaluate(lambda frame: subject.segment(frame)[0], split, progress=progress)
            found.append(_accuracy(split, scores))
        if isinstance(subject, Ours):
            subject.runtime.close()
        return tuple(found)
    except UserError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a foreign library's
        return UserError(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _accuracy(split: Split, scores: Scores) -> Accuracy:
    binary = len(split.classes) == 2
    edges = [v for v in scores.boundary_iou[1 if binary else 0 :] if not math.isnan(v)]
    return Accuracy(
        data=split.name,
        images=scores.images,
        foreground_iou=_known(scores.foreground_iou),
        mean_image_iou=_known(scores.image_iou),
        boundary_iou=sum(edges) / len(edges) if edges else None,
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
