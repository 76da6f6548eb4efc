"""What is asked of a measurement: the frozen record that goes to the machine that measures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from edge_deeplab.bench.typed import from_plain, to_plain
from edge_deeplab.errors import UserError

FORMAT = 1
"""Version of both records. It rises when a field changes; a reader refuses another number."""

Scenario = Literal["single", "stream", "offline"]


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
        return read_json(cls, text, source)


def read_json(kind: Any, text: str, source: str) -> Any:
    """A record of this format from its JSON.

    Raises:
        UserError: Not JSON, of another format, or damaged; the message names ``source``.
    """
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
