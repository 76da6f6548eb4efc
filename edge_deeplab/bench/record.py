"""What is asked of a measurement and what comes back: frozen records, written as JSON.

``Job`` goes to the machine that measures, ``Result`` comes back; reports, ``bench compare`` and every
device know nothing else of each other. Times are milliseconds, memory and files bytes, energy
millijoules, temperatures degrees Celsius, clocks megahertz, shares 0..1. A figure that is not known is
None, never 0. The schema of a result stands in ``docs/bench-result.schema.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_deeplab.bench.circumstances import Conditions, Core, Machine, Snapshot
from edge_deeplab.bench.job import FORMAT, Contender, Job, PeerInput, Plan, Scenario, read_json
from edge_deeplab.bench.typed import schema, to_plain
from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes, write_text

__all__ = [
    "FORMAT",
    "STAGES",
    "Accuracy",
    "Conditions",
    "Contender",
    "Core",
    "Entry",
    "Job",
    "Machine",
    "Mark",
    "Memory",
    "PeerInput",
    "Plan",
    "Ratio",
    "Result",
    "Scenario",
    "Snapshot",
    "Stream",
    "Summary",
    "Warmup",
    "result_schema",
]

STAGES = ("load", "first", "preprocess", "inference", "postprocess", "pipeline")
"""Stages of every full measurement, in the order of a program's life. Others that may stand beside
them: ``import`` (the runtime's library), ``device`` (inference by the accelerator's own events),
``latency`` (stream: capture to mask), ``batch`` (offline: one whole batch)."""


@dataclass(frozen=True)
class Summary:
    """One stage of one contender, in milliseconds.

    Attributes:
        count: Timed queries.
        mean: Arithmetic mean, outliers included.
        std: Standard deviation of the queries (divided by ``count - 1``).
        minimum, maximum: The extremes.
        p50, p90, p95, p99: Percentiles, interpolated linearly; None where the tool did not tell.
    """

    count: int
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class Mark:
    """A reason to trust a figure less.

    Attributes:
        kind: One of ``busy``, ``variation``, ``drift``, ``throttled``, ``clock``, ``hot``,
            ``not-steady``, ``few-queries``, ``power``, ``fallback``, ``incomplete``.
        text: The finding in words, with its figure.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Ratio:
    """How many times as long as the first contender, with a 95 % bootstrap interval over rounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


@dataclass(frozen=True)
class Warmup:
    """What came before the first timed query.

    Attributes:
        queries, seconds: Spent.
        steady: Whether the rule for steadiness was met before the limit.
        rule: The rule in words.
    """

    queries: int
    seconds: float
    steady: bool
    rule: str


@dataclass(frozen=True)
class Memory:
    """Resident memory of the contender's own process, in bytes.

    Attributes:
        base: With Python, numpy, OpenCV and the runtime's library loaded, before the model.
        loaded: With the model.
        steady: After the last turn.
        peak: The highest at any time.
    """

    base: int | None = None
    loaded: int | None = None
    steady: int | None = None
    peak: int | None = None


@dataclass(frozen=True)
class Stream:
    """What became of a camera's frames.

    Attributes:
        fps: Of the camera.
        offered: Frames it delivered.
        met: Masks that were ready before the next frame came.
        late: Masks that were ready after that.
        dropped: Frames that a newer one replaced before they were looked at.
    """

    fps: float
    offered: int
    met: int
    late: int
    dropped: int


@dataclass(frozen=True)
class Accuracy:
    """Quality on one set of labelled pictures.

    Attributes:
        data: Name of the set and its split.
        images: Pictures scored.
        foreground_iou: Pooled IoU of the foreground, or mIoU where there are more than two classes.
        mean_image_iou: Mean of the pictures' own IoU.
        boundary_iou: Boundary IoU of the foreground, or its mean over classes.
        where: Where the masks were computed: ``here`` or ``device``.
    """

    data: str
    images: int
    foreground_iou: float | None
    mean_image_iou: float | None
    boundary_iou: float | None
    where: str = "here"


@dataclass(frozen=True)
class Entry:
    """One contender's figures.

    Attributes:
        name: As in the job.
        model: Name in the input contract, or of the peer.
        variant: Architecture, where known.
        precision: ``fp32``, ``fp16``, ``int8`` ... where known.
        runtime: The runtime's title for people.
        peer: Whether it is somebody else's model.
        threads: CPU threads asked for; None left the choice to the runtime.
        input: Height and width of the network's input.
        file: Name of the file, without folders.
        bytes: Its size on disk.
        sha256: Of the file.
        contract_sha256: Of the input contract's JSON; None for peers.
        used: What was really in use: provider or delegate, share of the graph on it, threads.
        versions: Of the libraries that ran it.
        stages: Stage -> figures; see ``STAGES``. A tool that measures inference alone leaves the
            others out.
        headline: The stage and percentile to quote first, e.g. ``pipeline p90``.
        fps: Frames a second: 1000 / mean pipeline; ``offline``: frames / seconds; ``stream``: masks
            delivered a second. None where the pipeline was not measured.
        warmup: What came before.
        memory: Of its process.
        energy: Millijoules a frame, pipeline and idle power of the board included.
        stream: Only in that scenario.
        ratio: Median over rounds of its time to the first contender's.
        accuracy: One for every data set.
        turns: Timed queries of every turn, in order; empty where only a summary is known.
        samples: Stage -> every timed query, in order; outliers kept.
        cpu: Share of the wall time that the process spent on a core during the timed queries; above 1
            with several threads.
        marks: Reasons to trust these figures less.
        error: Why there are no figures; else None.
    """

    name: str
    model: str
    runtime: str
    file: str
    variant: str = ""
    precision: str = ""
    peer: bool = False
    threads: int | None = None
    input: tuple[int, ...] = ()
    bytes: int | None = None
    sha256: str = ""
    contract_sha256: str | None = None
    used: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    stages: dict[str, Summary] = field(default_factory=dict)
    headline: str = "pipeline p90"
    fps: float | None = None
    warmup: Warmup | None = None
    memory: Memory | None = None
    energy: float | None = None
    stream: Stream | None = None
    ratio: Ratio | None = None
    accuracy: tuple[Accuracy, ...] = ()
    turns: tuple[int, ...] = ()
    samples: dict[str, tuple[float, ...]] = field(default_factory=dict)
    cpu: float | None = None
    marks: tuple[Mark, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Result:
    """One run of ``edge-deeplab bench`` on one device.

    Attributes:
        format: Version of the record.
        machine: Where.
        conditions: Under which circumstances.
        plan: How.
        frame: Height and width of the frames that went in.
        entries: One for every contender, in the order of the job.
        marks: Reasons to trust the whole run less.
        created: ISO 8601, UTC.
    """

    machine: Machine
    conditions: Conditions
    plan: Plan
    frame: tuple[int, ...]
    entries: tuple[Entry, ...]
    marks: tuple[Mark, ...] = ()
    created: str = ""
    format: int = FORMAT

    def replace(self, **changes: Any) -> Result:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self, *, indent: int | None = None) -> str:
        """The record as JSON."""
        return json.dumps(to_plain(self), indent=indent, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, source: str = "the result") -> Result:
        """Read a result back.

        Raises:
            UserError: Not JSON, of another format, or damaged.
        """
        return read_json(cls, text, source)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read a file that :meth:`save` wrote."""
        try:
            text = read_bytes(path).decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is no result of edge-deeplab bench: not UTF-8 text") from error
        return cls.from_json(text, source=str(path))

    def save(self, path: str | Path) -> None:
        """Write the record, whole or not at all."""
        write_text(path, self.to_json(indent=1) + "\n")


def result_schema() -> dict[str, Any]:
    """The JSON Schema of a result, as published in ``docs/bench-result.schema.json``."""
    return schema(
        Result, identity=f"edge-deeplab/bench-result/{FORMAT}", title="Result of edge-deeplab bench"
    )
