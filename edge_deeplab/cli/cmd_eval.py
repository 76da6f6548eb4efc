"""``edge-deeplab eval MODEL --data SPEC``."""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import add_runtime_options, alone, bar, open_from

if TYPE_CHECKING:
    from edge_deeplab.data import Split
    from edge_deeplab.evaluation import Segment
    from edge_deeplab.evaluation.strategies import Strategy
    from edge_deeplab.imaging import Frame, Labels
    from edge_deeplab.metrics import Evaluator
    from edge_deeplab.runtimes import Runtime
    from edge_deeplab.spec import InputContract

COLUMNS = ("fg IoU", "mIoU", "per img", "pix acc", "bnd IoU")
WORST = 12
"""Pictures on the sheet of the worst."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped name, a checkpoint or an artefact")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="SPEC", help="KIND:PATH, e.g. folder:data/eg"
    )
    parser.add_argument(
        "--split", default="val", metavar="NAME", help="part of the data to score (default: val)"
    )
    parser.add_argument(
        "--scales",
        nargs="+",
        type=_scale,
        metavar="S",
        help="average the probabilities at these factors on the input size; the papers' are "
        "0.5 0.75 1 1.25 1.5 1.75",
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirrored picture's answer")
    parser.add_argument(
        "--refine",
        action="store_true",
        help="score a person's mask as the demos draw it: its edges moved onto the picture's",
    )
    parser.add_argument(
        "--output-stride",
        type=int,
        choices=(8, 16, 32),
        metavar="8|16|32",
        help="run a checkpoint at another output stride than it was trained at",
    )
    parser.add_argument(
        "--grid",
        action="store_true",
        help="the papers' table of inference strategies: output stride, scales, flip, mIoU, multiply-adds",
    )
    parser.add_argument("--trimap", metavar="FILE.png", help="mIoU over distance from contours, as a plot")
    parser.add_argument("--worst", metavar="FILE.jpg", help=f"the {WORST} worst pictures as a sheet")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON too")
    parser.add_argument(
        "--record",
        action="store_true",
        help="store the IoUs in the checkpoint's own contract (.safetensors only)",
    )
    add_runtime_options(parser)


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 4:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0.1 to 4")
    return value


def _run(args: argparse.Namespace) -> int:
    from edge_deeplab.data import open_splits
    from edge_deeplab.errors import UserError
    from edge_deeplab.evaluation.strategies import Strategy

    alone("eval")
    strategy = Strategy(tuple(args.scales or (1.0,)), args.flip)
    plain = strategy == Strategy() and not args.refine
    if args.record and (not plain or args.output_stride):
        raise UserError(
            "--record keeps the plain model's figures; no --scales, --flip, --refine or --output-stride"
        )
    if args.grid and (not plain or args.scales or args.record or args.trimap or args.worst):
        raise UserError(
            "--grid scores all strategies itself: no --scales, --flip, --refine, --record or pictures"
        )
    if args.refine and strategy != Strategy():
        raise UserError("--refine is for the model's plain answer; no --scales or --flip beside it")
    checkpoint = _checkpoint(args) if args.record or args.grid or args.output_stride else None
    _check_outputs(args, checkpoint)
    splits = open_splits(args.data, args.split)
    if args.grid:
        _grid(args, splits)
    else:
        _score(args, checkpoint, splits, strategy)
    return 0


def _check_outputs(args: argparse.Namespace, checkpoint: str | None) -> None:
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


def _save(args: argparse.Namespace, contract: InputContract, results: list[dict[str, Any]]) -> None:
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


# -- one strategy ----------------------------------------------------------------------------------


def _score(args: argparse.Namespace, checkpoint: str | None, splits: list[Split], strategy: Strategy) -> None:
    """Score the splits in one way; print and write all that was asked for."""
    from edge_deeplab.evaluation import as_record, check_classes, metric_name, tally
    from edge_deeplab.evaluation.strategies import check_strategy
    from edge_deeplab.evaluation.trimap import Trimap

    results: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    trimaps: dict[str, Trimap] = {}
    worst: list[tuple[float, Split, int]] = []
    options = {"output_stride": args.output_stride} if args.output_stride else {}
    with open_from(args, checkpoint, **options) as model:
        for split in splits:
            check_classes(model.contract, split)
        check_strategy(model.contract, strategy)
        answer = _refined(model) if args.refine else _segment(model, strategy)
        print(
            f"{'data':18} {'images':>6} " + " ".join(f"{title:>7}" for title in COLUMNS) + "   95 % interval"
        )
        for split in splits:
            progress = partial(bar, desc=split.name, unit="picture")
            trimap = trimaps[split.name] = Trimap(len(split.classes))
            seen = tally(answer, split, progress=progress, also=trimap.add if args.trimap else None)
            record = as_record(seen.scores(), split, seen)
            if args.trimap:
                record["trimap"] = trimap.record()
            results.append(record)
            figures[metric_name(split)] = seen.scores().foreground_iou
            worst += [(value, split, index) for index, value in seen.own_ious().items()]
            _print(split, seen, record, binary=model.contract.binary)
        _save(args, model.contract, results)
        if args.trimap:
            _trimap(args.trimap, trimaps, results)
        if args.worst:
            _sheet(args.worst, answer, worst)
    if args.record and checkpoint:
        _record(checkpoint, figures)


def _segment(model: Runtime, strategy: Strategy) -> Segment:
    from edge_deeplab.evaluation.strategies import Strategy, segment

    if strategy == Strategy():
        return lambda frame: model.segment(frame).labels
    return lambda frame: segment(model.infer, model.contract, frame, strategy)


def _refined(model: Runtime) -> Segment:
    """What the demos show of one picture: alpha with refined edges, foreground where it is above a half."""
    import numpy as np

    from edge_deeplab.errors import UserError
    from edge_deeplab.matte import Matte

    if not model.contract.binary:
        raise UserError(
            f"--refine moves the edges of a mask; {model.contract.name} tells {len(model.contract.classes)} "
            "classes apart"
        )
    matte = Matte(smooth=False)

    def answer(frame: Frame) -> Labels:
        return (matte.update(frame, model.segment(frame).logits) > 0.5).astype(np.uint8)

    return answer


def _print(split: Split, seen: Evaluator, record: dict[str, Any], *, binary: bool) -> None:
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


def _trimap(path: str, trimaps: dict[str, Any], results: list[dict[str, Any]]) -> None:
    from edge_deeplab.evaluation.trimap import WIDTHS, draw_trimap

    print(f"\n{'mIoU within':18} " + " ".join(f"{width:>4} px" for width in WIDTHS))
    for name, trimap in trimaps.items():
        print(f"{name:18} " + " ".join(f"{value:7.4f}" for value in trimap.miou()))
    whole = {r["data"]: math.nan if r["miou"] is None else r["miou"] for r in results}
    draw_trimap({name: trimap.miou() for name, trimap in trimaps.items()}, whole, path)


def _sheet(path: str, answer: Segment, worst: list[tuple[float, Split, int]]) -> None:
    from edge_deeplab.evaluation.sheet import Shown, sheet
    from edge_deeplab.imaging import write_image

    lowest = sorted((each for each in worst if not math.isnan(each[0])), key=lambda each: each[0])[:WORST]
    shown = [
        Shown(split, index, f"{value:.3f}  {split.name} {split.pairs[index].image.name}")
        for value, split, index in lowest
    ]
    if shown:
        write_image(path, sheet(answer, shown))


# -- all strategies --------------------------------------------------------------------------------


def _grid(args: argparse.Namespace, splits: list[Split]) -> None:
    """Score the splits in all of the papers' ways, as :func:`_score` does in one."""
    from edge_deeplab.evaluation import check_classes
    from edge_deeplab.evaluation.strategies import PAPER_STRATEGIES

    path = _checkpoint(args)
    trained = _trained_stride(path)
    results: list[dict[str, Any]] = []
    print(
        f"{'data':18} {'train OS':>8} {'eval OS':>7} {'MS':>3} {'flip':>4} {'mIoU':>7} {'multiply-adds':>14}"
    )
    for stride in (args.output_stride,) if args.output_stride else (8, 16, 32):
        with open_from(args, path, output_stride=stride) as model:
            contract = model.contract
            for split in splits:
                check_classes(model.contract, split)
                for strategy, row in zip(PAPER_STRATEGIES, _rows(model, split, stride), strict=True):
                    results.append({"data": split.name, "train_os": trained, "eval_os": stride, **row})
                    yes = {True: "x", False: ""}
                    miou = math.nan if row["miou"] is None else row["miou"]
                    print(
                        f"{split.name:18} {trained:8d} {stride:7d} {yes[len(strategy.scales) > 1]:>3} "
                        f"{yes[strategy.flip]:>4} {miou:7.4f} "
                        f"{row['multiply_adds'] / 1e9:12.2f} B",
                        flush=True,
                    )
    _save(args, contract, results)


def _rows(model: Runtime, split: Split, stride: int) -> list[dict[str, Any]]:
    from edge_deeplab.errors import needs
    from edge_deeplab.evaluation import figure
    from edge_deeplab.evaluation.strategies import PAPER_STRATEGIES, compare

    with needs("train"):
        from edge_deeplab.models.costs import multiply_adds
        from edge_deeplab.runtimes.on_torch import TorchRuntime
    if not isinstance(model, TorchRuntime):
        raise TypeError("a checkpoint opened as something else")
    progress = partial(bar, desc=f"{split.name} OS {stride}", unit="picture")
    found = compare(model.infer, model.contract, split, PAPER_STRATEGIES, progress=progress)
    count = partial(multiply_adds, model.model)
    return [
        {
            "scales": list(strategy.scales),
            "flip": strategy.flip,
            "miou": figure(seen.scores().miou),
            "foreground_iou": figure(seen.scores().foreground_iou),
            "multiply_adds": strategy.multiply_adds(model.contract, count),
        }
        for strategy, seen in zip(PAPER_STRATEGIES, found, strict=True)
    ]


def _trained_stride(path: str) -> int:
    from edge_deeplab.errors import needs

    with needs("train"):
        from edge_deeplab.models.checkpoint import load_checkpoint
    model, _ = load_checkpoint(path)
    return model.architecture.output_stride


# -- files -----------------------------------------------------------------------------------------


def _checkpoint(args: argparse.Namespace) -> str:
    """The checkpoint behind ``args.model``: said before an hour of scoring, not after."""
    from edge_deeplab.errors import UserError
    from edge_deeplab.zoo import find

    path = find(args.model, prefer=(".safetensors",))
    if path.suffix != ".safetensors":
        if args.record:
            raise UserError(f"--record writes into checkpoints, not into {path}")
        raise UserError(f"{path} runs at the output stride it was exported with; give its checkpoint")
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
