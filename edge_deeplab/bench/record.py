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
from typing import Any, Literal

from edge_deeplab.bench.typed import from_plain, schema, to_plain
from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes, write_text

FORMAT = 1
"""Version of both records. It rises when a field changes; a reader refuses another number."""

Scenario = Literal["single", "stream", "offline"]

STAGES = ("load", "first", "preprocess", "inference", "postprocess", "pipeline")
"""Stages of every full measurement, in the order of a program's life. Others that may stand beside
them: ``import`` (the runtime's library), ``device`` (inference by the accelerator's own events),
``latency`` (stream: capture to mask), ``batch`` (offline: one whole batch)."""


# -- what is asked -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PeerInput:
    """How to feed somebody else's model and how to read its answer.

    Attributes:
        mean, std: The input is ``(pixel - mean) / std``; one value for all channels or one for each.
        channels: Order of the input's channels, ``RGB`` or ``BGR``.
        output: What the output holds: ``probability`` or ``logit`` of the foreground, ``two-logits``
            (background, foreground), or ``class:K`` (one plane a class; K is the foreground).
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    channels: Literal["RGB", "BGR"] = "RGB"
    output: str = "probability"


@dataclass(frozen=True)
class Contender:
    """One model on one runtime with one set of options.

    Attributes:
        name: Its row in every table; unique within a job.
        path: The file, on the machine that reads the job. A device that copies it rewrites this.
        threads: CPU threads; None leaves the choice to the runtime.
        options: Further keyword arguments of ``open_model``: ``providers``, ``size``, ``device`` ...
        peer: Set for a model that is not ours and carries no input contract.
    """

    name: str
    path: str
    threads: int | None = 1
    options: dict[str, Any] = field(default_factory=dict)
    peer: PeerInput | None = None


@dataclass(frozen=True)
class Plan:
    """How long and in which manner to measure.

    Attributes:
        scenario: ``single``: the next frame goes in when the mask of the last is out. ``stream``: a
            camera delivers at ``fps``, the newest frame wins. ``offline``: batches of ``batch``.
        min_queries: Frames (``offline``: batches) that are timed of every contender, at least.
        min_seconds: Seconds that these take together, at least.
        rounds: Turns that every contender gets; both minima are spread over them.
        loads: Fresh processes in which loading and the first frame are timed.
        lead_in: Queries at the start of a turn that are not timed: they bring back what the others
            pushed out of the caches.
        fps: ``stream``: frames a second of the camera.
        batch: ``offline``: frames in a batch.
        seed: Of the order of turns.
    """

    scenario: Scenario = "single"
    min_queries: int = 100
    min_seconds: float = 3.0
    rounds: int = 30
    loads: int = 3
    lead_in: int = 1
    fps: float = 30.0
    batch: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """Everything the measuring machine must know; it carries its frames.

    Attributes:
        format: Version of the record.
        contenders: Who is measured; ratios are to the first.
        plan: How.
        frames: JPEG or PNG files as base64, all of one size; used in turn.
        cpus: Cores the measurement is pinned to; None pins nothing.
    """

    contenders: tuple[Contender, ...]
    plan: Plan
    frames: tuple[str, ...]
    cpus: tuple[int, ...] | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """One line."""
        return json.dumps(to_plain(self))

    @classmethod
    def from_json(cls, text: str, *, source: str = "the job") -> Job:
        """Read a job back.

        Raises:
            UserError: Not JSON, of another format, or damaged.
        """
        return _from_json(cls, text, source)


# -- what comes back ---------------------------------------------------------------------------


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
class Core:
    """One CPU core.

    Attributes:
        index: Its number.
        mhz: Clock now.
        max_mhz: Highest clock the system admits.
        governor: Frequency governor.
        capacity: Relative compute capacity, 1024 for the fastest core; tells big from little.
    """

    index: int
    mhz: float | None = None
    max_mhz: float | None = None
    governor: str | None = None
    capacity: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """The state of a machine at one moment.

    Attributes:
        time: ISO 8601, UTC.
        cores: Those that are online.
        temperatures: Thermal zone or sensor -> degrees.
        throttled: Counter or flag of throttling -> value; any rise or set bit counts.
        load: Load average of the last minute.
        memory_free: Bytes available.
        power: Supply: ``mains``, ``battery 87 %`` ...; None where there is none to ask.
        reference_ms: Time of a fixed piece of work on one core; it tells a slower clock where the
            system shows none.
        extra: What the board tells besides: power mode, rails, GPU and memory clocks.
    """

    time: str
    cores: tuple[Core, ...] = ()
    temperatures: dict[str, float] = field(default_factory=dict)
    throttled: dict[str, int] = field(default_factory=dict)
    load: float | None = None
    memory_free: int | None = None
    power: str | None = None
    reference_ms: float | None = None
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """Where it ran; without names of people, hosts or folders.

    Attributes:
        device: ``local``, ``ssh`` or ``adb``.
        board: Model of the board or computer.
        soc: System on chip.
        cpu: CPU name.
        cores: Number of cores online.
        memory: Bytes of main memory.
        system: Operating system, kernel and architecture.
        gpu: Accelerator, where one is there.
        versions: Python, numpy, OpenCV, edge-deeplab, tools.
    """

    device: str
    board: str = ""
    soc: str = ""
    cpu: str = ""
    cores: int | None = None
    memory: int | None = None
    system: str = ""
    gpu: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditions:
    """Under which circumstances the figures hold.

    Attributes:
        before, after: The machine at the start and at the end.
        others: Share of the used cores' time that other processes took meanwhile.
        stolen: Share that the hypervisor took.
        affinity: Cores the processes were allowed to run on.
        pinned: Whether ``--cpus`` set that.
        reference_ms: The fixed piece of work, once a round.
        seconds: Length of the whole run.
    """

    before: Snapshot
    after: Snapshot
    others: float | None = None
    stolen: float | None = None
    affinity: tuple[int, ...] = ()
    pinned: bool = False
    reference_ms: tuple[float, ...] = ()
    seconds: float | None = None


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
        return _from_json(cls, text, source)

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


def _from_json(kind: Any, text: str, source: str) -> Any:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is not JSON: {error}") from error
    number = record.get("format") if isinstance(record, dict) else None
    if number is None:
        raise UserError(f"{source} is no {kind.__name__.lower()} of edge-deeplab bench")
    if number != FORMAT:
        raise UserError(
            f"{source} has format {number}, this version reads {FORMAT}; measure again, or use the "
            "edge-deeplab that wrote it"
        )
    try:
        return from_plain(kind, record)
    except ValueError as error:
        raise UserError(f"{source} is damaged: {error}") from error
