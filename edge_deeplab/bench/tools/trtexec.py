"""``trtexec``, TensorRT's own benchmark: what it prints, what it records, and how to make versions compare.

TensorRT 11 changed three defaults: no data transfers, waiting by spinning, and a CUDA graph. A figure of
11 beside one of 8.6 or 10 then compares two different things. :func:`flags` sets them back and
:func:`parse` reads which ones were in force, so that a run which did not obey is told apart.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from edge_deeplab.errors import UserError

SAME_AS_BEFORE_11 = ("--includeDataTransfers", "--noSpinWait", "--noCudaGraph")
"""Flags of 11 that bring back how 8.6 and 10 measure."""

_BANNER = re.compile(r"&&&& (RUNNING|PASSED|FAILED) TensorRT\.trtexec(?: \[TensorRT v([\d.]+)\])?")
_STAMP = re.compile(r"^\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[(\w)\] ?")
_SETTING = re.compile(r"^(Data transfers|Spin-wait|CUDA Graph|Selected Device|TensorRT version): (.+?)\s*$")
_FIGURES = re.compile(r"^(Latency|Enqueue Time|H2D Latency|GPU Compute Time|D2H Latency): (min = .+)$")
_FIGURE = re.compile(r"(min|max|mean|median|percentile\((\d+)%\)) = ([\d.e+-]+) ms")
_THROUGHPUT = re.compile(r"^Throughput: ([\d.e+]+) qps")
_COUNT = re.compile(r"^Timing trace has (\d+) queries over ([\d.e+]+) s")
_WARMUP = re.compile(r"^Warmup completed (\d+) queries over ([\d.e+]+) ms")

SETTINGS = ("Data transfers", "Spin-wait", "CUDA Graph")

FIGURES = {
    "Latency": "latency",
    "Enqueue Time": "enqueue",
    "H2D Latency": "h2d",
    "GPU Compute Time": "compute",
    "D2H Latency": "d2h",
}


@dataclass(frozen=True)
class Figures:
    """One line of the summary, in milliseconds; ``percentiles`` are those that were asked for."""

    minimum: float
    maximum: float
    mean: float
    median: float
    percentiles: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What was in force; None where the output does not tell.

    Attributes:
        transfers: Copies to and from the device are part of a query.
        spin: The host waits by spinning.
        graph: A query is one CUDA graph.
    """

    transfers: bool | None = None
    spin: bool | None = None
    graph: bool | None = None

    @property
    def comparable(self) -> bool:
        """Measured as 8.6 and 10 measure by default."""
        return (self.transfers, self.spin, self.graph) == (True, False, False)


@dataclass(frozen=True)
class Output:
    """What one run printed.

    Attributes:
        version: Of TensorRT, (11, 0, 0).
        device: Name of the GPU.
        settings: What was in force.
        queries, seconds: Timed.
        warmup: Queries before them.
        throughput: Queries a second.
        figures: ``latency`` (copies included), ``compute``, ``h2d``, ``d2h``, ``enqueue``.
        warnings: What it warns of: an unstable clock, a host that cannot keep up.
        errors: Lines marked as errors.
        passed: Its last line says so.
    """

    version: tuple[int, ...] = ()
    device: str = ""
    settings: Settings = Settings()
    queries: int | None = None
    seconds: float | None = None
    warmup: int | None = None
    throughput: float | None = None
    figures: dict[str, Figures] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    passed: bool = False


def parse_version(text: str) -> tuple[int, ...]:
    """Version from the first line of any output, ``--help`` included; empty when it has none.

    ``v8602`` is 8.6.2, ``v101600`` is 10.16.0: two digits for each part, one for a major below 10.
    """
    banner = _BANNER.search(text)
    if banner is None or banner[2] is None:
        return ()
    number = banner[2]
    if "." in number:
        return tuple(int(part) for part in number.split("."))
    # 8600 keeps its patch in two digits and its minor in one.
    if len(number) == 4:
        return int(number[0]), int(number[1]), int(number[2:])
    return int(number[:-4]), int(number[-4:-2]), int(number[-2:])


def flags(version: tuple[int, ...]) -> tuple[str, ...]:
    """Flags that make this version measure as 8.6 and 10 do by default."""
    return SAME_AS_BEFORE_11 if version >= (11,) else ()


def parse(text: str) -> Output:
    """Read the output of a run, standard output and error together.

    Also of one that failed or was cut: what is not there is None or empty.
    """
    settings: dict[str, str] = {}
    figures: dict[str, Figures] = {}
    marked: dict[str, list[str]] = {"W": [], "E": []}
    found: dict[str, re.Match[str]] = {}
    for raw in text.splitlines():
        stamp = _STAMP.match(raw)
        line = _STAMP.sub("", raw)
        if setting := _SETTING.match(line):
            settings[setting[1]] = setting[2]
        elif summary := _FIGURES.match(line):
            figures[FIGURES[summary[1]]] = _figures(summary[2])
        elif stamp and stamp[1] in marked:
            marked[stamp[1]].append(line.strip())
        for name, pattern in (("qps", _THROUGHPUT), ("count", _COUNT), ("warmup", _WARMUP)):
            if match := pattern.match(line):
                found[name] = match
    return Output(
        version=parse_version(text),
        device=settings.get("Selected Device", ""),
        settings=Settings(*(_enabled(settings.get(name)) for name in SETTINGS)),
        queries=int(found["count"][1]) if "count" in found else None,
        seconds=float(found["count"][2]) if "count" in found else None,
        warmup=int(found["warmup"][1]) if "warmup" in found else None,
        throughput=float(found["qps"][1]) if "qps" in found else None,
        figures=figures,
        # Each warning is a line that starts with a star; the next one is advice.
        warnings=tuple(w.removeprefix("* ") for w in marked["W"] if w.startswith("* ")),
        errors=tuple(marked["E"]),
        passed="&&&& PASSED" in text,
    )


def parse_times(text: str) -> dict[str, tuple[float, ...]]:
    """Read ``--exportTimes``: ``latency`` and ``compute`` of every query, in milliseconds, in order.

    Raises:
        UserError: It is not what trtexec writes.
    """
    try:
        queries = json.loads(text)
        return {
            name: tuple(float(query[key]) for query in queries)
            for name, key in (("latency", "latencyMs"), ("compute", "computeMs"))
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"trtexec's --exportTimes is damaged: {error}") from error


def _figures(text: str) -> Figures:
    values = {name: float(value) for name, _, value in _FIGURE.findall(text)}
    percentiles = {int(rank): float(value) for _, rank, value in _FIGURE.findall(text) if rank}
    return Figures(values["min"], values["max"], values["mean"], values["median"], percentiles)


def _enabled(text: str | None) -> bool | None:
    return None if text is None else text == "Enabled"
