"""Turn a checkpoint into an artefact that is verified against PyTorch before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.base import Options, Target, Tolerance, targets
from edge_deeplab.files import whole_file, write_text
from edge_deeplab.zoo import find

if TYPE_CHECKING:
    from edge_deeplab.export.verify import Report, Samples

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
    source: str = "the packaged portrait",
    progress: Callable[[Any], Any] = iter,
) -> Report:
    """Export, verify, then put the artefact and ``OUTPUT.report.json`` in place.

    Args:
        model: A shipped name or a checkpoint.
        target: A name from :func:`targets`.
        output: Path of the artefact.
        options: Head, size, dynamic axes, precision.
        samples: Real pictures to compare on, see :mod:`edge_deeplab.export.verify`; None: eight views
            of the packaged portrait.
        source: Where they come from, for the report.
        progress: Wraps the pictures, e.g. a progress bar.

    Raises:
        UserError: Unknown target, precision or model; cannot be written.
        VerificationError: The artefact is too far from PyTorch; nothing is left behind.
    """
    known = targets()
    if target not in known:
        raise UserError(f"no export target {target!r}; there are: {', '.join(known)}")
    chosen, options = known[target], options or Options()
    if options.precision not in chosen.tolerances:
        raise UserError(
            f"--target {target} has no {options.precision}; it has: {', '.join(chosen.tolerances)}"
        )
    with needs(chosen.extra):
        import edge_deeplab.models.checkpoint as checkpoint
        from edge_deeplab.export.heads import with_head
        from edge_deeplab.export.verify import sample_views, verify
        from edge_deeplab.runtimes.on_torch import TorchRuntime
    from edge_deeplab.runtimes import open_model

    path = find(model, prefer=(".safetensors",))
    if path.suffix != ".safetensors":
        raise UserError(f"export starts from a checkpoint (.safetensors), not from {path}")
    network, contract = checkpoint.load_checkpoint(path)
    height, width = options.size or (contract.height, contract.width)
    # Weights stored in half the bits still compute in float32: the same function, the same figures.
    same = (height, width) == (contract.height, contract.width) and options.precision in (
        "fp32",
        contract.precision,
    )
    contract = contract.replace(
        height=height, width=width, precision=options.precision, metrics=contract.metrics if same else {}
    )
    contract = contract.replace(head=options.head)
    # The head stands in both: what it costs at the contours is its own, not the artefact's, doing.
    reference = TorchRuntime(*with_head(network, contract))
    output = Path(output)
    if output.suffix != chosen.suffix:
        raise UserError(f"--output {output} must end in {chosen.suffix} for --target {target}")
    if output.exists() and output.samefile(path):
        raise UserError(f"--output {output} is the model itself; give another name")
    with whole_file(output) as temporary:
        chosen.write(network, contract, options, temporary)
        with open_model(temporary) as artefact:
            report = verify(
                artefact,
                reference,
                sample_views() if samples is None else samples,
                path=temporary,
                name=output.name,
                target=target,
                source=source,
                tolerance=chosen.tolerances[options.precision],
                progress=progress,
            )
        if not report.passed:
            raise VerificationError(report)
        write_text(output.with_name(output.name + ".report.json"), report.to_json())
    return report
