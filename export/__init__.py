"""Turn a checkpoint into an artefact that is verified against PyTorch before anybody sees it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.base import Options, Target, Tolerance, targets
from edge_deeplab.files import whole_file, write_text
from edge_deeplab.zoo import find, shipped

if TYPE_CHECKING:
    from edge_deeplab.export.report import Report
    from edge_deeplab.export.verify import Samples

__all__ = ["Options", "Target", "Tolerance", "VerificationError", "export_model", "targets"]


class VerificationError(Exception):
    """An artefact was too far from PyTorch and was removed.

    Attributes:
        report: What was measured.
    """

    def __init__(self, report: Report) -> None:
        super().__init__("; ".join(report.failures))
        self.report = report


def export_model(
    model: str,
    target: str,
    output: str | Path,
    options: Options | None = None,
    *,
    samples: Samples | None = None,
    source: str = "the packaged portrait, eight views",
) -> Report:
    """Export, verify, then put the artefact and ``OUTPUT.report.json`` in place.

    Args:
        model: A shipped name or a checkpoint; for targets that build from one, a prepared ``.onnx``.
        target: A name from :func:`targets`.
        output: Path of the artefact.
        options: Head, size, dynamic axes, precision, calibration.
        samples: Real pictures to compare on, see :mod:`edge_deeplab.export.verify`; None: eight views
            of the packaged portrait.
        source: Where they come from, for the report.

    Raises:
        UserError: Unknown target, precision or model; bad calibration pictures; cannot be written.
        VerificationError: The artefact is too far from PyTorch; nothing is left behind.
    """
    known = targets()
    if target not in known:
        raise UserError(f"no export target {target!r}; there are: {', '.join(known)}")
    chosen, options, output = known[target], options or Options(), Path(output)
    _check(target, chosen, options)
    suffix = chosen.output_suffix(options)
    if output.suffix != suffix:
        raise UserError(f"--output {output} must end in {suffix} for --target {target}")
    path = find(model, prefer=(".safetensors",))
    if path.suffix != ".safetensors" and not (path.suffix == ".onnx" and chosen.build is not None):
        raise UserError(
            f"export starts from a checkpoint (.safetensors), not from {path}; give the one it was made "
            f"from, or a shipped model: {', '.join(shipped())}"
        )
    if output.exists() and output.samefile(path):
        raise UserError(f"--output {output} is the model itself; give another name")
    with needs(chosen.extra):
        from edge_deeplab.export.job import open_job
        from edge_deeplab.export.verify import sample_views

    if chosen.before is not None:
        options = chosen.before(
            model,
            output,
            options,
            lambda *again: export_model(again[0], target, *again[1:], samples=samples, source=source),
        )
    for _, read in options.progress(samples or (), "reading pictures"):
        read()  # a broken one is named now, not after minutes of converting
    notes: list[str] = []
    with _scratch(options.scratch) as scratch, whole_file(output) as temporary:
        heard = options.note

        def note(line: str) -> None:
            notes.append(line)
            heard(line)

        options = dataclasses.replace(options, scratch=scratch, note=note)
        samples = sample_views() if samples is None else samples
        job = open_job(path, target, chosen, options, samples=samples, source=source)
        report = job.run(temporary, output.name)
        pictures = options.calibration.pictures if options.calibration else ()
        listed = tuple((picture.name, picture.sha256) for picture in pictures)
        versions = {**chosen.versions(), **report.versions}
        heard_of = (*report.notes, *notes)
        report = dataclasses.replace(report, notes=heard_of, calibration=listed, versions=versions)
        if not report.passed and not options.force:
            raise VerificationError(report)
        write_text(output.with_name(output.name + ".report.json"), report.to_json())
    return report


@contextlib.contextmanager
def _scratch(given: Path | None) -> Iterator[Path]:
    """The caller's folder, or one that goes with the export."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="edge-deeplab-") as own:
        yield Path(own)


def _check(name: str, target: Target, options: Options) -> None:
    """Refuse what the target does not have, before anything is loaded."""
    wanted = (
        ("precision", options.precision, tuple(target.tolerances)),
        ("--io", options.input_dtype, target.input_dtypes),
        ("--layout", options.layout or target.layouts[0], target.layouts),
    )
    for what, value, there in wanted:
        if value not in there:
            what = "" if what == "precision" else f"{what} "
            raise UserError(f"--target {name} has no {what}{value}; it has: {', '.join(there)}")
    if options.precision == "int8" and options.scheme is not None and options.scheme not in target.schemes:
        raise UserError(f"--target {name} has no {options.scheme}; it has: {', '.join(target.schemes)}")
    if options.keep_float and options.precision not in target.keeps_float:
        raise UserError(
            f"--target {name} cannot keep single layers in float in {options.precision}; "
            "leave --keep-float away"
        )
