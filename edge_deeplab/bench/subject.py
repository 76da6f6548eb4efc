"""What is measured, in one shape: our artefacts through ``open_model``, peers through their own code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge_deeplab.bench.peer_engines import engine_for
from edge_deeplab.bench.peers import Peer
from edge_deeplab.bench.providers import inspect_session
from edge_deeplab.bench.record import Contender
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, Labels
from edge_deeplab.runtimes import Runtime, Times, open_model, runtimes


@dataclass(frozen=True)
class Facts:
    """What there is to say of a loaded model; the fields of an ``Entry`` with these names."""

    model: str
    runtime: str
    input: tuple[int, ...]
    variant: str = ""
    precision: str = ""
    contract_sha256: str | None = None
    used: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


class Subject(Protocol):
    """A loaded model that segments frames."""

    def segment(self, frame: Frame) -> tuple[Labels, Times]:
        """Mask and stage times of one frame."""

    def batch(self, frames: Sequence[Frame]) -> None:
        """Segment several frames, in one inference where the model allows it."""

    def facts(self) -> Facts:
        """What it is and what it runs on."""

    def accelerator_ms(self) -> float | None:
        """Time of the last inference by the accelerator's own events; None where there are none."""

    def inspect(self) -> dict[str, str]:
        """More on what was in use; may load the model again, so it comes after all timing."""


class Ours:
    """One of our artefacts or checkpoints."""

    def __init__(self, contender: Contender, runtime: Runtime) -> None:
        self.contender, self.runtime = contender, runtime
        if hasattr(runtime, "watch_accelerator"):
            runtime.watch_accelerator()

    def segment(self, frame: Frame) -> tuple[Labels, Times]:
        """As an application calls it."""
        answer = self.runtime.segment(frame)
        return answer.labels, answer.times

    def batch(self, frames: Sequence[Frame]) -> None:
        """As an application calls it."""
        self.runtime.segment_batch(frames)

    def facts(self) -> Facts:
        """From the contract and the runtime."""
        contract = self.runtime.contract
        return Facts(
            model=contract.name,
            runtime=self.runtime.title,
            input=(contract.height, contract.width),
            variant=contract.variant,
            precision=contract.precision,
            contract_sha256=hashlib.sha256(contract.to_json().encode()).hexdigest(),
            used=self.runtime.describe(),
            versions=self.runtime.versions(),
        )

    def accelerator_ms(self) -> float | None:
        """Of runtimes that have events: ``accelerator_ms`` after ``watch_accelerator()``."""
        found: float | None = getattr(self.runtime, "accelerator_ms", None)
        return found

    def inspect(self) -> dict[str, str]:
        """GPU memory where the runtime counts it, and which ONNX Runtime provider got how many nodes."""
        count = getattr(self.runtime, "accelerator_bytes", None)
        taken = count() if count else None
        found = {} if taken is None else {"GPU memory": f"{taken / 1e6:.1f} MB at most"}
        if Path(self.contender.path).suffix == ".onnx":
            found |= inspect_session(self.runtime, self.contender)
        return found


class Theirs:
    """A peer."""

    def __init__(self, contender: Contender, peer: Peer) -> None:
        self.peer, self._name = peer, contender.name

    def segment(self, frame: Frame) -> tuple[Labels, Times]:
        """See :class:`Peer`."""
        return self.peer.segment(frame)

    def batch(self, frames: Sequence[Frame]) -> None:
        """One after the other: peers take one picture."""
        for frame in frames:
            self.peer.segment(frame)

    def facts(self) -> Facts:
        """What can be known of a model without a contract."""
        engine = self.peer.engine
        return Facts(self._name, engine.title, engine.size, used=engine.used, versions=engine.versions())

    def accelerator_ms(self) -> None:
        """Peers run on CPUs."""

    def inspect(self) -> dict[str, str]:
        """All is told at once."""
        return {}


def import_library(contender: Contender) -> None:
    """Import what the contender runs on, so that loading the model can be timed without it.

    Raises:
        UserError: Not installed, or nothing opens such a file.
    """
    if contender.peer is not None:
        engine_for(contender.path).versions()
        return
    suffix = Path(contender.path).suffix
    for runtime in runtimes().values():
        if suffix in runtime.suffixes:
            runtime.versions()
            return
    raise UserError(f"no runtime opens {contender.path}")


def open_subject(contender: Contender) -> Subject:
    """Load a contender.

    Raises:
        UserError: No such file, damaged, its runtime is missing, or an option does not fit.
    """
    if contender.peer is not None:
        if contender.options:
            raise UserError(f"{contender.name}: a peer takes no {', '.join(contender.options)}")
        return Theirs(contender, Peer(contender.path, contender.peer, contender.threads))
    options: dict[str, Any] = {k: _tupled(v) for k, v in contender.options.items()}
    if "mode" in options:
        from edge_deeplab.bench.torch_modes import open_mode

        return Ours(contender, open_mode(contender.path, threads=contender.threads, **options))
    return Ours(contender, open_model(contender.path, threads=contender.threads, **options))


def _tupled(value: Any) -> Any:
    """JSON knows lists only; sizes are tuples."""
    return tuple(value) if isinstance(value, list) else value
