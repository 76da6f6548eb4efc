"""What a model's file tells of itself, for entries of tools that only know that it is a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes
from edge_deeplab.spec import METADATA_KEY, InputContract


def of_file(path: Path) -> dict[str, Any]:
    """Fields of an :class:`~edge_deeplab.bench.record.Entry`; of files that are not ours the name alone."""
    try:
        contract = contract_of(path)
    except UserError:
        contract = None  # whoever runs it says what is wrong with it
    return of_contract(contract) if contract else {"model": path.stem}


def of_contract(contract: InputContract) -> dict[str, Any]:
    """The same from the contract."""
    return {
        "model": contract.name,
        "variant": contract.variant,
        "precision": contract.precision,
        "input": (contract.height, contract.width),
        "contract_sha256": hashlib.sha256(contract.to_json().encode()).hexdigest(),
    }


def contract_of(path: Path) -> InputContract | None:
    """The contract in a file, or beside an engine; None where there is none.

    Raises:
        UserError: The file is missing or damaged, or ONNX Runtime is not installed.
    """
    if path.suffix == ".tflite":
        from edge_deeplab.runtimes.tflite_file import metadata

        text = metadata(read_bytes(path), source=path.name).get(METADATA_KEY)
        return InputContract.from_json(text.decode(errors="replace"), source=path.name) if text else None
    if path.suffix == ".engine":
        from edge_deeplab.runtimes.trt_sidecar import read_engine

        return read_engine(path)[1].contract
    if path.suffix == ".onnx":
        from edge_deeplab.runtimes import open_model

        with open_model(path) as model:
            return model.contract
    return None
