"""One export: attempts at the artefact until one passes its verification."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from edge_deeplab import imaging
from edge_deeplab.export import diagnose
from edge_deeplab.export.base import Options, Target, Tolerance
from edge_deeplab.export.report import LayerError, Report
from edge_deeplab.export.stages import Stage, from_checkpoint, from_prepared
from edge_deeplab.export.verify import Samples, verify
from edge_deeplab.metrics import Evaluator
from edge_deeplab.runtimes import open_model
from edge_deeplab.runtimes.base import Runtime

MOST_IN_FLOAT = 16
"""Layers the search leaves in float at most: beyond that, INT8 is not what the model should run in."""


@dataclass(frozen=True)
class Attempt:
    """An artefact that was written and measured."""

    stage: Stage
    options: Options
    path: Path
    report: Report

    @property
    def score(self) -> float:
        """More is better: what the gate looks at."""
        decided = self.report.tolerance.masks_decide and self.report.iou_artefact is not None
        return self.report.iou_artefact or 0.0 if decided else self.report.agreement


@dataclass(frozen=True)
class Job:
    """What is written, and what it is compared with.

    Attributes:
        reference: The float model that answers as the artefact should.
        stages: Ways to make the network ready, made one by one when the one before failed.
        target, name, options: What was asked for.
        samples, source: Pictures to compare on.
        own_size: The float model at the input size it was trained for, where the artefact has another.
    """

    reference: Runtime
    stages: Iterator[Stage]
    target: Target
    name: str
    options: Options
    samples: Samples
    source: str
    own_size: Runtime | None = None

    def run(self, path: Path, title: str) -> Report:
        """Write to ``path`` the first artefact that passes, else the best one; say how it compares."""
        best: Attempt | None = None
        for stage in self.stages:
            if best is not None:
                self.options.note(f"{best.stage.title or 'INT8'}: {best.report.failures[0]}; {stage.title}")
            made = self._attempt(stage, self.options, title)
            best = made if best is None or made.score > best.score else best
            if made.report.passed:
                break
        if best is None:
            raise TypeError("a job needs a stage")
        if not best.report.passed and best.stage.ranking is not None:
            best = self._with_floats(best, best.stage.ranking(), title)
        for file in sorted(best.path.parent.glob(f"{best.path.name}*")):  # and what belongs beside it
            shutil.copyfile(file, path.with_name(path.name + file.name.removeprefix(best.path.name)))
        report = best.report
        if self.own_size is not None and report.iou_reference is not None:
            height, width, iou = self._at_own_size(self.own_size)
            if not math.isnan(iou):
                report = dataclasses.replace(report, own_size=(height, width, iou))
        if self.options.precision == "fp16" and self.target.half_computes:
            report = dataclasses.replace(report, failures=(*report.failures, *self._overflows(best.stage)))
        if self.options.diagnose:
            report = dataclasses.replace(report, layers=self._diagnose(best))
        return report

    def _with_floats(self, failed: Attempt, ranking: list[str], title: str) -> Attempt:
        """Leave the fewest of the worst layers in float that make it pass: double, then halve between."""
        self.options.note(f"{failed.report.failures[0]}; looking for layers to leave in float")
        own = self.options.keep_float
        ranking = [name for name in ranking if name not in own]

        def attempt(count: int) -> Attempt:
            options = dataclasses.replace(self.options, keep_float=(*own, *ranking[:count]))
            return self._attempt(failed.stage, options, title)

        best, low, high = failed, 0, 1
        while high <= min(MOST_IN_FLOAT, len(ranking)):
            made = attempt(high)
            best = made if made.score > best.score or made.report.passed else best
            if made.report.passed:
                break
            low, high = high, 2 * high
        while best.report.passed and high - low > 1:
            middle = (low + high) // 2
            made = attempt(middle)
            if made.report.passed:
                best, high = made, middle
            else:
                low = middle
        return best

    def _attempt(self, stage: Stage, options: Options, title: str) -> Attempt:
        if options.scratch is None:
            raise TypeError("a job needs a scratch folder")
        # A stage's own folder: what a target keeps there belongs to this network.
        scratch = options.scratch / (stage.title.replace(" ", "-") or "plain")
        scratch.mkdir(exist_ok=True)
        options = dataclasses.replace(options, scratch=scratch)
        path = scratch / f"{len(options.keep_float)}-in-float{self.target.output_suffix(options)}"
        stage.write(options, path)
        with open_model(path) as artefact:
            report = verify(
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
        return Attempt(stage, options, path, report)

    def _at_own_size(self, model: Runtime) -> tuple[int, int, float]:
        """Height, width and IoU on the same pictures: another size may cost more than the precision does."""
        contract = model.contract
        scored = Evaluator(len(contract.classes), boundary=False)
        for _, read in self.options.progress(self.samples, "scoring the model's own size"):
            frame, truth = read()
            if truth is not None:
                scored.add(model.segment(frame).labels, truth)
        return contract.height, contract.width, scored.scores().foreground_iou

    def _overflows(self, stage: Stage) -> list[str]:
        """The first layer whose values float16 cannot hold.

        Asked of the float network: where the artefact is verified, on a CPU, float16 is often computed in
        float32, and would not show what a GPU makes of it.
        """
        if stage.layers is None:
            return []
        _, float_layers = stage.layers()
        highest: dict[str, float] = {}
        for _, read in islice(self.samples, diagnose.PICTURES):
            outputs = float_layers(imaging.preprocess(read()[0], self.reference.contract))
            for name, values in outputs.items():
                highest[name] = max(highest.get(name, 0.0), float(np.abs(values).max()))
        return [
            f"{name} reaches {value:.3g}, float16 ends at 65504; leave --fp16 away"
            for name, value in highest.items()
            if value > float(np.finfo(np.float16).max)
        ][:1]

    def _diagnose(self, attempt: Attempt) -> tuple[LayerError, ...]:
        """Every layer's error on a few of the pictures."""
        if attempt.stage.layers is None or self.target.trace is None:
            self.options.note(f"--target {self.name} cannot be looked into layer by layer")
            return ()
        sources, float_layers = attempt.stage.layers()
        with open_model(attempt.path) as artefact:
            contract = artefact.contract
        frames = [read()[0] for _, read in islice(self.samples, diagnose.PICTURES)]
        wanted = (float_layers(imaging.preprocess(frame, self.reference.contract)) for frame in frames)
        given = self.target.trace(
            attempt.path, list(sources), (imaging.preprocess(frame, contract) for frame in frames)
        )
        pairs = zip(wanted, given, strict=True)
        return diagnose.compare(sources, self.options.progress(pairs, "diagnosing"))


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
        reference, stage = from_prepared(path, target.build, options)
        if options.precision == "fp32":  # without another wish the artefact has its precision
            options = dataclasses.replace(options, precision=reference.contract.precision)
        return Job(reference, iter([stage]), target, name, options, samples, source)
    reference, own_size, stages = from_checkpoint(path, target, options)
    return Job(reference, stages, target, name, options, samples, source, own_size)
