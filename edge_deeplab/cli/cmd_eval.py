"""``edge-deeplab eval MODEL --data SPEC``."""

from __future__ import annotations

import argparse
import math
from functools import partial

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import add_runtime_options, bar, open_from

COLUMNS = ("fg IoU", "mIoU", "per img", "pix acc", "bnd IoU")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped name, a checkpoint or an artefact")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="SPEC", help="KIND:PATH, e.g. folder:data/eg"
    )
    parser.add_argument(
        "--split", default="val", metavar="NAME", help="part of the data to score (default: val)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON too")
    parser.add_argument(
        "--record",
        action="store_true",
        help="store the IoUs in the checkpoint's own contract (.safetensors only)",
    )
    add_runtime_options(parser)


def _run(args: argparse.Namespace) -> int:
    import json

    from edge_deeplab.data import open_split
    from edge_deeplab.evaluation import as_record, check_classes, evaluate, metric_name
    from edge_deeplab.files import write_text

    checkpoint = _checkpoint(args.model) if args.record else None
    splits = [open_split(spec, args.split) for spec in args.data]
    records = []
    figures: dict[str, float] = {}
    with open_from(args, checkpoint) as model:
        for split in splits:
            check_classes(model.contract, split)
        print(f"{'data':18} {'images':>6} " + " ".join(f"{title:>7}" for title in COLUMNS))
        for split in splits:
            progress = partial(bar, desc=split.name, unit="picture")
            scores = evaluate(lambda frame: model.segment(frame).labels, split, progress=progress)
            records.append(as_record(scores, split))
            figures[metric_name(split)] = scores.foreground_iou
            edges = [v for v in scores.boundary_iou[model.contract.binary :] if not math.isnan(v)]
            edge = sum(edges) / len(edges) if edges else math.nan
            print(
                f"{split.name:18} {scores.images:6d} {scores.foreground_iou:7.4f} {scores.miou:7.4f} "
                f"{scores.image_iou:7.4f} {scores.pixel_accuracy:7.4f} {edge:7.4f}"
            )
            if not model.contract.binary:
                for info, value in zip(split.classes, scores.iou, strict=True):
                    print(f"  {info.name:20} {value:.4f}")
        if checkpoint:
            _record(checkpoint, figures)
        if args.json:
            write_text(
                args.json,
                json.dumps(
                    {
                        "model": args.model,
                        "contract": json.loads(model.contract.to_json()),
                        "results": records,
                    },
                    indent=2,
                ),
            )
    return 0


def _checkpoint(model: str) -> str:
    """The file to score and to record in: said before an hour of scoring, not after."""
    from edge_deeplab.errors import UserError
    from edge_deeplab.zoo import find

    path = find(model, prefer=(".safetensors",))
    if path.suffix != ".safetensors":
        raise UserError(f"--record writes into checkpoints, not into {path}")
    return str(path)


def _record(path: str, metrics: dict[str, float]) -> None:
    from edge_deeplab.errors import needs

    with needs("train"):
        from edge_deeplab.models.checkpoint import load_checkpoint, save_checkpoint
    network, contract = load_checkpoint(path)
    rounded = {name: round(value, 4) for name, value in metrics.items() if not math.isnan(value)}
    contract = contract.replace(metrics={**contract.metrics, **rounded})
    save_checkpoint(path, network, contract, half=contract.precision == "fp16")


COMMAND = Command("score a model on labelled pictures", _arguments, _run)
