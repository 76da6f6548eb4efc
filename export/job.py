"""One export: the float reference, the network made ready for its precision, and attempts at the artefact."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export import calibration
from edge_deeplab.export.base import Options, Target, Tolerance
from edge_deeplab.export.report import Report
from edge_deeplab.export.verify import Samples, verify
from edge_deeplab.runtimes import open_model
from edge_deeplab.runtimes.base import Runtime
from edge_deeplab.spec import InputContract

Write = Callable[[Options, Path], InputContract]


@dataclass(frozen=True)
class Job:
    """What is written, and what it is compared with.

    Attributes:
        reference: The float model that answers as the artefact should.
        write: Writes the artefact with these options to this path.
        target, name, options: What was asked for.
        samples, source: Pictures to compare on.
    """

    reference: Runtime
    write: Write
    target: Target
    name: str
    options: Options
    samples: Samples
    source: str

    def run(self, path: Path, title: str) -> Report:
        """Write the artefact to ``path`` and verify it."""
        return self._attempt(self.options, path, title)

    def _attempt(self, options: Options, path: Path, title: str) -> Report:
        self.write(options, path)
        with open_model(path) as artefact:
            return verify(
                artefact,
                self.reference,
                self.samples,
                path=path,
                name=title,
                target=self.name,
                source=self.source,
                tolerance=tolerance(self.target, options),
                inspection=self.target.inspect(path) if self.target.inspect else None,
                progress=options.progress,
            )


def tolerance(target: Target, options: Options) -> Tolerance:
    """The target's, with ``max_drop`` in place of its loss of IoU."""
    own = target.tolerances[options.precision]
    return own if options.max_drop is None else dataclasses.replace(own, iou_drop=options.max_drop / 100)


def open_job(
    path: Path, name: str, target: Target, options: Options, *, samples: Samples, source: str
) -> Job:
    """Load the model and make it ready.

    Args:
        path: A checkpoint, or a prepared ``.onnx`` for targets that build from one.
        name, target, options: What was asked for.
        samples, source: Pictures to compare on.
    """
    if path.suffix == ".onnx" and target.build is not None:
        return _from_prepared(path, name, target, options, samples, source)
    if path.suffix != ".safetensors":
        raise UserError(f"export starts from a checkpoint (.safetensors), not from {path}")
    return _from_checkpoint(path, name, target, options, samples, source)


def _from_prepared(
    path: Path, name: str, target: Target, options: Options, samples: Samples, source: str
) -> Job:
    """The prepared file was verified when it was written; here it is the reference itself. No torch.

    Without another wish the artefact has its precision.
    """
    reference = open_model(path)
    build = target.build
    if build is None:
        raise TypeError(f"--target {name} builds from no file")
    if options.precision == "fp32":
        options = dataclasses.replace(options, precision=reference.contract.precision)
    return Job(
        reference,
        lambda chosen, output: build(path, reference.contract, chosen, output),
        target,
        name,
        options,
        samples,
        source,
    )


def _from_checkpoint(
    path: Path, name: str, target: Target, options: Options, samples: Samples, source: str
) -> Job:
    with needs("export"):
        from edge_deeplab.export.fold import fold
        from edge_deeplab.export.heads import with_head
        from edge_deeplab.models.checkpoint import load_checkpoint
        from edge_deeplab.runtimes.on_torch import TorchRuntime

    network, contract = load_checkpoint(path)
    height, width = options.size or (contract.height, contract.width)
    # Weights stored in half the bits still compute in float32: the same function, the same figures.
    same = (height, width) == (contract.height, contract.width) and options.precision in (
        "fp32",
        contract.precision,
    )
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
        network = fold(network)
    return Job(
        reference,
        lambda chosen, output: target.write(network, contract, chosen, output),
        target,
        name,
        options,
        samples,
        source,
    )


def _doubt(options: Options, reference: Runtime) -> None:
    """Say what is wrong with the calibration pictures."""
    if options.calibration is None:
        raise UserError("INT8 needs calibration pictures; see edge_deeplab.export.calibration.choose")
    for line in calibration.doubts(
        options.calibration, reference.contract, lambda frame: reference.segment(frame).labels
    ):
        options.note(line)
