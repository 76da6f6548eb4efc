"""``edge-deeplab eval MODEL --data SPEC``."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import add_runtime_options, bar, open_from
from edge_deeplab.cli.eval_output import (
    WORST,
    check_outputs,
    print_head,
    print_line,
    record_figures,
    save_json,
    show_trimap,
    write_worst,
)

if TYPE_CHECKING:
    from edge_deeplab.data import Split
    from edge_deeplab.evaluation import Progress, Segment
    from edge_deeplab.evaluation.shares import Processes
    from edge_deeplab.evaluation.strategies import Strategy
    from edge_deeplab.imaging import Frame, Labels
    from edge_deeplab.runtimes import Runtime


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
    with _processes(args) as processes:
        _eval(args, processes)
    return 0


@contextmanager
def _processes(args: argparse.Namespace) -> Iterator[Processes]:
    """This process alone, or those that torchrun started, which share the pictures."""
    from edge_deeplab.errors import UserError, needs
    from edge_deeplab.evaluation.shares import Alone

    if os.environ.get("WORLD_SIZE", "1") in ("", "1"):
        yield Alone()
        return
    with needs("train"):
        from edge_deeplab.training.distributed import join
    with join(args.device or "cpu", cure="start eval again") as world:
        elsewhere = {*(args.provider or ()), args.delegate} - {None, "cpu", "xnnpack", "none"}
        if elsewhere or args.model.endswith(".engine"):
            raise UserError(
                "under torchrun artefacts run on CPUs, as all processes would take the same accelerator: "
                "give the checkpoint, or start eval without torchrun"
            )
        yield world


def _eval(args: argparse.Namespace, processes: Processes) -> None:
    """What one process does of it."""
    from edge_deeplab.data import open_splits
    from edge_deeplab.errors import UserError
    from edge_deeplab.evaluation.shares import check_same_pictures
    from edge_deeplab.evaluation.strategies import Strategy

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
    if processes.leads:
        check_outputs(args, checkpoint)
    splits = open_splits(args.data, args.split)
    check_same_pictures(splits, processes)
    if args.grid:
        _grid(args, splits, processes)
    else:
        _score(args, checkpoint, splits, strategy, processes)


# -- one strategy ----------------------------------------------------------------------------------


def _score(
    args: argparse.Namespace,
    checkpoint: str | None,
    splits: list[Split],
    strategy: Strategy,
    processes: Processes,
) -> None:
    """Score the splits in one way; print and write all that was asked for."""
    from edge_deeplab.evaluation import as_record, check_classes, metric_name, tally
    from edge_deeplab.evaluation.shares import share, total
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
        if processes.leads:
            print_head()
        for split in splits:
            trimap = Trimap(len(split.classes)) if args.trimap else None
            seen = tally(
                answer,
                split,
                indices=share(len(split), processes),
                progress=_bar(processes, split.name),
                also=trimap.add if trimap else None,
            )
            seen = total(seen, processes)
            if trimap:
                trimaps[split.name] = total(trimap, processes)
            if not processes.leads:
                continue
            record = as_record(seen.scores(), split, seen)
            if trimap:
                record["trimap"] = trimaps[split.name].record()
            results.append(record)
            figures[metric_name(split)] = seen.scores().foreground_iou
            worst += [(value, split, index) for index, value in seen.own_ious().items()]
            print_line(split, seen, record, binary=model.contract.binary)
        if not processes.leads:
            return
        save_json(args, model.contract, results)
        if args.trimap:
            show_trimap(args.trimap, trimaps, results)
        if args.worst:
            write_worst(args.worst, answer, worst)
    if args.record and checkpoint:
        record_figures(checkpoint, figures)


def _bar(processes: Processes, title: str) -> Progress:
    """The first process's pictures; the others' are about as many."""
    return partial(bar, desc=title, unit="picture") if processes.leads else iter


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


# -- all strategies --------------------------------------------------------------------------------


def _grid(args: argparse.Namespace, splits: list[Split], processes: Processes) -> None:
    """Score the splits in all of the papers' ways, as :func:`_score` does in one."""
    from edge_deeplab.evaluation import check_classes
    from edge_deeplab.evaluation.strategies import PAPER_STRATEGIES

    path = _checkpoint(args)
    trained = _trained_stride(path)
    results: list[dict[str, Any]] = []
    head = (
        f"{'data':18} {'train OS':>8} {'eval OS':>7} {'MS':>3} {'flip':>4} {'mIoU':>7} {'multiply-adds':>14}"
    )
    if processes.leads:
        print(head)
    for stride in (args.output_stride,) if args.output_stride else (8, 16, 32):
        with open_from(args, path, output_stride=stride) as model:
            contract = model.contract
            for split in splits:
                check_classes(model.contract, split)
                rows = _rows(model, split, stride, processes)
                if not processes.leads:
                    continue
                for strategy, row in zip(PAPER_STRATEGIES, rows, strict=True):
                    results.append({"data": split.name, "train_os": trained, "eval_os": stride, **row})
                    yes = {True: "x", False: ""}
                    miou = math.nan if row["miou"] is None else row["miou"]
                    print(
                        f"{split.name:18} {trained:8d} {stride:7d} {yes[len(strategy.scales) > 1]:>3} "
                        f"{yes[strategy.flip]:>4} {miou:7.4f} "
                        f"{row['multiply_adds'] / 1e9:12.2f} B",
                        flush=True,
                    )
    if processes.leads:
        save_json(args, contract, results)


def _rows(model: Runtime, split: Split, stride: int, processes: Processes) -> list[dict[str, Any]]:
    from edge_deeplab.errors import needs
    from edge_deeplab.evaluation import figure
    from edge_deeplab.evaluation.shares import share, total
    from edge_deeplab.evaluation.strategies import PAPER_STRATEGIES, compare

    with needs("train"):
        from edge_deeplab.models.costs import multiply_adds
        from edge_deeplab.runtimes.on_torch import TorchRuntime
    if not isinstance(model, TorchRuntime):
        raise TypeError("a checkpoint opened as something else")
    found = compare(
        model.infer,
        model.contract,
        split,
        PAPER_STRATEGIES,
        indices=share(len(split), processes),
        progress=_bar(processes, f"{split.name} OS {stride}"),
    )
    found = [total(seen, processes) for seen in found]
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


COMMAND = Command("score a model on labelled pictures", _arguments, _run)
