"""TFLite's ``benchmark_model``, LiteRT's successor of the same name, and ``litert-benchmark``.

Three generations print three ways: microseconds after ``Average inference timings in us`` (2019), after
``Inference timings in us`` (2020 on, percentiles since 2024), milliseconds under ``BENCHMARK RESULTS``
(LiteRT). Lines may carry ``INFO:``, a source file and line, or logcat's stamp. All become one record in
milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STATISTICS = re.compile(r"\bcount=(\d+)((?: \w+=[-\d.e+]+(?:\(all same\))?)+)")
_VALUE = re.compile(r"(\w+)=([-\d.e+]+)")
_TIMINGS = re.compile(r"inference timings in us: (.+)", re.IGNORECASE)
_TIMING = re.compile(r"(Init|First inference|Warmup \(avg\)|Warmup|Inference \(avg\)|no stats): ([\d.e+]+)")
_RESULT = re.compile(
    r"(Model initialization|First inference|(?:Warmup|Inference) \(\w+\)):\s+([\d.]+)"
    r"(?: ms)?(?: \((\d+) runs\))?"
)
_MEMORY = re.compile(r"emory footprint [\w ]*\(MB\): init=([\d.]+) overall=([\d.]+)")
_FOOTPRINT = re.compile(r"(Init footprint|Overall footprint|Peak memory):\s+([\d.]+) MB")
_PEAK = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.]+)")
_DELEGATED = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\) node, yielding (\d+) partitions"
)
_ERROR = re.compile(r"^(?:.*\bE tflite\s*: |ERROR: (?:\[[^\]]*\] )?|E\w* .*?\] )(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Statistics:
    """Times of one phase, in milliseconds; None where this generation does not tell."""

    count: int
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    p5: float | None = None
    median: float | None = None
    p95: float | None = None


@dataclass(frozen=True)
class Delegation:
    """One replacement by a delegate: ``nodes`` of ``total`` in ``partitions`` pieces."""

    delegate: str
    nodes: int
    total: int
    partitions: int


@dataclass(frozen=True)
class Output:
    """What one run printed.

    Attributes:
        init, first: Milliseconds of loading and of the first inference.
        warmup, inference: Of the two phases.
        delegations: In the order they happened; the last one counts for the share of the graph.
        memory_loaded, memory_steady, memory_peak: Bytes added since the tool started.
        errors: Lines marked as errors.
    """

    init: float | None = None
    first: float | None = None
    warmup: Statistics | None = None
    inference: Statistics | None = None
    delegations: tuple[Delegation, ...] = ()
    memory_loaded: int | None = None
    memory_steady: int | None = None
    memory_peak: int | None = None
    errors: tuple[str, ...] = ()


def parse(text: str) -> Output:
    """Read the output of a run, standard output and error together; also of one that failed."""
    phases = [_statistics(match) for match in _STATISTICS.finditer(text)]
    timings = _timings(text)
    results = {name: (float(value), runs) for name, value, runs in _RESULT.findall(_milliseconds(text))}
    # Two phases are printed, warm-up first; the newest tool repeats them in its own words.
    warmup = phases[0] if len(phases) > 1 else _from_results(results, "Warmup")
    inference = phases[-1] if len(phases) > 1 else _from_results(results, "Inference")
    loaded, steady, peak = _memory(text)
    return Output(
        init=timings.get("Init", results.get("Model initialization", (None,))[0]),
        first=timings.get("First inference", results.get("Warmup (first)", (None,))[0]),
        warmup=warmup,
        inference=inference,
        delegations=tuple(
            Delegation(name, int(nodes), int(total), int(pieces))
            for nodes, total, name, pieces in _DELEGATED.findall(text)
        ),
        memory_loaded=loaded,
        memory_steady=steady,
        memory_peak=peak,
        errors=tuple(line.strip() for line in _ERROR.findall(text)),
    )


def _statistics(match: re.Match[str]) -> Statistics:
    """``count=N first= curr= min= max= avg= std=[ p5= median= p95=]``, microseconds.

    When all times agree: ``count=N curr=X(all same)``; then every figure is that time.
    """
    values = {name: float(value) / 1e3 for name, value in _VALUE.findall(match[2])}
    same = values.get("curr") if "avg" not in values else None
    return Statistics(
        count=int(match[1]),
        mean=values.get("avg", same),
        std=values.get("std", None if same is None else 0.0),
        minimum=values.get("min", same),
        maximum=values.get("max", same),
        p5=values.get("p5", same),
        median=values.get("median", same),
        p95=values.get("p95", same),
    )


def _timings(text: str) -> dict[str, float]:
    line = _TIMINGS.search(text)
    return {name: float(value) / 1e3 for name, value in _TIMING.findall(line[1])} if line else {}


def _milliseconds(text: str) -> str:
    """The part in LiteRT's own words; the lines before it use the same ones with microseconds."""
    return text.partition("BENCHMARK RESULTS")[2]


def _from_results(results: dict[str, tuple[float, str]], phase: str) -> Statistics | None:
    figures = {
        name: results[f"{phase} ({name})"][0]
        for name in ("avg", "std", "min", "max", "p5", "median", "p95")
        if f"{phase} ({name})" in results
    }
    if "avg" not in figures:
        return None
    return Statistics(
        count=int(results[f"{phase} (avg)"][1] or 0),
        mean=figures["avg"],
        std=figures.get("std"),
        minimum=figures.get("min"),
        maximum=figures.get("max"),
        p5=figures.get("p5"),
        median=figures.get("median"),
        p95=figures.get("p95"),
    )


def _memory(text: str) -> tuple[int | None, int | None, int | None]:
    """Loaded, steady and peak, in bytes."""
    named = {name: float(value) for name, value in _FOOTPRINT.findall(text)}
    if delta := _MEMORY.search(text):
        named = {"Init footprint": float(delta[1]), "Overall footprint": float(delta[2])} | named
    if peak := _PEAK.search(text):
        named["Peak memory"] = float(peak[1])
    loaded, steady, highest = (
        None if name not in named else round(named[name] * 2**20)
        for name in ("Init footprint", "Overall footprint", "Peak memory")
    )
    return loaded, steady, highest
