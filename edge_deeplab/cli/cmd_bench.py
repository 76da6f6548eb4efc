"""``edge-deeplab bench MODEL…``, ``bench compare A.json B.json``, ``bench report A.json… --output DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edge_deeplab.cli import Command
from edge_deeplab.cli.bench_options import arguments, refuse_without_effect

if TYPE_CHECKING:
    from edge_deeplab.bench.record import Plan, Result

MLPERF = {"min_queries": 1024, "min_seconds": 60.0, "rounds": 60}


def _run(args: argparse.Namespace) -> int:
    refuse_without_effect(args, args.left.settle(args))
    first = args.models[0] if args.models else ""
    action: Callable[[argparse.Namespace], int] = {"compare": _compare, "report": _report}.get(
        first, _measure
    )
    return action(args)


def _measure(args: argparse.Namespace) -> int:
    from pathlib import Path

    import edge_deeplab
    from edge_deeplab.bench import Job, open_device
    from edge_deeplab.bench.frames import frames_from
    from edge_deeplab.bench.lineup import Variants, lineup
    from edge_deeplab.bench.tables import text_report
    from edge_deeplab.cli.arguments import PhaseBar
    from edge_deeplab.errors import UserError

    if not args.models and not args.peer:
        raise UserError("nothing to measure: name a model (portrait), a file, a folder or a --peer")
    _writable(args)
    device = open_device(args.device)
    device.configure(args)
    variants = Variants(args.threads, args.size, args.provider, args.torch, args.torch_device)
    contenders = lineup(args.models, args.peer, variants)
    splits = _splits(args)
    sample = Path(edge_deeplab.__file__).parent / "export" / "sample.jpg"
    frames = frames_from(Path(args.frames) if args.frames else sample, *args.frame)
    with PhaseBar() as report:
        result = device.measure(Job(contenders, _plan(args), frames, args.cpus), report)
    if splits:
        from edge_deeplab.bench.accuracy import with_accuracy
        from edge_deeplab.cli.arguments import bar

        _write(args, [result])  # who stops the scoring keeps the timing
        result = with_accuracy(
            result, contenders, splits, lambda items, *, text: bar(items, desc=text, unit="picture")
        )
    written = _write(args, [result])  # first: the reader of a pipe may leave early
    print(text_report(result) + written)
    return 0


def _plan(args: argparse.Namespace) -> Plan:
    from edge_deeplab.bench import Plan

    lengths: dict[str, Any] = dict(MLPERF) if args.mlperf else {}
    for name in ("min_queries", "min_seconds", "rounds"):
        if getattr(args, name) is not None:
            lengths[name] = getattr(args, name)
    return Plan(scenario=args.scenario, loads=args.loads, fps=args.fps, batch=args.batch, **lengths)


def _splits(args: argparse.Namespace) -> list[Any]:
    if not args.data:
        return []
    import dataclasses

    from edge_deeplab.data import open_splits

    opened = open_splits(args.data, args.split)
    return [dataclasses.replace(split, pairs=split.pairs[: args.data_limit]) for split in opened]


def _compare(args: argparse.Namespace) -> int:
    from edge_deeplab.bench.compare import compare
    from edge_deeplab.bench.record import Result
    from edge_deeplab.bench.tables import as_text, comparison
    from edge_deeplab.errors import UserError

    if len(args.models) != 3:
        raise UserError("compare takes two results: edge-deeplab bench compare A.json B.json")
    if args.output or args.json:
        raise UserError("compare prints and writes nothing; leave --output and --json out")
    before, after = (Result.load(path) for path in args.models[1:])
    found = compare(before, after, limit=0.05 if args.fail_above is None else args.fail_above)
    print(as_text(comparison(found)))
    print(f"\nlimit {found.limit:.1%}; intervals hold the noise within each run and between its thirds")
    for text in found.differences:
        print(f"- {text}")
    for line in found.lines:
        for note in line.notes:
            print(f"- {line.name}: {note}")
    for text in found.lost:
        print(f"- B has no figures for {text}")
    for name in found.added:
        print(f"- only B has {name}")
    if any(line.verdict == "undecided" for line in found.lines):
        print("- undecided: the interval crosses the limit; measure longer or on a quieter machine")
    return 1 if found.failed and args.fail_above is not None else 0


def _report(args: argparse.Namespace) -> int:
    from edge_deeplab.bench.record import Result
    from edge_deeplab.bench.tables import text_report
    from edge_deeplab.errors import UserError

    if len(args.models) < 2:
        raise UserError("report takes results: edge-deeplab bench report A.json... --output DIR")
    if args.json:
        raise UserError("report reads JSON and writes none; leave --json out")
    _writable(args)
    results = [Result.load(path) for path in args.models[1:]]
    written = _write(args, results)
    print("\n\n".join(text_report(result) for result in results) + written)
    return 0


# -- where to --------------------------------------------------------------------------------------


def _writable(args: argparse.Namespace) -> None:
    """Said before a minute of measuring, not after."""
    from pathlib import Path

    from edge_deeplab.errors import UserError
    from edge_deeplab.files import check_writable

    if args.output and Path(args.output).exists() and not Path(args.output).is_dir():
        raise UserError(f"--output {args.output} is a file; give a folder")
    if args.json and Path(args.json).is_dir():
        raise UserError(f"--json {args.json} is a folder; give a file name")
    if args.json:
        check_writable(args.json)
    if args.output:
        check_writable(Path(args.output) / "bench.html")


def _write(args: argparse.Namespace, results: Sequence[Result]) -> str:
    """Write what was asked for; returns a line that says so."""
    from pathlib import Path

    from edge_deeplab.bench.page import page
    from edge_deeplab.bench.tables import markdown_report
    from edge_deeplab.files import write_text

    if args.json:
        results[0].save(args.json)
    if args.output:
        folder = Path(args.output)
        if len(results) == 1:
            results[0].save(folder / "bench.json")
        write_text(folder / "bench.md", "\n".join(markdown_report(result) for result in results))
        write_text(folder / "bench.html", page(results))
        return f"\n\nwritten to {folder}: {'bench.json, ' * (len(results) == 1)}bench.md, bench.html"
    return f"\n\nwritten: {args.json}" if args.json else ""


COMMAND = Command("measure latency, accuracy and memory under stated conditions", arguments, _run)
