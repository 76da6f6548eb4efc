"""The plots of the HTML page, as inline SVG and HTML that stay sharp at any width.

Horizontal positions are per cent of the plot's width and sizes of text are pixels, so nothing shrinks in
a narrow window. Each contender keeps its number in all plots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import median

import numpy as np

from edge_deeplab.bench.record import Entry, Result, Summary
from edge_deeplab.bench.stats import Milliseconds
from edge_deeplab.bench.tables import figure, headline_stage, measured

BINS = 90
ROW = 46
"""Height of a row of the latency plot in pixels."""

PIPELINE = ("preprocess", "inference", "postprocess")


def numbered(result: Result) -> dict[str, int]:
    """Contender -> number, from 1, in the order of the job."""
    return {entry.name: k for k, entry in enumerate(result.entries, 1)}


# -- axes ----------------------------------------------------------------------------------------


class LogAxis:
    """A logarithmic axis; positions are per cent of the plot's width.

    Args:
        low, high: The values to be shown, in milliseconds; a little room is left on both sides.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = math.log10(low * 0.9), math.log10(high * 1.12)

    def at(self, value: float) -> float:
        """Per cent."""
        return round(100 * (math.log10(value) - self.low) / (self.high - self.low), 3)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of every decade; whole decades only where there are many."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        steps = (1, 2, 5) if self.high - self.low < 2.2 else (1, 3)
        found = [step * 10.0**d for d in decades for step in steps]
        return [v for v in found if self.low <= math.log10(v) <= self.high]

    def grid(self, height: int) -> str:
        """Vertical lines."""
        return "".join(
            f'<line class="grid" x1="{self.at(v)}%" x2="{self.at(v)}%" y1="0" y2="{height}"/>'
            for v in self.ticks()
        )

    def labels(self, y: int) -> str:
        """Their values."""
        return "".join(
            f'<text class="tick" x="{self.at(v)}%" y="{y}" text-anchor="middle">{v:g}</text>'
            for v in self.ticks()
        )


def _row(number: int, entry: Entry, plot: str, value: str) -> str:
    mark = f' <abbr title="{escape("; ".join(m.text for m in entry.marks))}">!</abbr>' if entry.marks else ""
    return (
        f'<div class="row"><div class="name"><b>{number}</b> {escape(entry.name)}{mark}</div>'
        f'<div class="plot">{plot}</div><div class="value">{value}</div></div>'
    )


def svg(height: int, body: str, label: str) -> str:
    """A plot as wide as there is room."""
    return f'<svg width="100%" height="{height}" role="img" aria-label="{escape(label)}">{body}</svg>'


def side(entry: Entry) -> str:
    """Ours or a peer's: the class that tells the colour."""
    return "peer" if entry.peer else "ours"


# -- latency -------------------------------------------------------------------------------------


def latency(result: Result) -> str:
    """How the queries of every contender are distributed, with p50, p90 and p99."""
    numbers = numbered(result)
    shown = [(e, e.stages[headline_stage(e)]) for e in measured(result) if headline_stage(e) in e.stages]
    values = [v for _, s in shown for v in (s.minimum, s.p50, s.p90, s.p99, s.maximum) if v]
    if not values:
        return ""
    axis = LogAxis(min(values), max(values))
    rows = []
    for entry, s in shown:
        samples = np.asarray(entry.samples.get(headline_stage(entry), ()))
        body = axis.grid(ROW) + _silhouette(samples, axis, side(entry)) + _quantiles(s, axis)
        text = f"{figure(s.p50)} <small>/ {figure(s.p90)} / {figure(s.p99)}</small>"
        label = f"{entry.name}: p50 {figure(s.p50)}, p90 {figure(s.p90)}, p99 {figure(s.p99)} ms"
        rows.append(_row(numbers[entry.name], entry, svg(ROW, body, label), text))
    foot = f'<div class="row axis"><div class="name">ms, logarithmic</div><div class="plot">{svg(18, axis.labels(13), "axis")}</div><div class="value">p50 <small>/ p90 / p99</small></div></div>'  # noqa: E501
    return "".join(rows) + foot


def _silhouette(samples: Milliseconds, axis: LogAxis, whose: str) -> str:
    """A histogram over the logarithm, and every query beyond p99 as a dot."""
    if not len(samples):
        return ""
    edges = np.logspace(axis.low, axis.high, BINS + 1)
    counts, _ = np.histogram(samples, edges)
    width, top = 100 / BINS, ROW - 14
    bars = "".join(
        f'<rect class="{whose}" x="{k * width:.2f}%" width="{width:.2f}%" '
        f'y="{top - top * count / counts.max():.1f}" height="{top * count / counts.max():.1f}"/>'
        for k, count in enumerate(counts)
        if count
    )
    far = np.sort(samples[samples > np.percentile(samples, 99)])[-40:]
    dots = "".join(
        f'<circle class="{whose} faint" cx="{axis.at(float(v))}%" cy="{top - 4}" r="2"/>' for v in far
    )
    return bars + dots


def _quantiles(s: Summary, axis: LogAxis) -> str:
    base = ROW - 7
    parts = []
    if s.p50 and s.p99:
        parts.append(
            f'<line class="ink" x1="{axis.at(s.p50)}%" x2="{axis.at(s.p99)}%" y1="{base}" y2="{base}"/>'
        )
    for value, name, half in ((s.p90, "p90", 5), (s.p99, "p99", 3)):
        if value:
            x = axis.at(value)
            parts.append(
                f'<line class="ink" x1="{x}%" x2="{x}%" y1="{base - half}" y2="{base + half}">'
                f"<title>{name} {figure(value)} ms</title></line>"
            )
    if s.p50:
        parts.append(
            f'<circle class="ink-fill" cx="{axis.at(s.p50)}%" cy="{base}" r="4">'
            f"<title>p50 {figure(s.p50)} ms</title></circle>"
        )
    return "".join(parts)


# -- stages --------------------------------------------------------------------------------------


LONGEST = 4.0
"""A bar of the stages may be this many times the median one; longer ones are cut, or nothing else shows."""


def stage_bars(result: Result) -> str:
    """Mean time of preprocessing, inference and postprocessing, one bar a contender."""
    numbers = numbered(result)
    shown = [e for e in measured(result) if any(name in e.stages for name in PIPELINE)]
    totals = {e.name: sum(_mean(e, name) for name in PIPELINE) for e in shown}
    if not shown:
        return ""
    usual = LONGEST * median(totals.values())
    most = max(total for total in totals.values() if total <= usual)
    rows = []
    for entry in shown:
        parts, x = [], 0.0
        for name in PIPELINE:
            width = min(100 * _mean(entry, name) / most, 100 - x)
            parts.append(
                f'<rect class="{name}" x="{x:.3f}%" width="{max(0.0, width):.3f}%" y="5" height="20">'
                f"<title>{name} {figure(_mean(entry, name))} ms</title></rect>"
            )
            x += width
        if totals[entry.name] > most:
            parts.append('<text class="cut" x="99%" y="20" text-anchor="end">»</text>')
        text = (
            f"{figure(totals[entry.name])} "
            f"<small>{' + '.join(figure(_mean(entry, name)) for name in PIPELINE)}</small>"
        )
        rows.append(_row(numbers[entry.name], entry, svg(30, "".join(parts), entry.name), text))
    legend = "".join(f'<span><i class="swatch {name}"></i>{name}</span>' for name in PIPELINE)
    return f'<div class="legend">{legend}</div>' + "".join(rows)


def _mean(entry: Entry, stage: str) -> float:
    s = entry.stages.get(stage)
    return (s.mean or 0.0) if s else 0.0


# -- frames a second -------------------------------------------------------------------------------


def fps_bars(results: Sequence[Result]) -> str:
    """Frames a second of every contender, device by device, on one scale."""
    most = max((e.fps or 0.0 for r in results for e in measured(r)), default=0.0)
    if not most:
        return ""
    parts = []
    for result in results:
        numbers = numbered(result)
        parts.append(f"<h3>{escape(device_name(result))}</h3>")
        for entry in measured(result):
            if entry.fps is None:
                parts.append(_row(numbers[entry.name], entry, "", "–"))
                continue
            bar = (
                f'<rect class="{side(entry)}" x="0" width="{100 * entry.fps / most:.3f}%" y="5" height="18" '
                f'rx="2"><title>{figure(entry.fps, 1)} frames a second</title></rect>'
            )
            plot = svg(28, bar, f"{entry.name}: {figure(entry.fps, 1)} FPS")
            parts.append(_row(numbers[entry.name], entry, plot, figure(entry.fps, 1)))
    return "".join(parts)


def device_name(result: Result) -> str:
    """What to call a device in a heading."""
    m = result.machine
    name = m.board or m.soc or m.cpu or "unknown machine"
    cpu = f", {m.cpu}" if m.cpu and m.cpu != name else ""
    return f"{name}{cpu} ({m.device})"
