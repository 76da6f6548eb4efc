"""Score a model on the val splits, shared out over the processes, and draw what it sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from edge_deeplab.data import Split
from edge_deeplab.evaluation import as_record, metric_name, tally
from edge_deeplab.evaluation.shares import share, total
from edge_deeplab.evaluation.sheet import Shown, sheet
from edge_deeplab.imaging import Frame, Labels
from edge_deeplab.runtimes.on_torch import TorchRuntime
from edge_deeplab.spec import InputContract
from edge_deeplab.training.distributed import World


@dataclass(frozen=True)
class Validation:
    """What one validation found.

    Attributes:
        records: One a val split, as ``metrics.jsonl`` takes them.
        metrics: The figures models are chosen by, for the contract; those that exist.
        sheet: Photo, truth and answer of two pictures of every split, BGR; None but in the first process.
    """

    records: list[dict[str, Any]]
    metrics: dict[str, float]
    sheet: Frame | None

    @property
    def mean(self) -> float:
        """Mean of the figures; NaN if there is none (all labels ignored, or no person anywhere)."""
        return sum(self.metrics.values()) / len(self.metrics) if self.metrics else math.nan


def validate(model: nn.Module, contract: InputContract, splits: Sequence[Split], world: World) -> Validation:
    """Score a model through the shared processing, every picture whole and at its own size.

    Every process scores each ``world.size``-th picture; counts are added up, so the figures are those
    that one process would find.
    """
    runtime = TorchRuntime(model, contract, device=str(world.device))

    def segment(frame: Frame) -> Labels:
        return runtime.segment(frame).labels

    records: list[dict[str, Any]] = []
    metrics: dict[str, float] = {}
    for split in splits:
        mine = tally(segment, split, indices=share(len(split), world), boundary=False)
        scores = total(mine, world).scores()
        records.append(as_record(scores, split))
        if not math.isnan(scores.foreground_iou):
            metrics[metric_name(split)] = scores.foreground_iou
    shown = [
        Shown(split, index, f"{split.name} {split.pairs[index].image.name}")
        for split in splits
        for index in dict.fromkeys((0, len(split) // 2))
    ]
    return Validation(records, metrics, sheet(segment, shown) if world.leads else None)
