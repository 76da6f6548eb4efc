"""What an export target is, and the options all targets share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_deeplab.plugins import discover
from edge_deeplab.spec import Head, InputContract

if TYPE_CHECKING:
    from edge_deeplab.models.deeplab import DeepLabV3Plus


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        head: What the output holds; see :class:`edge_deeplab.spec.InputContract`.
        size: Input (height, width); None: the model's own.
        dynamic: Axes that may change at run time: ``batch``, ``size`` or both.
        precision: One of the target's precisions.
        opset: ONNX opset.
    """

    head: Head = "logits"
    size: tuple[int, int] | None = None
    dynamic: tuple[str, ...] = ()
    precision: str = "fp32"
    opset: int = 18


@dataclass(frozen=True)
class Tolerance:
    """How far an artefact may be from PyTorch.

    Attributes:
        logits: Largest absolute difference of any output value; None: not checked.
        agreement: Smallest share of pixels with the same label.
        iou_drop: Largest loss of foreground IoU (mIoU for several classes) where masks are given.
    """

    logits: float | None
    agreement: float
    iou_drop: float


@dataclass(frozen=True)
class Target:
    """An export target: one file ``to_NAME.py`` with a ``TARGET``.

    Attributes:
        suffix: Of the artefact.
        help: One line for ``--help`` and docs.
        extra: The extra of this package that brings its dependencies.
        tolerances: Precision -> how far from PyTorch it may be.
        write: (model, contract, options, path) -> contract as stored in the artefact at ``path``.
    """

    suffix: str
    help: str
    extra: str
    tolerances: dict[str, Tolerance]
    write: Callable[[DeepLabV3Plus, InputContract, Options, Path], InputContract]


def targets() -> dict[str, Target]:
    """All export targets by name: the files ``to_NAME.py`` of this folder."""
    return discover("edge_deeplab.export", "to_", "TARGET")
