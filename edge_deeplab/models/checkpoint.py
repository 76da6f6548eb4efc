"""Checkpoints: safetensors with the input contract and the architecture in the header. Never pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edge_deeplab.errors import UserError, needs
from edge_deeplab.files import read_bytes, write_bytes
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.variants import Architecture
from edge_deeplab.spec import METADATA_KEY, InputContract

ARCHITECTURE_KEY = "edge_deeplab.architecture"


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: str | Path, model: DeepLabV3Plus, contract: InputContract, *, half: bool = False
) -> InputContract:
    """Write the weights with their contract; ``half`` stores them as float16.

    Returns:
        The contract as written, with the hash of the stored tensors.
    """
    with needs("train"):
        from safetensors.torch import save

    tensors = {
        name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    if half:
        tensors = {name: value.half() for name, value in tensors.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    provenance = dataclasses.replace(contract.provenance, weights_sha256=fingerprint(tensors))
    contract = contract.replace(provenance=provenance)
    # The output stride may have been switched since construction; the file keeps the present one.
    architecture = dataclasses.replace(model.architecture, output_stride=model.backbone.output_stride)
    metadata = {
        METADATA_KEY: contract.to_json(),
        ARCHITECTURE_KEY: json.dumps(dataclasses.asdict(architecture)),
    }
    write_bytes(path, _reproducible(save(tensors, metadata)))
    return contract


def _reproducible(data: bytes) -> bytes:
    """The same file with its header in sorted order: safetensors shuffles metadata keys."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned to 8 bytes
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def load_checkpoint(path: str | Path, *, variant: str | None = None) -> tuple[DeepLabV3Plus, InputContract]:
    """Read a checkpoint: the model in float32 and evaluation mode, and its contract.

    Args:
        path: A ``.safetensors`` file written by :func:`save_checkpoint`.
        variant: Refuse a checkpoint of another variant.

    Raises:
        UserError: Not ours, damaged, changed after it was written, or of another variant.
    """
    tensors, metadata = read_safetensors(path)
    if METADATA_KEY not in metadata or ARCHITECTURE_KEY not in metadata:
        raise UserError(
            f"{path} is a safetensors file, but not one of edge-deeplab's (no input contract inside)"
        )
    contract = InputContract.from_json(metadata[METADATA_KEY], source=str(path))
    if variant is not None and variant != contract.variant:
        raise UserError(
            f"{path} is a {contract.variant} model, not {variant}; use --variant {contract.variant}"
        )
    if fingerprint(tensors) != contract.provenance.weights_sha256:
        raise UserError(f"{path}: the weights are not those its contract was written for (hash differs)")
    try:
        fields = json.loads(metadata[ARCHITECTURE_KEY])
        fields["decoder_channels"] = tuple(fields["decoder_channels"])
        model = DeepLabV3Plus(Architecture(**fields), contract.output_channels)
        load_tensors(model, tensors)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: the weights do not fit the architecture in its header") from error
    return model.eval(), contract


def load_tensors(model: DeepLabV3Plus, tensors: Mapping[str, Tensor]) -> None:
    """Load a state dict without batch norm's step counters, which nothing here uses."""
    counters = {
        name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")
    }
    model.load_state_dict({**tensors, **counters})


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        UserError: Missing, cut short or no safetensors.
    """
    with needs("train"):
        from safetensors import SafetensorError
        from safetensors.torch import load

    data = read_bytes(path)
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from error
    return tensors, dict(header.get("__metadata__", {}))
