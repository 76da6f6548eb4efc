"""One self-contained HTML page: plots, tables, conditions. No network, no script, light and dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from edge_deeplab.bench import plots, tables
from edge_deeplab.bench.plot_pareto import pareto
from edge_deeplab.bench.record import Result
from edge_deeplab.bench.tables import Rows

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --dim: #5b6670; --line: #dde2e6; --paper: #fff;
  --ours: #0b6fb8; --peer: #b9651a; --on: #fff; --pre: #5aa9c9; --inf: #0b5394; --post: #8c7ab8;
  --warn: #a33; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --dim: #9aa5ae; --line: #333b42;
  --paper: #14181b; --ours: #4da3e0; --peer: #e89b4c; --on: #14181b; --pre: #6fc0df; --inf: #3d85c6;
  --post: #a897d3; --warn: #e88; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 20px 60px; max-width: 1240px; background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 6px; }
h3 { font-size: 15px; margin: 18px 0 4px; }
p, .caption { color: var(--dim); margin: 2px 0 12px; max-width: 75ch; }
.caption { font-size: 13px; max-width: 100ch; }
.row { display: grid; grid-template-columns: 270px minmax(0, 1fr) 190px; gap: 12px; align-items: center; }
.row + .row { border-top: 1px solid var(--line); }
.name { overflow-wrap: anywhere; padding-left: 1.6em; text-indent: -1.6em; }
.axis .name { padding: 0; text-indent: 0; }
.name b, .names b { display: inline-block; min-width: 1.6em; text-indent: 0;
  color: var(--dim); font-weight: 600; }
.value { text-align: right; font-variant-numeric: tabular-nums; }
small { color: var(--dim); }
svg { display: block; overflow: visible; }
abbr { color: var(--warn); font-weight: 700; text-decoration: none; cursor: help; }
.axis { color: var(--dim); font-size: 13px; }
.grid { stroke: var(--line); } .tick { fill: var(--dim); font-size: 12px; }
.ours { fill: var(--ours); } .peer { fill: var(--peer); } .faint { opacity: .55; }
.ink { stroke: var(--ink); stroke-width: 1.5; } .ink-fill { fill: var(--ink); }
.ring { stroke: var(--paper); stroke-width: 2; }
.cut { fill: var(--paper); font-size: 20px; font-weight: 700; } .leader { stroke: var(--dim); }
.number { fill: var(--on); font-size: 11px; font-weight: 700; }
.frontier { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3; opacity: .7; }
.preprocess { fill: var(--pre); background: var(--pre); }
.inference { fill: var(--inf); background: var(--inf); }
.postprocess { fill: var(--post); background: var(--post); }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 6px; }
.swatch.ours { background: var(--ours); } .swatch.peer { background: var(--peer); }
.legend span { margin-right: 18px; white-space: nowrap; } .legend { margin: 6px 0; font-size: 13px; }
.pareto { display: grid; grid-template-columns: 34px minmax(0, 1fr); gap: 8px; }
.names { list-style: none; padding: 0; columns: 3 260px; font-size: 14px; }
.names li { break-inside: avoid; padding-left: 1.6em; text-indent: -1.6em; } .front { font-weight: 700; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 7px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
td:first-child, td:nth-child(2) { white-space: normal; } td:nth-child(2) { min-width: 104px; }
td:first-child { min-width: 150px; overflow-wrap: anywhere; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
th { color: var(--dim); font-weight: 600; }
dl { display: grid; grid-template-columns: 160px minmax(0, 1fr); gap: 4px 14px; font-size: 14px; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.doubts { border-left: 3px solid var(--warn); padding-left: 14px; list-style: none; font-size: 14px; }
@media (max-width: 760px) { body { padding: 14px 12px 40px; }
  .row { grid-template-columns: minmax(0, 1fr) auto; gap: 0 10px; padding: 6px 0; }
  .plot { grid-column: 1 / 3; grid-row: 2; } .axis .name { grid-row: 3; } .axis .plot { grid-row: 2; }
  dl { grid-template-columns: 1fr; } dt { margin-top: 6px; } }
"""


def page(results: Sequence[Result]) -> str:
    """The report of one or several results; several are compared device by device."""
    title = "edge-deeplab bench: " + "; ".join(plots.device_name(r) for r in results)
    body = "".join(_section(r, several=len(results) > 1) for r in results)
    fps = plots.fps_bars(results)
    devices = (
        _titled(
            "Frames a second by device",
            "1000 / mean pipeline in ms; offline: frames / seconds; stream: masks delivered a second. "
            "A dash: the tool there times inference alone.",
            fps,
        )
        if fps
        else ""
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>"
        f"<h1>edge-deeplab bench</h1>{body}{devices}</body></html>\n"
    )


def _section(result: Result, *, several: bool) -> str:
    sets = list(dict.fromkeys(a.data for e in tables.measured(result) for a in e.accuracy))
    doubts = tables.doubts(result)
    first = tables.measured(result)
    stage = tables.headline_stage(first[0]) if first else "pipeline"
    head = "h2" if several else "p"
    frame = f"frames of {result.frame[1]}x{result.frame[0]}"
    parts = [
        f"<{head}>{escape(plots.device_name(result))}</{head}>",
        f"<p>Scenario {result.plan.scenario}, {frame}, {escape(result.created)}</p>",
        _titled("Figures", _definition(result), _table(tables.speed(result))),
    ]
    if doubts:
        listed = "".join(f"<li>{escape(text)}</li>" for text in doubts)
        parts.append(
            _titled("Marked", "Reasons to trust these figures less.", f'<ul class="doubts">{listed}</ul>')
        )
    sides = (
        '<div class="legend"><span><i class="swatch ours"></i>edge-deeplab</span>'
        '<span><i class="swatch peer"></i>others</span></div>'
        if any(e.peer for e in first)
        else ""
    )
    parts.append(
        _titled(
            f"Latency: {stage}",
            "Histogram of all timed queries on a logarithmic axis; below it p50 (dot), p90 and p99 (ticks). "
            "Dots in the histogram are the queries beyond p99.",
            sides + plots.latency(result),
        )
    )
    bars = plots.stage_bars(result)
    if bars:
        parts.append(
            _titled(
                "Stages",
                "Mean milliseconds a frame; the three add up. A bar with » is longer than drawn.",
                bars,
            )
        )
    parts += [_titled(f"Accuracy against speed: {name}", "", sides + pareto(result, name)) for name in sets]
    parts.append(_titled("All stages and memory", "Medians.", _table(tables.stages(result))))
    scored = tables.accuracy(result)
    if len(scored) > 1:
        parts.append(_titled("Accuracy", "", _table(scored)))
    facts = "".join(
        f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in tables.circumstances(result)
    )
    parts.append(_titled("Conditions", "", f"<dl>{facts}</dl>"))
    return "".join(parts)


def _definition(result: Result) -> str:
    words = {
        "single": "Pipeline: a frame in memory to its mask at the frame's size. FPS = 1000 / mean pipeline.",
        "stream": "Latency: from capture to mask, the newest frame wins. FPS = masks delivered a second.",
        "offline": "Batch: all frames of a batch to their masks. FPS = frames / seconds.",
    }
    return words[result.plan.scenario]


def _titled(title: str, caption: str, content: str) -> str:
    words = f'<div class="caption">{escape(caption)}</div>' if caption else ""
    return f"<section><h2>{escape(title)}</h2>{words}{content}</section>"


def _table(rows: Rows) -> str:
    head = "".join(f"<th>{_breakable(cell)}</th>" for cell in rows[0])
    body = "".join(
        f"<tr><td>{_breakable(name)}</td>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>"
        for name, *row in rows[1:]
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _breakable(title: str) -> str:
    """A long name, e.g. of a file or a data set, may break between its parts; figures may not."""
    return re.sub(r"(?<=[A-Za-z])([/_-])|(?<=[A-Za-z0-9])(\.)(?=[A-Za-z])", r"\1\2<wbr>", escape(title))
