"""Ways to make a network ready for its precision, from a checkpoint or a prepared file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    with needs("export"):
        from edge_deeplab.export.heads import with_head
        from edge_deeplab.models.checkpoint import load_checkpoint
        from edge_deeplab.runtimes.on_torch import TorchRuntime

    network, contract = load_checkpoint(path)
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

    def stage(title: str, written: DeepLabV3Plus, equal: DeepLabV3Plus) -> Stage:
        helped = options.precision == "int8" and options.remedies
        return Stage(
            title,
            write=lambda chosen, output: target.write(written, contract, chosen, output),
            layers=lambda: diagnose.torch_layers(equal),
            ranking=(lambda: remedies.by_harm(written, images(), options.progress)) if helped else None,
        )

    def images() -> torch.Tensor:
        return _images(contract, options)

    if options.precision != "int8":
        yield stage("", network, fold(network))
        return
    folded = fold(network)
    if not options.remedies or options.calibration is None:
        yield stage("", folded, folded)
        return
    # Corrected biases helped every model measured; equalisation only badly scaled ones.
    yield stage("biases corrected", remedies.correct_biases(folded, images()), folded)
    equalised = remedies.equalise(folded, images())
    yield stage("equalised, biases corrected", remedies.correct_biases(equalised, images()), equalised)


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
