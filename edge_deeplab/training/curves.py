"""``curves.png``: loss, learning rate and validation figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_deeplab.errors import needs
from edge_deeplab.files import whole_file


def draw_curves(records: list[dict[str, Any]], path: Path) -> None:
    """Draw the records of ``metrics.jsonl``: loss and rate on the left, figures of every val split right."""
    with needs("train"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    training = [r for r in records if "loss" in r]
    left.plot([r["step"] for r in training], [r["loss"] for r in training], color="#0072b2", label="loss")
    left.set(xlabel="step", ylabel="loss", title="training")
    left.set_ylim(bottom=0)
    rates = [r for r in training if "lr" in r]
    if rates:
        twin = left.twinx()
        twin.plot([r["step"] for r in rates], [r["lr"] for r in rates], color="#999999", linewidth=1)
        twin.set_ylabel("learning rate of the head", color="#777777")
        twin.set_ylim(bottom=0)
    scored = [r for r in records if r.get("foreground_iou") is not None]
    for name in dict.fromkeys(r["data"] for r in scored):
        steps, values = zip(
            *((r["step"], r["foreground_iou"]) for r in scored if r["data"] == name), strict=True
        )
        best = max(range(len(values)), key=values.__getitem__)
        right.plot(steps, values, marker=".", label=f"{name}: best {values[best]:.4f} at step {steps[best]}")
        right.set_ylabel("foreground IoU" if len(scored[0]["iou"]) == 2 else "mIoU")
    right.set(xlabel="step", title="validation (averaged weights)")
    if right.lines:
        right.legend(loc="lower right", fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
