"""What tests of training share: reading a run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from edge_deeplab.models.checkpoint import fingerprint
from edge_deeplab.training.run_folder import BEST, STATE


def state_of(output: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a run's state."""
    with safe_open(output / STATE, "pt") as file:
        return load_file(output / STATE), dict(file.metadata())


def log_of(output: Path) -> list[dict[str, Any]]:
    """The records of a run, which must be strict JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Weights, averages and optimiser, bit for bit, and the same best checkpoint."""
    (a, header_a), (b, header_b) = state_of(ours), state_of(theirs)
    assert a.keys() == b.keys()
    different = [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])]
    assert different == []
    assert header_a["step"] == header_b["step"]
    assert header_a["best"] == header_b["best"]
    assert fingerprint(load_file(ours / BEST)) == fingerprint(load_file(theirs / BEST))
