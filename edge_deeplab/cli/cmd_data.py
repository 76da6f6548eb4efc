"""``edge-deeplab data check SPEC`` and ``edge-deeplab data kinds``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import bar, positive

if TYPE_CHECKING:
    from edge_deeplab.data.check import Problem, Summary

SHOWN = 10
"""Problems of one sort that are printed; all of them are in the report."""

WORTH_PROCESSES = 500
"""Pairs from which a process a core is started unless told: starting one takes about a second."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = "read every pair of a data set: classes, pixels, damage, duplicates between splits"
    check = actions.add_parser("check", help=about, description=about)
    check.add_argument("data", metavar="SPEC", help="KIND:PATH, e.g. folder:data/eg")
    check.add_argument(
        "--split", nargs="+", default=["train", "val"], metavar="NAME", help="default: train val"
    )
    check.add_argument("--output", metavar="DIR", help="write a contact sheet of each split and report.json")
    check.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="processes (default: one a core, or one for fewer than 500 pairs)",
    )
    about = "the data set layouts that --data takes"
    actions.add_parser("kinds", help=about, description=about)


def _run(args: argparse.Namespace) -> int:
    return _kinds() if args.action == "kinds" else _check(args)


def _kinds() -> int:
    from edge_deeplab.data import kinds

    for name, kind in kinds().items():
        print(f"{name:20} {kind.help}\n{'':20} splits: {', '.join(kind.splits)}; licence: {kind.license}")
    return 0


def _check(args: argparse.Namespace) -> int:
    import json
    import os
    from functools import partial
    from pathlib import Path

    from edge_deeplab.data import open_split
    from edge_deeplab.data.check import Problem, check_split, duplicates
    from edge_deeplab.data.layout import gaps_listed
    from edge_deeplab.data.sheet import contact_sheet
    from edge_deeplab.files import check_writable, write_text
    from edge_deeplab.imaging import write_image

    names = list(dict.fromkeys(args.split))
    splits, gaps = [], []
    for name in names:  # all, before the long part begins
        with gaps_listed() as missing:
            splits.append(open_split(args.data, name))
        gaps.append(missing)
    if args.output:
        for name in ("report.json", *(f"{name}.png" for name in names)):
            check_writable(Path(args.output) / name)
    cores = os.cpu_count() or 1
    summaries = [
        check_split(
            split,
            workers=args.workers or (cores if len(split) >= WORTH_PROCESSES else 1),
            progress=partial(bar, desc=split.name, unit="pair"),
        )
        for split in splits
    ]
    for summary, missing in zip(summaries, gaps, strict=True):
        summary.problems[:0] = [Problem("unpaired", line) for line in missing]
    twins = [
        problem
        for place, summary in enumerate(summaries)
        for other in summaries[:place]
        for problem in duplicates(summary, other)
    ]
    for summary in summaries:
        _print_summary(summary)
    _print_classes(summaries)
    problems = [problem for summary in summaries for problem in summary.problems] + twins
    _print_problems(problems)
    if args.output:
        folder = Path(args.output)
        record = {
            "data": args.data,
            "splits": [summary.as_record() for summary in summaries],
            "duplicates": [problem.message for problem in twins],
        }
        write_text(folder / "report.json", json.dumps(record, indent=2, ensure_ascii=False))
        for name, split in zip(names, splits, strict=True):
            write_image(folder / f"{name}.png", contact_sheet(split))
        sheets = ", ".join(f"{name}.png" for name in names)
        print(f"\n{folder}: {sheets}, report.json")
    return 1 if problems else 0


def _print_summary(summary: Summary) -> None:
    sizes = sorted(summary.sizes, key=lambda size: (size[0] * size[1], size))
    span = (
        " to ".join("{}x{}".format(*size) for size in dict.fromkeys((sizes[0], sizes[-1]))) if sizes else "-"
    )
    read = sum(summary.sizes.values())
    print(f"{summary.split.name}: {len(summary.split)} pairs, {read} sound, {span}")
    notes = list(summary.split.notes)
    if summary.unlabelled:
        notes.append(f"{summary.unlabelled} pictures in which nothing counts")
    absent = [info.name for k, info in enumerate(summary.split.classes) if not summary.pixels[k]]
    if absent:
        more = f" and {len(absent) - 8} more" if len(absent) > 8 else ""
        notes.append(f"no pixel of {', '.join(absent[:8])}{more}")
    for note in notes:
        print(f"  note: {note}")


def _print_classes(summaries: list[Summary]) -> None:
    """Pixels, share of the pixels that count, and pictures per class, a group of columns a split."""
    from edge_deeplab.metrics import IGNORE

    titles = "".join(f"  {summary.split.name[-32:]:>32}" for summary in summaries)
    heads = f"  {'pixels':>14} {'share':>8} {'pictures':>8}" * len(summaries)
    print(f"\n{'':24}{titles}\n{'class':24}{heads}")
    classes = [(k, f"{k:3} {info.name}") for k, info in enumerate(summaries[0].split.classes)]
    for k, name in [*classes, (IGNORE, "    ignored")]:
        cells = ""
        for summary in summaries:
            counted = int(summary.pixels[:IGNORE].sum()) if k != IGNORE else int(summary.pixels.sum())
            share = f"{summary.pixels[k] / counted:8.2%}" if counted else f"{'-':>8}"
            cells += f"  {summary.pixels[k]:14,} {share} {summary.pictures[k]:8,}"
        print(f"{name:24.24}{cells}")


def _print_problems(problems: list[Problem]) -> None:
    titles = {
        "unpaired": "without their labels, or labels without their photo",
        "unreadable": "that cannot be read",
        "size": "with a photo and mask of different size",
        "id": "with label ids out of range",
        "duplicate": "with the same photo in two splits",
    }
    print()
    for what, title in titles.items():
        found = [problem for problem in problems if problem.what == what]
        if found:
            print(f"{len(found)} {title}:")
            for problem in found[:SHOWN]:
                print(f"  {problem.message}")
            if len(found) > SHOWN:
                print(f"  and {len(found) - SHOWN} more (--output DIR writes them all)")
    print(f"{len(problems)} problem{'s' * (len(problems) > 1)}" if problems else "no problems found")


COMMAND = Command("look at a data set: `data check SPEC`, `data kinds`", _arguments, _run)
