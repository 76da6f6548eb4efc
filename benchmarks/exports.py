"""Every CPU artefact of our models beside PyTorch and six published models: one table, one run.

Exports targets x precisions x heads, each by the command a user types and in a process of its own (seconds
and peak memory are that process's), scores every artefact on labelled pictures, then times all of them,
PyTorch and the peers in turns, with 1 and 2 threads, on real webcam frames of 640x480.

A MODEL is a shipped name, a checkpoint, or ``random:VARIANT``: 21 classes at 513x513 with weights that were
never trained but for ``--init``, since time does not depend on them. Accuracy of such a network is no more
than the share of labels it has in common with PyTorch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from export_grid import ALL_HEADS, EXPORTS, HEADS, Export, Model, cases, export, models
from export_tables import Table, markdown, tables
from measuring import SHARED, bar, exit_status, machine, shared_folder, warn_if_busy

from edge_deeplab.bench import Job, open_device
from edge_deeplab.bench.accuracy import with_accuracy
from edge_deeplab.bench.frames import frames_from
from edge_deeplab.bench.lineup import Variants, lineup
from edge_deeplab.bench.peers import KNOWN
from edge_deeplab.bench.record import Contender, Plan, Result
from edge_deeplab.bench.tables import as_text, circumstances
from edge_deeplab.bench.typed import to_plain
from edge_deeplab.cli.arguments import PhaseBar, positive
from edge_deeplab.data import Split, open_split
from edge_deeplab.files import write_text

THREADS = (1, 2)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("models", nargs="*", default=["portrait", "random:v3plus"], metavar="MODEL")
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="DIR", help="peers, data and clips")
    parser.add_argument("--output", type=Path, default=Path("out/exports"), metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=list(EXPORTS), default=list(EXPORTS))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS, help=f"of {', '.join(ALL_HEADS)}")
    parser.add_argument("--init", type=Path, metavar="FILE", help="weights of random models, see training")
    parser.add_argument(
        "--packaged",
        action="store_true",
        help="shipped models with what comes with them, as without any pictures: to calibrate and to verify",
    )
    parser.add_argument("--pictures", type=positive, default=150, metavar="N", help="scored (default 150)")
    parser.add_argument("--reuse", action="store_true", help="take artefacts that lie in --output already")
    parser.add_argument("--export-only", action="store_true", help="export and score; time nothing")
    plan = Plan()
    parser.add_argument("--rounds", type=positive, default=plan.rounds, metavar="N")
    parser.add_argument("--queries", type=positive, default=plan.min_queries, metavar="N")
    parser.add_argument("--loads", type=positive, default=plan.loads, metavar="N")
    args = parser.parse_args(argv)
    return exit_status("exports", lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Export, score, time, and write the tables."""
    shared = shared_folder(args.shared)
    args.output.mkdir(parents=True, exist_ok=True)
    ours = list(models(args.models, shared, args.output, args.init))
    if args.packaged:
        ours = [dataclasses.replace(m, calibration="", data="") if m.shipped else m for m in ours]
    every = [(model, *case) for model in ours for case in cases(args.only, args.heads)]
    views = "" if args.packaged else str(shared / "data/eg/val/images")
    made = [
        export(model, name, head, args.output, pictures=args.pictures, views=views, reuse=args.reuse)
        for model, name, head in bar(every, desc="exporting", unit="artefact")
    ]
    result = None if args.export_only else time_all(args, shared, ours, made)
    found = tables(ours, made, result)
    write(args.output, made, result, found)
    print("\n\n".join(f"{table.title}\n{as_text(table.rows)}" for table in found))
    print(f"\nwritten to {args.output}: exports.md, exports.json" + ", bench.json" * (result is not None))


def time_all(args: argparse.Namespace, shared: Path, ours: list[Model], made: list[Export]) -> Result:
    """One interleaved run of everything; peers are scored where our models are."""
    warn_if_busy()
    contenders = lineup_of(ours, made) + lineup(
        [], [str(shared / "peers" / file) for file in KNOWN], Variants(threads=THREADS)
    )
    plan = Plan(min_queries=args.queries, min_seconds=0.1, rounds=args.rounds, loads=args.loads)
    frames = frames_from(shared / "video", 480, 640)
    with PhaseBar() as report:
        result = open_device("local").measure(Job(contenders, plan, frames), report)
    portraits = {m.data for m in ours if m.data.startswith("folder:")}
    splits = [some(open_split(spec, "val"), args.pictures) for spec in sorted(portraits)]
    peers = [k for k, one in enumerate(contenders) if one.peer is not None]
    part = result.replace(entries=tuple(result.entries[k] for k in peers))
    scored = with_accuracy(
        part,
        [contenders[k] for k in peers],
        splits,
        lambda items, *, text: bar(items, desc=text, unit="picture"),
    )
    entries = list(result.entries)
    for k, entry in zip(peers, scored.entries, strict=True):
        entries[k] = entry
    return result.replace(entries=tuple(entries))


def lineup_of(ours: Sequence[Model], made: Sequence[Export]) -> tuple[Contender, ...]:
    """PyTorch and every artefact that was kept, with each number of threads."""
    found = []
    for model in ours:
        files = [("pytorch", model.checkpoint)]
        files += [(f"{e.name} {e.head}", e.path) for e in made if e.model == model.title and e.report]
        found += [
            Contender(f"{model.title}: {what}, {threads} thread{'s' * (threads > 1)}", str(path), threads)
            for what, path in files
            for threads in THREADS
        ]
    return tuple(found)


def some(split: Split, count: int) -> Split:
    """Evenly spread pictures, as exporting takes them."""
    places = np.linspace(0, len(split.pairs) - 1, min(count, len(split.pairs))).round().astype(int)
    return dataclasses.replace(split, pairs=tuple(split.pairs[place] for place in places))


def write(output: Path, made: Sequence[Export], result: Result | None, found: Sequence[Table]) -> None:
    """``exports.md`` for people, ``exports.json`` for programs, ``bench.json`` with every sample."""
    record: dict[str, Any] = {
        "machine": machine(),
        "tables": {table.title: [list(row) for row in table.rows] for table in found},
        "exports": [to_plain(dataclasses.replace(e, path=Path(e.path.name))) for e in made],
    }
    text = markdown(found)
    if result is not None:
        result.save(output / "bench.json")
        text += "\n" + "\n".join(f"- {what}: {value}" for what, value in circumstances(result)) + "\n"
    write_text(output / "exports.json", json.dumps(record, indent=1, default=str))
    write_text(output / "exports.md", text)


if __name__ == "__main__":
    sys.exit(main())
