"""Accuracy against speed: one point a contender, and the line of those that nobody beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from edge_deeplab.bench.plots import LogAxis, numbered, side, svg
from edge_deeplab.bench.record import Entry, Result
from edge_deeplab.bench.tables import figure, headline_stage, measured

HEIGHT, TOP = 320, 14
RADIUS = 9
"""Of a point's number, in pixels."""

NARROW = 320.0
"""Width in pixels at which numbers must not lie on each other: a telephone's."""


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both time (lower) and quality (higher), by time."""
    order = sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1]))
    front: list[int] = []
    for k in order:
        if not front or points[k][1] > points[front[-1]][1]:
            front.append(k)
    return front


def pareto(result: Result, data: str) -> str:
    """Foreground IoU on one data set against p90, and the line of those that nobody beats."""
    numbers = numbered(result)
    shown = []
    for entry in measured(result):
        s, iou = entry.stages.get(headline_stage(entry)), _iou(entry, data)
        if s and iou is not None and (ms := s.p90 or s.p50):
            shown.append((entry, ms, iou))
    if not shown:
        return ""
    axis = LogAxis(min(ms for _, ms, _ in shown), max(ms for _, ms, _ in shown))
    y, ticks = _vertical([iou for *_, iou in shown])
    grid = "".join(f'<line class="grid" x1="0" x2="100%" y1="{y(v)}" y2="{y(v)}"/>' for v in ticks)
    scale = "".join(
        f'<text class="tick" x="100%" y="{y(v) + 4}" text-anchor="end">{v:.3g}</text>' for v in ticks
    )
    front = [shown[k] for k in pareto_front([(ms, iou) for _, ms, iou in shown])]
    body = axis.grid(HEIGHT) + grid + _steps([(axis.at(ms), y(iou)) for _, ms, iou in front])
    places = spread([(axis.at(ms) * NARROW / 100, y(iou)) for _, ms, iou in shown])
    points = list(zip(shown, [place for _, place in places], strict=True))
    body += "".join(_leader(entry, axis.at(ms), y(iou), place) for (entry, ms, iou), place in points)
    for (entry, ms, iou), place in points:  # numbers lie on top of everything
        words = f"{entry.name}: p90 {figure(ms)} ms, IoU {iou:.4f}"
        body += _number(numbers[entry.name], side(entry), axis.at(ms), place, words)
    on_front = {entry.name for entry, *_ in front}
    legend = "".join(
        f'<li class="{"front" if e.name in on_front else ""}"><b>{numbers[e.name]}</b> {escape(e.name)} '
        f"<small>{figure(ms)} ms, {iou:.4f}</small></li>"
        for e, ms, iou in shown
    )
    plot = svg(HEIGHT + 24, body + axis.labels(HEIGHT + 18), "IoU against p90")
    return (
        f'<div class="pareto">{svg(HEIGHT + 24, scale, "IoU")}{plot}</div>'
        f'<div class="caption">p90 in ms, logarithmic; IoU upwards; the line joins those that no other '
        f'beats in both (bold below)</div><ul class="names">{legend}</ul>'
    )


def _iou(entry: Entry, data: str) -> float | None:
    return next((a.foreground_iou for a in entry.accuracy if a.data == data), None)


# -- where things go -------------------------------------------------------------------------------


def _vertical(ious: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """IoU -> pixels from the top, and where lines are drawn."""
    low, high = min(ious), max(ious)
    room = max(0.004, (high - low) * 0.12)
    low, high = max(0.0, low - room), min(1.0, high + room)

    def y(iou: float) -> float:
        return round(TOP + (HEIGHT - TOP) * (high - iou) / (high - low), 1)

    step = next(s for s in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 8)
    return y, [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def spread(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places for the points' numbers: their own, or as little above or below as keeps them apart.

    Args:
        points: (x, y) in pixels.

    Returns:
        (x, y) of every number, no two within two radii of each other.
    """
    placed: list[tuple[float, float]] = []
    for x, y in points:
        steps = [sign * k * 2.2 * RADIUS for k in range(len(points) + 1) for sign in (1, -1)]
        # Numbers stay on the plot; there is always room, since a column holds about fifteen.
        free = (
            (x, y + step)
            for step in steps
            if RADIUS <= y + step <= HEIGHT - RADIUS
            and all(math.hypot(x - u, y + step - v) >= 2 * RADIUS for u, v in placed)
        )
        placed.append(next(free, (x, y)))
    return placed


def _leader(entry: Entry, x: float, y: float, place: float) -> str:
    """A dot where the point is, and a line to its number where that had to give way."""
    if abs(place - y) <= 1:
        return ""
    return (
        f'<line class="leader" x1="{x}%" x2="{x}%" y1="{y}" y2="{place:.1f}"/>'
        f'<circle class="{side(entry)} ring" cx="{x}%" cy="{y}" r="4.5"/>'
    )


def _number(number: int, whose: str, x: float, y: float, words: str) -> str:
    return (
        f'<g><title>{escape(words)}</title><circle class="{whose} ring" cx="{x}%" cy="{y:.1f}" r="{RADIUS}"/>'
        f'<text class="number" x="{x}%" y="{y + 4:.1f}" text-anchor="middle">{number}</text></g>'
    )


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """From each point to the right, then up to the next: what can be had within a time."""
    lines = []
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], (100.0, points[-1][1])], strict=True):
        lines.append(f'<line class="frontier" x1="{x0}%" x2="{x1}%" y1="{y0}" y2="{y0}"/>')
        lines.append(f'<line class="frontier" x1="{x1}%" x2="{x1}%" y1="{y0}" y2="{y1}"/>')
    return "".join(lines)
