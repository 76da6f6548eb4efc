"""What an export target is, and the options all targets share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from edge_deeplab.plugins import discover
from edge_deeplab.spec import Head, InputContract, InputDType, Layout
from edge_deeplab.version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_deeplab.export.calibration import Calibration
    from edge_deeplab.models.deeplab import DeepLabV3Plus

Precision = Literal["fp32", "fp16", "int8", "int8-dynamic"]
"""``int8``: weights and activations; ``int8-dynamic``: weights, activations as they come."""

Scheme = Literal["u8s8", "s8s8"]
"""Types of activations and weights: ``u8s8``, activations uint8 with a zero point; ``s8s8``, activations
int8. Weights are int8, symmetric, one scale per output channel, in both."""

Method = Literal["minmax", "entropy", "percentile"]
"""How a tensor's range follows from its values: all of them; the cut that loses the least information
(KL divergence, as TensorRT's calibrator does); or all but the outermost 0.001 %."""

SCHEMES: tuple[str, ...] = get_args(Scheme)
METHODS: tuple[str, ...] = get_args(Method)

Progress = Callable[[Iterable[Any], str], Iterable[Any]]
"""(items, what is being done) -> the items again, while a bar moves. What cannot be counted is one item: its
name."""


def silent(items: Iterable[Any], label: str) -> Iterable[Any]:
    """No progress bar."""
    return items


def unheard(line: str) -> None:
    """Nobody reads notes."""


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        head: What the output holds; see :class:`edge_deeplab.spec.InputContract`.
        size: Input (height, width); None: the model's own.
        dynamic: Axes that may change at run time: ``batch``, ``size`` or both.
        precision: One of the target's precisions.
        opset: ONNX opset.
        input_dtype: Of the input tensor. ``uint8`` and ``int8`` inputs take the pixels themselves
            (``int8``: less 128) and scale inside the graph.
        layout: Of input and output; None: the target's own.
        calibration: Pictures that INT8 ranges are measured on.
        scheme: Integer types of INT8; None: the target's own.
        max_drop: Largest loss of IoU in points (0.5 is .9600 -> .9550); None: the target's tolerance.
        keep_float: Layers left in float, by their names in the network (``backbone.stem.0``). The
            search for them adds to these.
        remedies: Equalise and correct biases before INT8, and search for layers to keep in float.
        force: Keep an artefact that failed its verification.
        diagnose: Measure the error layer by layer.
        settings: The target's own record, from :attr:`Target.settings`.
        scratch: A folder where a target may leave what a second attempt with the same weights need not
            compute again; None: one that lives as long as the export. Exports that share a folder share
            that work too.
        progress: Shows progress.
        note: Takes a line for the user: a doubt, not an error.
    """

    head: Head = "logits"
    size: tuple[int, int] | None = None
    dynamic: tuple[str, ...] = ()
    precision: str = "fp32"
    opset: int = 18
    input_dtype: InputDType = "float32"
    layout: Layout | None = None
    calibration: Calibration | None = None
    scheme: Scheme | None = None
    max_drop: float | None = None
    keep_float: tuple[str, ...] = ()
    remedies: bool = True
    force: bool = False
    diagnose: bool = False
    settings: Any = None
    scratch: Path | None = field(default=None, compare=False, repr=False)
    progress: Progress = field(default=silent, compare=False, repr=False)
    note: Callable[[str], None] = field(default=unheard, compare=False, repr=False)

    @contextmanager
    def doing(self, label: str) -> Iterator[None]:
        """Name what is being done, where it takes seconds and nothing can be counted."""
        shown = iter(self.progress((label,), label))
        next(shown, None)
        try:
            yield
        finally:
            next(shown, None)  # ends a bar


@dataclass(frozen=True)
class Tolerance:
    """How far an artefact may be from PyTorch.

    Attributes:
        logits: Largest absolute difference of any output value; None: not checked.
        agreement: Smallest share of pixels with the same label.
        iou_drop: Largest loss of foreground IoU (mIoU for several classes) where masks are given.
        masks_decide: Where masks are given, only ``iou_drop`` counts: INT8 may move a contour either way.
    """

    logits: float | None
    agreement: float
    iou_drop: float
    masks_decide: bool = False


@dataclass(frozen=True)
class Inspection:
    """What is inside an artefact.

    Attributes:
        ops: Operator -> how many.
        islands: Operators that compute in float inside an INT8 graph: name -> how many. The head's last
            dequantisation is none.
    """

    ops: dict[str, int]
    islands: dict[str, int]


Trace = Callable[[Path, Sequence[str], Iterable["NDArray[Any]"]], Iterable["dict[str, NDArray[np.float32]]"]]
"""(artefact, layers, input tensors) -> for every tensor: layer -> its output, real values, NCHW.

Layers are named as in :func:`edge_deeplab.export.fold.layers`; those that the artefact has no tensor for
are left out."""


Again = Callable[[str, Path, Options], Any]
"""(model, output, options): one more export to the same target, verified on the same pictures."""


def _no_arguments(parser: argparse._ArgumentGroup) -> None:
    """A target without flags of its own."""


def _no_settings(args: argparse.Namespace) -> None:
    """A target without flags of its own."""


@dataclass(frozen=True)
class Target:
    """An export target: one file ``to_NAME.py`` with a ``TARGET``.

    Attributes:
        suffix: Of the artefact.
        help: One line for ``--help`` and docs.
        extra: The extra of this package that brings its dependencies.
        tolerances: Precision -> how far from PyTorch it may be. Its keys are the precisions there are.
        write: (model, contract, options, path) -> contract as stored in the artefact at ``path``.
            For ``int8`` the model comes with batch norm folded, equalised and bias-corrected.
        layouts: Of input and output, the default first.
        input_dtypes: The default first.
        schemes: Of INT8, the default first.
        symmetric: Those of ``schemes`` whose activations have zero point 0.
        keeps_float: Precisions in which single layers can stay in float, see :attr:`Options.keep_float`.
        half_computes: ``fp16`` artefacts may be computed in float16, not only stored in it.
        inspect: What is inside an artefact, for the report; None where that cannot be told.
        trace: Layer outputs of an artefact, for ``--diagnose``.
        arguments: Adds the target's own flags to ``edge-deeplab export``.
        settings: Those flags -> :attr:`Options.settings`.
        build: (prepared ``.onnx``, its contract, options, path) -> contract as stored: makes the artefact
            from one that was exported and verified elsewhere, on a machine without PyTorch.
        suffix_for: Suffix where it depends on the options; None: always ``suffix``.
        before: (model, output, options, again) -> options: runs before the export, and may export
            something else first with ``again``.
        has_opset: ``--opset`` is the user's choice.
        made_with: Packages whose versions the report holds, beside those of the runtimes.
    """

    suffix: str
    help: str
    extra: str
    tolerances: dict[str, Tolerance]
    write: Callable[[DeepLabV3Plus, InputContract, Options, Path], InputContract]
    layouts: tuple[Layout, ...] = ("NCHW",)
    input_dtypes: tuple[InputDType, ...] = ("float32",)
    schemes: tuple[Scheme, ...] = ()
    symmetric: tuple[Scheme, ...] = ()
    keeps_float: tuple[str, ...] = ()
    half_computes: bool = True
    inspect: Callable[[Path], Inspection | None] | None = None
    trace: Trace | None = None
    arguments: Callable[[argparse._ArgumentGroup], None] = _no_arguments
    settings: Callable[[argparse.Namespace], Any] = _no_settings
    build: Callable[[Path, InputContract, Options, Path], InputContract] | None = None
    suffix_for: Callable[[Options], str] | None = None
    before: Callable[[str, Path, Options, Again], Options] | None = None
    has_opset: bool = False
    made_with: tuple[str, ...] = ()

    def output_suffix(self, options: Options) -> str:
        """Of what is written with these options."""
        return self.suffix_for(options) if self.suffix_for else self.suffix

    def versions(self) -> dict[str, str]:
        """Ours and those of :attr:`made_with`, as far as they are installed."""
        found = {"edge-deeplab": __version__}
        for package in self.made_with:
            with suppress(PackageNotFoundError):  # on a board nothing is converted
                found[package] = version(package)
        return found


def targets() -> dict[str, Target]:
    """All export targets by name: the files ``to_NAME.py`` of this folder."""
    return discover("edge_deeplab.export", "to_", "TARGET")
