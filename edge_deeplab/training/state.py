"""``last.safetensors``: everything a resume needs, in one file that is whole or not there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_deeplab.data import Split
from edge_deeplab.errors import UserError
from edge_deeplab.files import write_bytes
from edge_deeplab.models.checkpoint import read_safetensors
from edge_deeplab.spec import InputContract
from edge_deeplab.training.config import TrainConfig

RESUMABLE = {
    "accumulate",
    "workers",
    "threads",
    "checkpoint_every",
    "val_every",
    "lr",
    "device",
    "compile",
    "channels_last",
}
"""Settings that may change on resume. Only `lr`, the cure for a run that diverged, touches the weights; and
`accumulate` where a part is looked at by itself: by batch norm, or to find the hardest pixels."""


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Steps done.
        best: Highest mean validation figure so far; -inf before there is one.
    """

    step: int = 0
    best: float = float("-inf")


def save_state(
    path: Path,
    progress: Progress,
    config: TrainConfig,
    contract: InputContract,
    splits: Sequence[Split],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write modules (by prefix), optimiser, loss scaler, settings and which pictures there are."""
    from safetensors.torch import save

    tensors = {
        f"{prefix}.{name}": value
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}
    header = {
        "step": str(progress.step),
        "best": repr(progress.best),
        "config": json.dumps(dataclasses.asdict(config)),
        "contract": contract.to_json(),
        "scaler": json.dumps(scaler.state_dict()),
        "pictures": json.dumps([split.listing for split in splits]),
    }
    write_bytes(path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, header))


class State:
    """A state file, read.

    Args:
        path: Where it is.
        config: Settings of the run that goes on.
        splits: Its pictures; which one comes when follows from their number and order.

    Attributes:
        progress, contract: Of the run that stopped.
        parts: What its ``accumulate`` was.

    Raises:
        UserError: Damaged, no state of ours, or of a run with other settings or pictures.
    """

    def __init__(self, path: Path, config: TrainConfig, splits: Sequence[Split]) -> None:
        self.path = path
        self.tensors, self.header = read_safetensors(path)
        try:
            now = _plain(config)
            # A state written before a setting existed was trained as that setting's default does.
            then = {**_plain(TrainConfig(data=())), **json.loads(self.header["config"])}
            self.progress = Progress(int(self.header["step"]), float(self.header["best"]))
            self.contract = InputContract.from_json(self.header["contract"], source=str(path))
            pictures = json.loads(self.header.get("pictures", "[]"))
        except (KeyError, ValueError) as error:
            raise self._no_state(error) from error
        changed = [k for k in now if now[k] != then[k] and k not in RESUMABLE]
        if changed:
            settings = ", ".join(f"{k} {then[k]!r}" for k in changed)
            raise UserError(
                f"{path} was trained with other settings ({settings}); give the same ones to resume"
            )
        # A state written before pictures were noted has none.
        for split, noted in zip(splits, pictures, strict=False):
            if split.listing != noted:
                raise UserError(
                    f"{split.name} holds other pictures ({len(split)}) than {path} was trained with "
                    f"({noted[0]}); put those back to resume, or start another --output with --init BEST"
                )
        self.parts = int(then["accumulate"])

    def restore(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        """Load everything back where :func:`save_state` took it from.

        Raises:
            UserError: The tensors do not fit.
        """
        try:
            for prefix, module in modules.items():
                module.load_state_dict(self._under(f"{prefix}."))
            states: dict[int, dict[str, Tensor]] = {}
            for name, value in self._under("optimizer.").items():
                index, _, key = name.partition(".")
                states.setdefault(int(index), {})[key] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": states, "param_groups": groups})
            if kept := json.loads(self.header.get("scaler", "{}")):
                scaler.load_state_dict(kept)
        except (KeyError, ValueError, RuntimeError) as error:
            raise self._no_state(error) from error

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def _no_state(self, error: Exception) -> UserError:
        return UserError(f"{self.path} is no training state of this model: {error}")


def _plain(config: TrainConfig) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists."""
    record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return record
