"""What ``edge-deeplab eval`` prints and writes."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_deeplab.data import Split
    from edge_deeplab.evaluation import Segment
    from edge_deeplab.metrics import Evaluator
    from edge_deeplab.spec import InputContract

COLUMNS = ("fg IoU", "mIoU", "per img", "pix acc", "bnd IoU")
WORST = 12
"""Pictures on the sheet of the worst."""


def print_head() -> None:
    """The titles over what :func:`print_line` prints."""
    titles = " ".join(f"{title:>7}" for title in COLUMNS)
    print(f"{'data':18} {'images':>6} {titles}   95 % interval")


def check_outputs(args: argparse.Namespace, checkpoint: str | None) -> None:
    """Refuse what cannot be written: said before an hour of scoring, not after."""
    from edge_deeplab.evaluation.trimap import check_plot
    from edge_deeplab.files import check_writable
    from edge_deeplab.imaging import check_picture

    if args.json:
        check_writable(args.json)
    if args.trimap:
        check_plot(args.trimap)
    if args.worst:
        check_picture(args.worst)
    if args.record and checkpoint:
        check_writable(checkpoint)


def save_json(args: argparse.Namespace, contract: InputContract, results: list[dict[str, Any]]) -> None:
    """Write ``--json``, before anything that is drawn from it."""
    import json

    from edge_deeplab.files import write_text

    if args.json:
        record = {"model": args.model, "contract": json.loads(contract.to_json()), "results": results}
        if not args.grid:  # its rows say themselves how they were measured
            record["strategy"] = {
                "scales": args.scales or [1.0],
                "flip": args.flip,
                "refine": args.refine,
                "output_stride": args.output_stride,
            }
        write_text(args.json, json.dumps(record, indent=2))


def print_line(split: Split, seen: Evaluator, record: dict[str, Any], *, binary: bool) -> None:
    """One split's figures; below them every class, where there are several."""
    scores = seen.scores()
    edges = [v for v in scores.boundary_iou[binary:] if not math.isnan(v)]
    edge = sum(edges) / len(edges) if edges else math.nan
    low, high = (math.nan if end is None else end for end in record["interval_95"])
    print(
        f"{split.name:18} {scores.images:6d} {scores.foreground_iou:7.4f} {scores.miou:7.4f} "
        f"{scores.image_iou:7.4f} {scores.pixel_accuracy:7.4f} {edge:7.4f}   {low:.4f} .. {high:.4f}"
    )
    if not binary:
        for info, value in zip(split.classes, scores.iou, strict=True):
            print(f"  {info.name:20} {value:.4f}")


def show_trimap(path: str, trimaps: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Print mIoU near contours by split name, and plot it."""
    from edge_deeplab.evaluation.trimap import WIDTHS, draw_trimap

    print(f"\n{'mIoU within':18} " + " ".join(f"{width:>4} px" for width in WIDTHS))
    for name, trimap in trimaps.items():
        print(f"{name:18} " + " ".join(f"{value:7.4f}" for value in trimap.miou()))
    whole = {r["data"]: math.nan if r["miou"] is None else r["miou"] for r in results}
    draw_trimap({name: trimap.miou() for name, trimap in trimaps.items()}, whole, path)


def write_worst(path: str, answer: Segment, worst: list[tuple[float, Split, int]]) -> None:
    """Draw the pictures of the lowest own IoU: (IoU, split, index), in any order."""
    from edge_deeplab.evaluation.sheet import Shown, sheet
    from edge_deeplab.imaging import write_image

    lowest = sorted((each for each in worst if not math.isnan(each[0])), key=lambda each: each[0])[:WORST]
    shown = [
        Shown(split, index, f"{value:.3f}  {split.name} {split.pairs[index].image.name}")
        for value, split, index in lowest
    ]
    if shown:
        write_image(path, sheet(answer, shown))


def record_figures(path: str, metrics: dict[str, float]) -> None:
    """Store figures in a checkpoint's contract beside those it has."""
    from edge_deeplab.errors import needs

    with needs("train"):
        from edge_deeplab.models.checkpoint import load_checkpoint, save_checkpoint
    network, contract = load_checkpoint(path)
    rounded = {name: round(value, 4) for name, value in metrics.items() if not math.isnan(value)}
    contract = contract.replace(metrics={**contract.metrics, **rounded})
    save_checkpoint(path, network, contract, half=contract.precision == "fp16")
