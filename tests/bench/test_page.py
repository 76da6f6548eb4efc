"""The reports: every figure is there, everything from outside is escaped, nothing is fetched."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from edge_deeplab.bench import plots, tables
from edge_deeplab.bench.page import page
from edge_deeplab.bench.plot_pareto import RADIUS, pareto_front, spread
from edge_deeplab.bench.record import Entry, Machine, Result, Stream, Summary
from tests.bench.conftest import make_entry, make_result

VOID = {"meta", "line", "rect", "circle", "br"}


class Reader(HTMLParser):
    """Collects text and attributes; complains about tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID or tag in ("line", "circle", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text.replace("<!doctype html>", "").replace("<wbr>", ""))
    assert reader.open == []
    return reader


def cells(result: Result) -> set[str]:
    rows = [cell for table in tables.tables(result) for row in table for cell in row]
    return {*rows, *(value for _, value in tables.circumstances(result)), *tables.doubts(result)}


def test_the_page_holds_every_figure(result: Result) -> None:
    shown = set(read(page([result])).text)
    assert cells(result) <= shown
    for entry in tables.measured(result):
        s = entry.stages["pipeline"]
        for value in (s.p50, s.p90, s.p99, s.mean):
            assert any(f"{value:.2f}" in text for text in shown)
        assert any(f"{entry.fps:.1f}" == text for text in shown)


def test_markdown_and_text_hold_every_figure(result: Result) -> None:
    for report in (tables.markdown_report(result), tables.text_report(result)):
        for cell in cells(result):
            assert cell in report, cell


def test_nothing_is_fetched(result: Result) -> None:
    text = page([result])
    assert "http" not in text and "<script" not in text and "url(" not in text
    assert not {name for name, _ in read(text).attributes} & {"src", "href", "onload"}


def test_names_are_escaped(result: Result) -> None:
    text = page([result])
    assert "sinet & <320>" not in text
    assert html.escape("sinet & <320>") in text
    assert "sinet & <320>" in read(text).text


def test_marks_and_failures_are_shown(result: Result) -> None:
    text = page([result])
    assert "others took 7% of the cores meanwhile" in text
    assert "thirds lie 4.0% apart" in text
    assert "broken.onnx was not measured: it is damaged" in text
    rows = tables.speed(result)
    assert [row[-1] for row in rows] == ["marked", "yes", "yes"]


def test_several_devices_share_one_scale(result: Result) -> None:
    slow = make_result(
        make_entry("portrait.onnx", [[70.0] * 5] * 4), machine=Machine("ssh", "Jetson", cpu="6x Cortex-A78AE")
    )
    text = plots.fps_bars([result, slow])
    widths = [float(w) for w in re.findall(r'<rect class="\w+" x="0" width="([\d.]+)%"', text)]
    assert widths[0] == pytest.approx(100)
    assert widths[-1] == pytest.approx(100 * (1000 / 70) / (result.entries[0].fps or 0), rel=1e-3)
    assert "Jetson, 6x Cortex-A78AE (ssh)" in page([result, slow])


def test_stage_bars_add_up(result: Result) -> None:
    text = plots.stage_bars(result)
    bars = re.findall(r'class="(\w+)" x="([\d.]+)%" width="([\d.]+)%"', text)
    assert [name for name, *_ in bars] == list(plots.PIPELINE) * 2
    for k in (0, 3):
        ends = [float(x) + float(w) for _, x, w in bars[k : k + 3]]
        starts = [float(x) for _, x, _ in bars[k : k + 3]]
        assert starts == pytest.approx([0, *ends[:2]], abs=0.01)
    assert max(float(x) + float(w) for _, x, w in bars) == pytest.approx(100, abs=0.01)


def test_the_histogram_counts_every_query(result: Result) -> None:
    entry = result.entries[0]
    samples = np.array(entry.samples["pipeline"])
    axis = plots.LogAxis(samples.min(), samples.max())
    heights = [
        float(h)
        for h in re.findall(r'<rect[^>]* height="([\d.]+)"', plots._silhouette(samples, axis, "ours"))
    ]
    counts, _ = np.histogram(samples, np.logspace(axis.low, axis.high, plots.BINS + 1))
    assert counts.sum() == len(samples)
    assert np.array(heights) / max(heights) == pytest.approx(counts[counts > 0] / counts.max(), abs=0.01)


def test_axis() -> None:
    axis = plots.LogAxis(1, 100)
    assert 0 < axis.at(1) < axis.at(10) < axis.at(100) < 100
    assert axis.at(10) - axis.at(1) == pytest.approx(axis.at(100) - axis.at(10), abs=0.01)
    assert {1.0, 10.0, 100.0} <= set(axis.ticks())


def test_pareto_front_against_brute_force(rng: np.random.Generator) -> None:
    points = [(float(t), float(q)) for t, q in rng.integers(0, 12, (40, 2))]

    def beaten(p: tuple[float, float]) -> bool:
        return any(o != p and o[0] <= p[0] and o[1] >= p[1] for o in points)

    front = [points[k] for k in pareto_front(points)]
    assert set(front) == {p for p in points if not beaten(p)}
    assert front == sorted(front)


def test_numbers_of_points_do_not_lie_on_each_other(rng: np.random.Generator) -> None:
    alike = [(100.0, 60.0)] * 6
    points = [*alike, *((float(x), float(y)) for x, y in rng.uniform((0, 10), (320, 300), (20, 2)))]
    placed = spread(points)
    assert [x for x, _ in placed] == [x for x, _ in points]
    assert placed[0] == points[0]
    gaps = [np.hypot(a[0] - b[0], a[1] - b[1]) for k, a in enumerate(placed) for b in placed[:k]]
    assert min(gaps) >= 2 * RADIUS


def test_a_bar_that_would_hide_the_others_is_cut() -> None:
    fast = [make_entry(f"m{k}", [[8.0] * 5] * 4) for k in range(3)]
    slow = make_entry("slow", [[300.0] * 5] * 4)
    text = plots.stage_bars(make_result(*fast, slow))
    ends = [float(x) + float(w) for x, w in re.findall(r'x="([\d.]+)%" width="([\d.]+)%"', text)]
    assert max(ends) <= 100.001
    assert ends[2] == pytest.approx(100, abs=0.1)
    assert text.count("»") == 1


def test_a_tool_that_knows_inference_alone() -> None:
    """As benchmark_model on a phone: a summary, no pipeline, no memory, no FPS."""
    entry = Entry(
        "portrait.tflite",
        "portrait",
        "TFLite",
        "portrait.tflite",
        stages={"inference": Summary(50, 12.5, 0.4, 11.9, 14.0, 12.4)},
        headline="inference p50",
    )
    result = make_result(entry, machine=Machine("adb", "Pixel"))
    assert cells(result) <= set(read(page([result])).text)
    assert "12.40" in tables.text_report(result)


def test_a_stream_shows_its_frames() -> None:
    entry = make_entry("m", [[7.0] * 5] * 4, stream=Stream(30, 40, 20, 1, 19), headline="pipeline p90")
    rows = tables.speed(make_result(entry))
    shown = dict(zip(rows[0], rows[1], strict=True))
    assert (shown["met"], shown["late"], shown["dropped"]) == ("20", "1", "19")


def test_tables_line_up() -> None:
    rows = [["model", "ms"], ["portrait", "7.1"], ["x", "120.0"]]
    assert tables.as_text(rows) == "model        ms\nportrait    7.1\nx         120.0"
    assert tables.as_markdown(rows) == "| model | ms |\n| --- | ---: |\n| portrait | 7.1 |\n| x | 120.0 |"
