"""What a verification found, as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from edge_deeplab.export.base import Inspection, Tolerance
from edge_deeplab.spec import Quantization


@dataclass(frozen=True)
class LayerError:
    """How far one layer's output in the artefact is from the float network's, over some pictures.

    Attributes:
        name: Of the layer in the network.
        sqnr: Signal to quantisation noise ratio in dB, 10 log10(sum x^2 / sum (x - x')^2).
        drop: By how many dB ``sqnr`` is below that of the worst layer it reads; what it lost itself.
        largest: Largest absolute difference.
        bad: Share of values that are NaN or infinite.
    """

    name: str
    sqnr: float
    drop: float
    largest: float
    bad: float


BAD_LAYER = 20.0
"""dB: a layer below this has lost a tenth of its signal's amplitude."""

SHOWN = 12
"""Digits of a SHA-256 for people; the JSON holds all."""


@dataclass(frozen=True)
class Report:
    """How an artefact compares with PyTorch.

    Attributes:
        pictures: How many real pictures were compared, and ``source`` where they came from.
        logits_difference: Largest absolute difference of any output value; None for a class map.
        agreement: Share of all pixels with the same label; ``worst_agreement`` of the worst picture.
        worst: The pictures that agree least, worst first: (name, share of pixels).
        iou_reference, iou_artefact: Foreground IoU (mIoU for several classes); None without masks
            or where these hold nothing to measure it on.
        own_size: Height, width and IoU of the float model at the size it was trained for; None where the
            artefact has that size.
        quantization: Calibration and layers left in float; None for float artefacts.
        inspection: Operators and float islands; None where the target does not tell.
        layers: Errors layer by layer, in forward order; empty without ``--diagnose``.
        calibration: The pictures that INT8 ranges were measured on, in order: (name, SHA-256). Their hash
            stands in ``quantization``.
        versions: Of this package, of what made the artefact, and of what ran it and its reference.
        notes: Doubts, a line each.
        reference: What it was compared with: PyTorch, or what ran the file it was built from.
        passed: Whether it is within ``tolerance``.
    """

    artefact: str
    bytes: int
    sha256: str
    target: str
    precision: str
    head: str
    input: str
    source: str
    pictures: int
    logits_difference: float | None
    agreement: float
    worst_agreement: float
    worst_picture: str
    worst: tuple[tuple[str, float], ...]
    iou_reference: float | None
    iou_artefact: float | None
    tolerance: Tolerance
    failures: tuple[str, ...]
    versions: dict[str, str]
    own_size: tuple[int, int, float] | None = None
    quantization: Quantization | None = None
    inspection: Inspection | None = None
    layers: tuple[LayerError, ...] = ()
    calibration: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    reference: str = "PyTorch"

    @property
    def passed(self) -> bool:
        """No tolerance was exceeded."""
        return not self.failures

    def to_json(self) -> str:
        """For the file beside the artefact."""
        return json.dumps({"passed": self.passed, **dataclasses.asdict(self)}, indent=2)

    def table(self) -> str:
        """For people."""
        rows = [
            ("artefact", f"{self.artefact}, {self.bytes / 1e6:.2f} MB, {self.input} -> {self.head}"),
            ("sha256", self.sha256[:SHOWN]),
            ("compared", f"with {self.reference} on {self.pictures} pictures ({self.source})"),
            ("same label", f"{self.agreement:.4%} of pixels{self._least()}"),
            ("worst pictures", "; ".join(f"{share:.2%} {picture}" for picture, share in self.worst)),
        ]
        if self.logits_difference is not None:
            limit = "" if self.tolerance.logits is None else f" (at most {self.tolerance.logits:g})"
            rows.append(("output difference", f"{self.logits_difference:.2e} at most{limit}"))
        if self.iou_reference is not None and self.iou_artefact is not None:
            change = 100 * (self.iou_artefact - self.iou_reference)
            rows.append(
                (
                    "IoU",
                    f"{self.iou_artefact:.4f}, {self.reference} {self.iou_reference:.4f}: "
                    f"{change:+.2f} points (at most -{100 * self.tolerance.iou_drop:g})",
                )
            )
        if self.own_size is not None and self.iou_artefact is not None:
            height, width, iou = self.own_size
            change = 100 * (self.iou_artefact - iou)
            rows.append(
                ("own size", f"{height}x{width}, {self.reference} {iou:.4f}: {change:+.2f} points in all")
            )
        if self.quantization is not None:
            rows += self._quantization(self.quantization)
        if self.inspection is not None:
            ops = sorted(self.inspection.ops.items(), key=lambda item: -item[1])
            rows.append(("operators", ", ".join(f"{count} {name}" for name, count in ops)))
            if self.quantization is not None and self.quantization.pictures:
                islands = ", ".join(f"{count} {name}" for name, count in self.inspection.islands.items())
                rows.append(("float islands", islands or "none"))
        if self.layers:
            rows.append(("first bad layer", self._first_bad()))
        rows.append(("versions", ", ".join(f"{name} {found}" for name, found in self.versions.items())))
        rows += [("note", note) for note in self.notes]
        rows.append(("verdict", "verified" if self.passed else "REFUSED: " + "; ".join(self.failures)))
        lines = [f"  {name:18} {value}" for name, value in rows]
        return "\n".join([*lines, *self._layers()])

    def _least(self) -> str:
        decides = not self.tolerance.masks_decide or self.iou_reference is None
        return f" (at least {self.tolerance.agreement:.2%})" if decides else ""

    @staticmethod
    def _quantization(quantization: Quantization) -> list[tuple[str, str]]:
        if not quantization.pictures:
            return [("calibrated", f"not at all, {quantization.scheme}: activations are scaled as they come")]
        measured = (
            f"{quantization.method} on {quantization.pictures} pictures ({quantization.source}, "
            f"list {quantization.sha256[:SHOWN]}), {quantization.scheme}"
        )
        kept = quantization.float_layers
        return [
            ("calibrated", measured),
            ("kept in float", f"{len(kept)}: {', '.join(kept)}" if kept else "no layer"),
        ]

    def _first_bad(self) -> str:
        for layer in self.layers:
            if layer.bad or layer.sqnr < BAD_LAYER:
                return f"{layer.name}, {layer.sqnr:.1f} dB, {layer.drop:.1f} dB below what it was given"
        most = max(self.layers, key=lambda layer: layer.drop)
        return f"none below {BAD_LAYER:g} dB; {most.name} lost most, {most.drop:.1f} dB"

    def _layers(self) -> list[str]:
        if not self.layers:
            return []
        lines = ["", f"  {'layer':38} {'SQNR dB':>8} {'lost dB':>8} {'largest':>9}"]
        for layer in self.layers:
            bad = f"  {layer.bad:.2%} not finite" if layer.bad else ""
            lines.append(f"  {layer.name:38} {layer.sqnr:8.1f} {layer.drop:8.1f} {layer.largest:9.2e}{bad}")
        return lines
