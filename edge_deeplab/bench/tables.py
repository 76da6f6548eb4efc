"""Results and comparisons as rows, for terminals, Markdown and the HTML page alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge_deeplab.bench.compare import Comparison
from edge_deeplab.bench.noise import held_back
from edge_deeplab.bench.record import Conditions, Entry, Machine, Result, Snapshot, Summary

Rows = Sequence[Sequence[str]]
"""Cells; the first row holds the titles, the first column the names."""

FPS = {"single": "FPS = 1/mean", "stream": "masks/s", "offline": "frames/s"}

NONE = "–"
"""Not measured."""


def as_text(rows: Rows) -> str:
    """The table for a terminal: names to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{c:<{w}}" if k == 0 else f"{c:>{w}}" for k, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_markdown(rows: Rows) -> str:
    """The same table in Markdown."""
    ruler = ["---", *("---:" for _ in rows[0][1:])]
    lines = (rows[0], ruler, *rows[1:])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


# -- one result ----------------------------------------------------------------------------------


def headline_stage(entry: Entry) -> str:
    """The stage that the headline names; ``batch`` for throughput."""
    stage = entry.headline.split()[0]
    return "batch" if stage == "throughput" else stage


def speed(result: Result) -> Rows:
    """One row a contender: the headline stage, frames a second, the ratio to the first, IoU."""
    shown = measured(result)
    stage = headline_stage(shown[0]) if shown else "pipeline"
    sets = list(dict.fromkeys(a.data for e in shown for a in e.accuracy))
    stream = any(e.stream for e in shown)
    titles = ["model", "runs on", "input", "threads"]
    titles += [f"{stage} p50 ms", "p90 ms", "p99 ms", "mean ± sd ms", FPS[result.plan.scenario]]
    titles += ["times the first (95 %)"] + (["met", "late", "dropped"] if stream else [])
    titles += [f"IoU {name}" for name in sets] + ["marked"]
    first = next((e for e in shown if e.ratio is None), None)
    rows = [titles]
    for e in shown:
        s = e.stages.get(headline_stage(e), Summary(0))
        size = "x".join(map(str, e.input)) or NONE
        threads = NONE if e.threads is None else str(e.threads)
        row = [e.name, f"{e.runtime} {e.precision}".strip(), size, threads]
        row += [figure(v) for v in (s.p50, s.p90, s.p99)]
        row += [f"{figure(s.mean)} ± {figure(s.std)}", figure(e.fps, 1)]
        row.append("1" if e is first else str(e.ratio) if e.ratio else NONE)
        if stream:
            row += [str(getattr(e.stream, k)) if e.stream else NONE for k in ("met", "late", "dropped")]
        found = {a.data: a.foreground_iou for a in e.accuracy}
        row += [figure(found.get(name), 4) for name in sets]
        rows.append([*row, "yes" if e.marks or result.marks else NONE])
    return rows


def stages(result: Result) -> Rows:
    """Median of every stage, file size and memory."""
    shown = measured(result)
    known = [s for e in shown for s in e.stages]
    order = ["import", "load", "first", "preprocess", "inference", "device", "postprocess", "pipeline"]
    order += ["latency", "batch"]
    names = [name for name in order if name in known] + sorted(set(known) - set(order))
    energy = any(e.energy is not None for e in shown)
    titles = ["p50 ms", *names, "warm-up queries", "queries", "file MB", "loaded MB", "steady MB", "peak MB"]
    rows = [titles + ["mJ a frame"] * energy]
    for e in shown:
        row = [e.name, *(figure(e.stages.get(name, Summary(0)).p50) for name in names)]
        row.append(str(e.warmup.queries) if e.warmup else NONE)
        row.append(str(e.stages[headline_stage(e)].count) if headline_stage(e) in e.stages else NONE)
        row.append(megabytes(e.bytes))
        row += [megabytes(getattr(e.memory, k)) if e.memory else NONE for k in ("loaded", "steady", "peak")]
        rows.append(row + [figure(e.energy, 1)] * energy)
    return rows


def accuracy(result: Result) -> Rows:
    """One row a contender and data set; only titles where nothing was scored."""
    rows = [["model", "data", "pictures", "foreground IoU", "mean of pictures' IoU", "boundary IoU"]]
    for e in measured(result):
        for a in e.accuracy:
            figures = (a.foreground_iou, a.mean_image_iou, a.boundary_iou)
            rows.append([e.name, a.data, str(a.images), *(figure(v, 4) for v in figures)])
    return rows


def measured(result: Result) -> list[Entry]:
    """Entries with figures."""
    return [e for e in result.entries if e.error is None]


def doubts(result: Result) -> list[str]:
    """All marks and errors in words."""
    found = [f"the run: {mark.text}" for mark in result.marks]
    found += [f"{e.name}: {'; '.join(mark.text for mark in e.marks)}" for e in result.entries if e.marks]
    return found + [f"{e.name} was not measured: {e.error}" for e in result.entries if e.error]


def circumstances(result: Result) -> list[tuple[str, str]]:
    """Machine, conditions and plan as (what, value)."""
    return [
        *_machine(result.machine),
        *_conditions(result.conditions),
        ("scenario", _scenario(result)),
        *(("used", _used(e)) for e in measured(result)),
        ("measured", result.created),
    ]


def _machine(m: Machine) -> Iterator[tuple[str, str]]:
    name = ", ".join(dict.fromkeys(part for part in (m.board, m.soc, m.cpu) if part))
    yield "machine", f"{name or 'unknown'} ({m.device})"
    memory = f", {m.memory / 1e9:.1f} GB" if m.memory else ""
    yield "cores", f"{m.cores or 'unknown'}{memory}"
    if m.gpu:
        yield "GPU", m.gpu
    yield "system", ", ".join([m.system or "unknown", *(f"{k} {v}" for k, v in m.versions.items())])


def _conditions(c: Conditions) -> Iterator[tuple[str, str]]:
    for what, read in (("clock", _clock), ("temperature", _heat), ("load average", _load)):
        before, after = read(c.before), read(c.after)
        yield what, before if before == after else f"{before} before, {after} after"
    seen = [f"{k} {a} -> {b}" for k, (a, b) in held_back(c.before, c.after).items()]
    yield "throttling", ", ".join(seen) or ("none seen" if c.after.throttled else "not told by this system")
    for key in dict.fromkeys((*c.before.extra, *c.after.extra)):
        a, b = c.before.extra.get(key, NONE), c.after.extra.get(key, NONE)
        yield key, a if a == b else f"{a} before, {b} after"
    if c.after.power:
        yield "power", c.after.power
    others = NONE if c.others is None else f"{c.others:.1%}"
    stolen = NONE if c.stolen is None else f"{c.stolen:.1%}"
    yield "load of others", f"{others} of the cores used, hypervisor {stolen}"
    cores = ",".join(map(str, c.affinity))
    yield "pinned", f"to cores {cores}" if c.pinned else f"no; allowed on cores {cores or 'unknown'}"
    if c.reference_ms:
        low, high = min(c.reference_ms), max(c.reference_ms)
        yield "fixed piece of work", f"{low:.3f} to {high:.3f} ms over the rounds"


def _clock(s: Snapshot) -> str:
    groups: dict[str, int] = {}
    for core in s.cores:
        most = f" of {core.max_mhz:.0f}" if core.max_mhz else ""
        text = f"{core.mhz:.0f}{most} MHz" if core.mhz else "not told"
        text += f", {core.governor}" if core.governor else ""
        groups[text] = groups.get(text, 0) + 1
    return "; ".join(f"{count}x {text}" for text, count in groups.items()) or "not told by this system"


def _heat(s: Snapshot) -> str:
    found = ", ".join(f"{name} {value:.0f} °C" for name, value in s.temperatures.items())
    return found or "not told by this system"


def _load(s: Snapshot) -> str:
    return "not told" if s.load is None else f"{s.load:.2f}"


def _scenario(result: Result) -> str:
    p = result.plan
    words = f"{p.scenario}, frames of {result.frame[1]}x{result.frame[0]}"
    words += f" at {p.fps:g} a second" if p.scenario == "stream" else ""
    words += f" in batches of {p.batch}" if p.scenario == "offline" else ""
    return (
        f"{words}; at least {p.min_queries} queries and {p.min_seconds:g} s each in {p.rounds} rounds, "
        f"{p.loads} loads"
    )


def _used(e: Entry) -> str:
    words = [f"{k} {v}" for k, v in {**e.used, **e.versions}.items()]
    return f"{e.name}: " + ", ".join(words)


def text_report(result: Result) -> str:
    """Everything for a terminal."""
    facts = "\n".join(f"{what:20} {value}" for what, value in circumstances(result))
    blocks = [*(as_text(rows) for rows in tables(result)), facts]
    found = doubts(result)
    return "\n\n".join(blocks + ["Marked:\n" + _listed(found)] * bool(found))


def markdown_report(result: Result) -> str:
    """Everything in Markdown, for an issue."""
    facts = _listed([f"{what}: {value}" for what, value in circumstances(result)])
    blocks = [*(as_markdown(rows) for rows in tables(result)), facts]
    found = doubts(result)
    return "\n\n".join(blocks + ["**Marked**\n\n" + _listed(found)] * bool(found)) + "\n"


def tables(result: Result) -> list[Rows]:
    """Speed, stages, and accuracy where there is any."""
    scored = accuracy(result)
    return [speed(result), stages(result)] + [scored] * (len(scored) > 1)


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


# -- two results -----------------------------------------------------------------------------------


def comparison(c: Comparison) -> Rows:
    """One row a contender."""
    sets = list(dict.fromkeys(name for line in c.lines for name in line.iou))
    rows = [["model", f"A {c.stage} ms", "B ms", "B / A (95 %)", *(f"IoU {s}" for s in sets), "verdict"]]
    for line in c.lines:
        ious = [f"{line.iou[s]:+.4f}" if s in line.iou else NONE for s in sets]
        rows.append(
            [line.name, figure(line.before), figure(line.after), str(line.ratio), *ious, line.verdict]
        )
    return rows


# -- figures ---------------------------------------------------------------------------------------


def figure(value: float | None, digits: int = 2) -> str:
    """A figure with fixed digits, a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def megabytes(value: int | None) -> str:
    """Bytes in units of a million."""
    return NONE if value is None else f"{value / 1e6:.1f}"
