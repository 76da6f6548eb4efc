"""The models that come with the package, and how a MODEL argument is resolved. No torch."""

from __future__ import annotations

import json
from pathlib import Path

from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes
from edge_deeplab.spec import METADATA_KEY, InputContract

WEIGHTS = Path(__file__).resolve().parent / "weights"


def shipped() -> dict[str, dict[str, Path]]:
    """Shipped models: name -> suffix -> file."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(WEIGHTS.iterdir()):
        if path.suffix in (".onnx", ".safetensors", ".tflite") and not path.name.startswith("."):
            found.setdefault(path.stem, {})[path.suffix] = path
    return found


def find(model: str, *, prefer: tuple[str, ...] = (".onnx", ".safetensors")) -> Path:
    """The file behind a MODEL: a shipped name, a checkpoint or an artefact.

    ``portrait.tflite`` is the shipped ``portrait``'s file with that suffix, unless there is such a file here.

    Args:
        model: What the user gave.
        prefer: For shipped names: suffixes, best first.

    Raises:
        UserError: Neither a shipped name nor a file.
    """
    ours = shipped()
    if files := ours.get(model):
        return next(files[suffix] for suffix in (*prefer, *files) if suffix in files)
    path = Path(model).expanduser()
    if path.is_file():
        return path
    name, dot, suffix = model.rpartition(".")
    if shipped_file := ours.get(name, {}).get(dot + suffix):
        return shipped_file
    best = path / "best.safetensors"  # as a training run calls it
    if best.is_file():
        raise UserError(f"{model} is the folder of a run; give {best}")
    raise UserError(f"no model {model!r}: neither a file nor shipped ({', '.join(ours) or 'none are'})")


def is_shipped(model: str) -> bool:
    """Whether a MODEL is one that came with the package, by whatever name it was given.

    Raises:
        UserError: Neither a shipped name nor a file.
    """
    return find(model).resolve().parent == WEIGHTS


def checkpoint_contract(path: Path) -> InputContract:
    """The contract in a safetensors header, read without torch or safetensors.

    Raises:
        UserError: Damaged, or not one of ours.
    """
    data = read_bytes(path)
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        text = header.pop("__metadata__")[METADATA_KEY]
        end = start + max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged or not one of edge-deeplab's checkpoints") from error
    if len(data) != end:
        raise UserError(f"{path} is cut short: {len(data)} of {end} bytes; copy or download it again")
    return InputContract.from_json(text, source=str(path))
