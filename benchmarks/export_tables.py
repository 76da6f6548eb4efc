"""The tables of ``exports.py``, from the exports' own reports and one result of the harness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from export_grid import Export, Model

from edge_deeplab.bench.record import Entry, Ratio, Result
from edge_deeplab.bench.stats import Milliseconds, paired_ratio, split_turns
from edge_deeplab.bench.tables import NONE, Rows, as_markdown, figure, megabytes


@dataclass(frozen=True)
class Table:
    """A title and cells; the first row holds the titles of the columns."""

    title: str
    rows: Rows


def tables(ours: Sequence[Model], made: Sequence[Export], result: Result | None) -> list[Table]:
    """All of them; without a result those that need no times."""
    timed = {e.name: e for e in result.entries if e.error is None} if result else {}
    found = [Table(f"{m.title}: every artefact", list(_artefacts(m, made, timed))) for m in ours]
    if timed:
        found.append(Table("Peers", list(_peers(timed))))
        found.append(
            Table("INT8 beside the peers, 1 thread, whole pipeline", list(_beside(ours, made, timed)))
        )
        found.append(Table("INT8 against fp32, 1 thread, model alone", list(_faster(ours, made, timed))))
    found.append(Table("Exporting", list(_exporting(made))))
    return [table for table in found if len(table.rows) > 1]


def markdown(found: Sequence[Table]) -> str:
    """All tables in Markdown."""
    return "\n".join(f"## {table.title}\n\n{as_markdown(table.rows)}\n" for table in found)


def ratio(a: Entry, b: Entry, stage: str = "pipeline") -> Ratio:
    """Median over the rounds of a / b, with its bootstrap interval."""
    ours, theirs = _medians(a, stage), _medians(b, stage)
    pairs = min(len(ours), len(theirs))
    return paired_ratio(ours[:pairs], theirs[:pairs])


def _medians(entry: Entry, stage: str) -> Milliseconds:
    return np.array([np.median(turn) for turn in split_turns(entry.samples[stage], entry.turns)])


def named(model: str, what: str, threads: int = 1) -> str:
    """Name of a contender."""
    return f"{model}: {what}, {threads} thread{'s' * (threads > 1)}"


TIMES = ["load ms", "model ms", "pipeline ms", "model ms, 2 threads", "pipeline ms, 2 threads"]


def _times(timed: dict[str, Entry], name: str) -> list[str]:
    one, two = (timed.get(f"{name}, {n} thread{'s' * (n > 1)}") for n in (1, 2))
    cells = [_p50(one, "load")]
    return cells + [_p50(entry, stage) for entry in (one, two) for stage in ("inference", "pipeline")]


def _p50(entry: Entry | None, stage: str) -> str:
    return figure(entry.stages[stage].p50) if entry and stage in entry.stages else NONE


def _artefacts(model: Model, made: Sequence[Export], timed: dict[str, Entry]) -> Iterator[list[str]]:
    yield ["target, precision", "head", "MB", *TIMES, "IoU", "labels as PyTorch's", "in float", "verdict"]
    own = [e for e in made if e.model == model.title]
    reports = [e.report for e in own if e.report]
    iou = next((r["iou_reference"] for r in reports if r["head"] == "logits"), None)
    size = model.checkpoint.stat().st_size
    yield ["PyTorch fp32", "logits", megabytes(size), *_times(timed, f"{model.title}: pytorch"),
           figure(iou, 4), NONE, NONE, NONE]  # fmt: skip
    for e in own:
        if e.report is None:
            yield [e.name, e.head, *[NONE] * (len(TIMES) + 4), "refused"]
            continue
        kept = (e.report["quantization"] or {}).get("float_layers") or []
        verdict = "verified" if e.status == 0 else "failed" if model.trained else "not judged"
        yield [
            e.name,
            e.head,
            megabytes(e.report["bytes"]),
            *_times(timed, f"{model.title}: {e.name} {e.head}"),
            figure(e.report["iou_artefact"], 4),
            f"{e.report['agreement']:.2%}",
            f"{len(kept)} layers" if kept else NONE,
            verdict,
        ]


def _peers(timed: dict[str, Entry]) -> Iterator[list[str]]:
    yield ["peer", "MB", *TIMES, "IoU"]
    for entry in timed.values():
        if entry.peer and entry.threads == 1:
            yield [
                _bare(entry),
                megabytes(entry.bytes),
                *_times(timed, _bare(entry)),
                figure(_iou(entry), 4),
            ]


def _beside(ours: Sequence[Model], made: Sequence[Export], timed: dict[str, Entry]) -> Iterator[list[str]]:
    """How many times as long as each peer, and by how many points of IoU better."""
    peers = [e for e in timed.values() if e.peer and e.threads == 1]
    yield ["times the peer's (95 %), IoU above its", *map(_bare, peers)]
    portraits = {m.title for m in ours if m.data.startswith("folder:")}
    for e in made:
        entry = timed.get(named(e.model, f"{e.name} {e.head}"))
        if not entry or not e.report or e.model not in portraits:
            continue
        if e.head == "logits" and e.name.endswith("-int8"):
            cells = [f"{ratio(entry, p)}, {_points(e.report['iou_artefact'], _iou(p))}" for p in peers]
            yield [f"{e.model} {e.name}", *cells]


def _points(ours: float | None, theirs: float | None) -> str:
    return NONE if ours is None or theirs is None else f"{100 * (ours - theirs):+.2f}"


def _faster(ours: Sequence[Model], made: Sequence[Export], timed: dict[str, Entry]) -> Iterator[list[str]]:
    yield ["times as fast (95 %)", "head", "model alone", "whole pipeline"]
    for model in ours:
        for e in made:
            if e.model != model.title or not e.name.endswith("-int8"):
                continue
            target = e.name.partition("-")[0]
            int8 = timed.get(named(e.model, f"{e.name} {e.head}"))
            fp32 = timed.get(named(e.model, f"{target}-fp32 {e.head}"))
            if int8 and fp32:
                cells = [str(ratio(fp32, int8, stage)) for stage in ("inference", "pipeline")]
                yield [f"{e.model}, {target}", e.head, *cells]


def _exporting(made: Sequence[Export]) -> Iterator[list[str]]:
    yield ["export", "seconds", "peak MB"]
    for e in made:
        yield [f"{e.model} {e.name} {e.head}", figure(e.seconds, 1), f"{e.peak_mb:.0f}"]
    for title in dict.fromkeys(e.model for e in made):
        first = [e for e in made if e.model == title and e.head == "logits"]
        if first:
            seconds, peak = sum(e.seconds for e in first), max(e.peak_mb for e in first)
            yield [f"all {len(first)} of {title} with the default head", figure(seconds, 1), f"{peak:.0f}"]


def _bare(entry: Entry) -> str:
    """A peer's name without its number of threads."""
    return entry.name.rpartition(", ")[0]


def _iou(entry: Entry) -> float | None:
    return entry.accuracy[0].foreground_iou if entry.accuracy else None
