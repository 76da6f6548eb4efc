"""A checkpoint of ours again, in float32 or with weights stored as float16: half the bytes to ship."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.base import Options, Target, Tolerance
from edge_deeplab.spec import InputContract

if TYPE_CHECKING:
    from edge_deeplab.models.deeplab import DeepLabV3Plus


def write(model: DeepLabV3Plus, contract: InputContract, options: Options, path: Path) -> InputContract:
    """Write the weights; computing stays in float32 whatever they are stored in."""
    with needs("export"):
        from edge_deeplab.models.checkpoint import save_checkpoint
    if contract.head != "logits" or options.dynamic:
        raise UserError(
            "a checkpoint has no head of its own and takes any size: leave --head and --dynamic away"
        )
    return save_checkpoint(path, model, contract, half=options.precision == "fp16")


TARGET = Target(
    suffix=".safetensors",
    help="a checkpoint, --fp16 for half the bytes",
    extra="export",
    tolerances={
        "fp32": Tolerance(logits=1e-4, agreement=0.9999, iou_drop=0.0001),
        "fp16": Tolerance(logits=None, agreement=0.999, iou_drop=0.001),
    },
    write=write,
    half_computes=False,
    made_with=("safetensors",),
)
