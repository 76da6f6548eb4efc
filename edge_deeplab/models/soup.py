"""Model soup: the average of several fine-tuned models' weights (Wortsman et al., ICML 2022).

Runs that start from the same weights and differ in data order, rate or augmentation often average to a
model better than each, most of all on pictures unlike the training data, at no cost when it runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from edge_deeplab.errors import UserError
from edge_deeplab.models.checkpoint import load_checkpoint, save_checkpoint
from edge_deeplab.spec import InputContract


def average(paths: Sequence[str | Path], weights: Sequence[float], output: str | Path) -> InputContract:
    """Write the weighted average of checkpoints of one variant.

    Args:
        paths: At least two checkpoints with the same architecture and classes.
        weights: One number each; divided by their sum.
        output: The checkpoint to write. Name, size and licence are the first one's; the training data
            are everyone's; metrics are dropped, since nobody has measured the average yet.

    Raises:
        UserError: Fewer than two, weights that do not fit, or models that differ in shape.
    """
    numbers = all(0 <= weight < math.inf for weight in weights)
    if len(paths) < 2 or len(weights) != len(paths) or not numbers or not 0 < sum(weights) < math.inf:
        raise UserError("an average needs two checkpoints or more and one weight of at least 0 for each")
    loaded = [load_checkpoint(path) for path in paths]
    model, contract = loaded[0]
    for path, (other, its) in zip(paths, loaded, strict=True):
        if other.architecture != model.architecture or its.classes != contract.classes:
            raise UserError(f"{path} is not of the same variant and classes as {paths[0]}")
        if _pixels(its) != _pixels(contract):
            raise UserError(
                f"{path} takes its pixels otherwise than {paths[0]} (scaling, channel order or resize)"
            )
    shares = [weight / sum(weights) for weight in weights]
    states = [other.state_dict() for other, _ in loaded]
    mixed = {
        name: sum(
            (share * state[name] for share, state in zip(shares, states, strict=True)),
            torch.zeros_like(first),
        )
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }
    model.load_state_dict(mixed)
    data = tuple(dict.fromkeys(line for _, its in loaded for line in its.provenance.data))
    provenance = dataclasses.replace(contract.provenance, data=data)
    # Stored in float32 whatever the parts were: what is between two float16 numbers is neither.
    contract = contract.replace(metrics={}, provenance=provenance, precision="fp32")
    return save_checkpoint(output, model, contract)


def _pixels(contract: InputContract) -> tuple[object, ...]:
    return contract.mean, contract.std, contract.channels, contract.resize
