"""Inference strategies of the DeepLab papers: several scales, mirrored pictures, averaged probabilities.

Everything works on what a runtime infers, so checkpoints and artefacts are treated alike. Other scales need
a model whose input size may change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.data import Split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation import Progress
from edge_deeplab.imaging import Floats, Frame, Labels, class_probabilities, most_likely, preprocess
from edge_deeplab.metrics import Evaluator
from edge_deeplab.spec import InputContract, mirrored_ids

Infer = Callable[[NDArray[Any]], NDArray[Any]]
"""Input tensor (1, ...) -> the network's output (1, ...)."""

PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""DeepLabv3, section 4.1."""


class View(NamedTuple):
    """One look at a picture: at a scale of the input size, mirrored or not."""

    scale: float
    mirrored: bool


@dataclass(frozen=True)
class Strategy:
    """Which looks at a picture are averaged.

    Attributes:
        scales: Factors on the model's input size.
        flip: Each of them mirrored too.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def views(self) -> tuple[View, ...]:
        """All looks."""
        mirrored = (False, True) if self.flip else (False,)
        return tuple(View(scale, m) for scale in self.scales for m in mirrored)

    def multiply_adds(self, contract: InputContract, count: Callable[[int, int], int]) -> int:
        """Of all looks together; ``count`` gives those of one (height, width)."""
        return sum(count(*scaled_size(contract, view.scale)) for view in self.views)


PAPER_STRATEGIES = (
    Strategy(),
    Strategy(flip=True),
    Strategy(PAPER_SCALES),
    Strategy(PAPER_SCALES, flip=True),
)
"""Rows of the papers' tables of inference strategies (DeepLabv3+, table 3), for one output stride."""


def scaled_size(contract: InputContract, scale: float) -> tuple[int, int]:
    """The input height and width at a scale."""
    return max(1, round(contract.height * scale)), max(1, round(contract.width * scale))


def check_strategy(contract: InputContract, strategy: Strategy) -> None:
    """Refuse what a model cannot do.

    Raises:
        UserError: Other scales, but the input size is fixed; or several looks at a class map.
    """
    fixed = not {"height", "width"} <= set(contract.dynamic)
    if fixed and set(strategy.scales) != {1.0}:
        raise UserError(
            f"{contract.name} takes {contract.height}x{contract.width} only; score its checkpoint at several "
            "scales, or export it with --dynamic size"
        )
    if contract.head == "classmap" and len(strategy.views) > 1:
        raise UserError(f"{contract.name} gives class ids only; averaging answers needs a logits head")


def look(infer: Infer, contract: InputContract, frame: Frame, view: View) -> Floats:
    """Probabilities (classes, H, W) of one look, see :func:`edge_deeplab.imaging.class_probabilities`."""
    height, width = scaled_size(contract, view.scale)
    scaled = contract.replace(height=height, width=width)
    seen: Frame = np.ascontiguousarray(frame[:, ::-1]) if view.mirrored else frame
    output = infer(preprocess(seen, scaled))
    probabilities = class_probabilities(output[0], scaled, *frame.shape[:2])
    return _unmirrored(probabilities, contract) if view.mirrored else probabilities


def _unmirrored(probabilities: Floats, contract: InputContract) -> Floats:
    """The answer to a mirrored picture, as it is for the picture: places, and which side is the left one."""
    back, ids = probabilities[:, :, ::-1], mirrored_ids(contract.classes)
    if ids == tuple(range(len(ids))):
        return back
    return 1 - back if contract.binary else back[list(ids)]


def segment(infer: Infer, contract: InputContract, frame: Frame, strategy: Strategy) -> Labels:
    """Class ids (H, W) of a frame (H, W, 3) from the mean of all looks."""
    views = strategy.views
    total = sum(
        (look(infer, contract, frame, view) for view in views[1:]), look(infer, contract, frame, views[0])
    )
    return most_likely(total / np.float32(len(views)), contract)


def compare(
    infer: Infer,
    contract: InputContract,
    split: Split,
    strategies: Sequence[Strategy],
    *,
    indices: Sequence[int] | None = None,
    progress: Progress = iter,
) -> list[Evaluator]:
    """Score several strategies in one pass; a look that several of them share is taken once.

    All pictures are scored, or those at ``indices``.
    """
    evaluators = [Evaluator(len(split.classes), boundary=False) for _ in strategies]
    views = list(dict.fromkeys(view for strategy in strategies for view in strategy.views))
    for index in progress(range(len(split)) if indices is None else indices):
        frame, truth = split.read(index)
        totals: list[Floats | None] = [None] * len(strategies)
        for view in views:
            seen = look(infer, contract, frame, view)
            for place, strategy in enumerate(strategies):
                if view in strategy.views:
                    total = totals[place]
                    totals[place] = seen if total is None else total + seen
        for evaluator, strategy, total in zip(evaluators, strategies, totals, strict=True):
            if total is not None:
                mean = total / np.float32(len(strategy.views))
                evaluator.add(most_likely(mean, contract), truth, index)
    return evaluators
