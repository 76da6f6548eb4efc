"""Fixtures of the benchmark's tests: toy contenders, and results put together from given times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.bench.frames import encode
from edge_deeplab.bench.record import (
    Accuracy,
    Conditions,
    Core,
    Entry,
    Machine,
    Mark,
    Memory,
    Plan,
    Result,
    Snapshot,
    Warmup,
)
from edge_deeplab.bench.stats import summary
from tests.runtimes.artefacts import picture, toy_onnx

MakeEntry = Callable[..., Entry]
MakeResult = Callable[..., Result]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy model: bright is a person."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return toy_onnx(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder on the far side that must be empty again in the end."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


@pytest.fixture
def frames() -> tuple[str, ...]:
    """Three frames of 40x60 as a job carries them."""
    return tuple(encode(picture(40, 60, seed=seed)) for seed in range(3))


def make_entry(name: str, turns: Sequence[Sequence[float]], **changes: object) -> Entry:
    """An entry with these pipeline times, turn by turn; a tenth of each is before and after inference."""
    times = np.concatenate([np.asarray(turn, np.float64) for turn in turns])
    samples = {
        "preprocess": 0.1 * times,
        "inference": 0.8 * times,
        "postprocess": 0.1 * times,
        "pipeline": times,
    }
    known: dict[str, object] = {
        "model": "toy",
        "runtime": "ONNX Runtime",
        "file": f"{name}.onnx",
        "precision": "fp32",
        "input": (64, 96),
        "bytes": 1_234_567,
        "sha256": "ab" * 32,
        "versions": {"onnxruntime": "1.31.1"},
        "stages": {
            "load": summary([30.0, 31.0]),
            "first": summary([9.0]),
            **{k: summary(v) for k, v in samples.items()},
        },
        "fps": 1e3 / float(times.mean()),
        "warmup": Warmup(15, 0.2, True, "a rule"),
        "memory": Memory(80_000_000, 90_000_000, 95_000_000, 99_000_000),
        "turns": tuple(len(turn) for turn in turns),
        "samples": {k: tuple(float(x) for x in v) for k, v in samples.items()},
        "cpu": 1.0,
        **changes,
    }
    return Entry(name=name, **known)  # type: ignore[arg-type]


def make_result(*entries: Entry, **changes: object) -> Result:
    """A result of a quiet machine."""
    now = Snapshot("2026-01-01T00:00:00+00:00", (Core(0, 2000.0), Core(1, 2000.0)), {"cpu": 45.0}, load=0.1)
    quiet = Conditions(now, now, 0.01, 0.0, (0, 1), False, (1.0,) * 10, 12.0)
    known: dict[str, object] = {
        "machine": Machine(
            "local", "Board", "SoC", "CPU", 2, 8_000_000_000, "Linux", versions={"numpy": "2"}
        ),
        "conditions": quiet,
        "plan": Plan(),
        "frame": (480, 640),
        "created": "2026-01-01T00:00:12+00:00",
        **changes,
    }
    return Result(entries=entries, **known)  # type: ignore[arg-type]


def quiet_turns(
    rng: np.random.Generator, level: float, *, turns: int = 30, queries: int = 10, spread: float = 0.01
) -> list[list[float]]:
    """Times around ``level``, independent of each other."""
    return [list(level * rng.lognormal(0, spread, queries)) for _ in range(turns)]


@pytest.fixture
def result(rng: np.random.Generator) -> Result:
    """Three contenders, one of them a peer with a mark, one that failed; accuracy on two sets."""
    scores = (
        Accuracy("eg/val", 150, 0.9672, 0.9655, 0.8123),
        Accuracy("ccp/val", 100, 0.9712, 0.9701, 0.8234),
    )
    ours = make_entry("portrait.onnx", quiet_turns(rng, 7.0), accuracy=scores)
    peer = make_entry(
        "sinet & <320>",
        quiet_turns(rng, 21.0),
        peer=True,
        accuracy=(Accuracy("eg/val", 150, 0.9597, 0.9581, 0.8001),),
        marks=(Mark("drift", "the medians of the run's thirds lie 4.0% apart"),),
    )
    broken = Entry("broken.onnx", "broken", "", "broken.onnx", error="it is damaged")
    return make_result(ours, peer, broken, marks=(Mark("busy", "others took 7% of the cores meanwhile"),))
