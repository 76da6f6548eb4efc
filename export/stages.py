"""Ways to make a network ready for its precision, from a checkpoint or a prepared file."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export import calibration, diagnose
from edge_deeplab.export.base import Options, Target
from edge_deeplab.runtimes import open_model
from edge_deeplab.runtimes.base import Runtime
from edge_deeplab.spec import InputContract

if TYPE_CHECKING:
    import torch

    from edge_deeplab.models.deeplab import DeepLabV3Plus

REMEDY_PIXELS = 32 * 256 * 256
"""Pixels of calibration pictures that remedies look at, at once: about 1 GB of activations."""

Layers = tuple[Mapping[str, Sequence[str]], Callable[[NDArray[Any]], diagnose.Outputs]]
"""Layer -> its sources, and a function that runs the float network and gives every layer's output."""


@dataclass(frozen=True)
class Stage:
    """The network made ready in one way.

    Attributes:
        title: What was done, for people; empty: nothing.
        write: Writes the artefact with these options to this path.
        layers: Of the float network that it should equal; None: there is none to look into.
        ranking: Layers by how much they suffer from INT8, worst first.
    """

    title: str
    write: Callable[[Options, Path], InputContract]
    layers: Callable[[], Layers] | None = None
    ranking: Callable[[], list[str]] | None = None


def from_prepared(path: Path, build: Callable[..., InputContract], options: Options) -> tuple[Runtime, Stage]:
    """A file that was verified when it was prepared, here the reference itself. No torch."""
    reference = open_model(path)
    if options.calibration is not None:
        _doubt(options, reference)
    return reference, Stage("", lambda options, output: build(path, reference.contract, options, output))


def from_checkpoint(
    path: Path, target: Target, options: Options
) -> tuple[Runtime, Runtime | None, Iterator[Stage]]:
    """A checkpoint: PyTorch as the reference, and the stages in the order in which they are tried.

    Between them PyTorch at the size the network was trained for, where another one was asked for.
    """
    # A target that builds from a prepared file needs PyTorch only to prepare one.
    with options.doing("starting PyTorch"), needs("export" if target.build is not None else target.extra):
        from edge_deeplab.export.heads import with_head
        from edge_deeplab.models.checkpoint import load_checkpoint
        from edge_deeplab.runtimes.on_torch import TorchRuntime

    network, contract = load_checkpoint(path)
    _check_layers(network, options.keep_float)
    height, width = options.size or (contract.height, contract.width)
    # Weights stored in half the bits still compute in float32: the same function, the same figures.
    resized = (height, width) != (contract.height, contract.width)
    same = not resized and options.precision in ("fp32", contract.precision)
    own = TorchRuntime(*with_head(network, contract.replace(head=options.head))) if resized else None
    contract = contract.replace(
        height=height,
        width=width,
        precision=options.precision,
        metrics=contract.metrics if same else {},
        head=options.head,
    )
    # The head stands in both: what it costs at the contours is its own, not the artefact's, doing.
    reference = TorchRuntime(*with_head(network, contract))
    if options.precision == "int8":
        _doubt(options, reference)
    return reference, own, _stages(network, contract, target, options)


def _stages(
    network: DeepLabV3Plus, contract: InputContract, target: Target, options: Options
) -> Iterator[Stage]:
    """The network as it is; for INT8 also folded, then with the remedies."""
    from edge_deeplab.export import remedies
    from edge_deeplab.export.fold import fold

    @cache
    def images() -> torch.Tensor:
        return _images(contract, options)

    def plain(written: DeepLabV3Plus, equal: DeepLabV3Plus) -> Stage:
        return Stage(
            "",
            write=lambda chosen, output: target.write(written, contract, chosen, output),
            layers=lambda: diagnose.torch_layers(equal),
        )

    def corrected(title: str, base: DeepLabV3Plus) -> Stage:
        # An attempt with other layers in float needs other biases, and only then.
        @lru_cache(maxsize=1)
        def with_floats(kept: frozenset[str]) -> DeepLabV3Plus:
            with options.doing("correcting biases"):
                return remedies.correct_biases(base, images(), kept, symmetric=symmetric)

        def write(chosen: Options, output: Path) -> InputContract:
            return target.write(with_floats(frozenset(chosen.keep_float)), contract, chosen, output)

        def ranking() -> list[str]:
            return remedies.by_harm(base, images(), options.progress)

        return Stage(
            title,
            write,
            layers=lambda: diagnose.torch_layers(base),
            ranking=ranking if options.precision in target.keeps_float else None,
        )

    folded = fold(network)
    if options.precision != "int8":
        yield plain(network, folded)
        return
    if not options.remedies or options.calibration is None:
        yield plain(folded, folded)
        return
    symmetric = (options.scheme or target.schemes[0]) in target.symmetric
    # Corrected biases helped every model measured; equalisation only badly scaled ones.
    yield corrected("biases corrected", folded)
    yield corrected("equalised, biases corrected", remedies.equalise(folded, images()))


def _check_layers(network: DeepLabV3Plus, names: Sequence[str]) -> None:
    """Refuse layers that there are not, whatever the target."""
    from edge_deeplab.export.fold import fold, layers

    there = [layer.name for layer in layers(fold(network))] if names else []
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there)
            meant = f"did you mean {' or '.join(near)}?" if near else f"the last one is {there[-1]};"
            raise UserError(f"no layer {name!r} to keep in float; {meant} --diagnose lists all of them")


def _images(contract: InputContract, options: Options) -> torch.Tensor:
    """Some calibration pictures as one batch (N, 3, H, W), evenly spread over all of them."""
    import torch

    if options.calibration is None:
        raise TypeError("remedies need calibration pictures")
    pictures = options.calibration.pictures
    count = max(4, min(32, REMEDY_PIXELS // (contract.height * contract.width), len(pictures)))
    chosen = dataclasses.replace(
        options.calibration, pictures=pictures[:: max(1, len(pictures) // count)][:count]
    )
    return torch.from_numpy(np.concatenate(list(chosen.tensors(contract))))


def _doubt(options: Options, reference: Runtime) -> None:
    """Say what is wrong with the calibration pictures."""
    if options.calibration is None:
        raise UserError("INT8 needs calibration pictures; see edge_deeplab.export.calibration.choose")
    for line in calibration.doubts(
        options.calibration, reference.contract, lambda frame: reference.segment(frame).labels
    ):
        options.note(line)
