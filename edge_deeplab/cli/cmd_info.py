"""``edge-deeplab info MODEL``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_deeplab.cli import Command

if TYPE_CHECKING:
    from edge_deeplab.spec import InputContract


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped name, a checkpoint or an artefact")
    parser.add_argument("--json", action="store_true", help="print the input contract as JSON")


def _run(args: argparse.Namespace) -> int:
    from edge_deeplab.runtimes import open_model, runtimes
    from edge_deeplab.zoo import checkpoint_contract, find

    path = find(args.model)
    described: dict[str, str] = {}
    if path.suffix == ".safetensors":
        contract = checkpoint_contract(path)  # the header is enough: no torch needed
    else:
        with open_model(path) as model:
            contract, described = model.contract, model.describe()
    if args.json:
        print(contract.to_json(indent=2))
        return 0
    title = next(r.title for r in runtimes().values() if path.suffix in r.suffixes)
    tensor = f"{contract.dtype} {contract.layout} {contract.channels}"
    if contract.dtype != "uint8":
        tensor += f", (pixel - {_short(contract.mean)}) / {_short(contract.std)}"
    rows = {
        "file": f"{path}, {path.stat().st_size / 1e6:.2f} MB, runs in {title}",
        "model": f"{contract.name}, variant {contract.variant}, {contract.precision}",
        "input": f"{contract.height}x{contract.width}, {contract.resize}, {tensor}",
        "dynamic": ", ".join(contract.dynamic) or "nothing, fixed size",
        "output": f"{contract.head} at stride {contract.head_stride}, {len(contract.classes)} classes"
        + (f", foreground from {contract.threshold:g}" if contract.binary else ""),
        "classes": ", ".join(c.name for c in contract.classes),
        "trained on": "; ".join(contract.provenance.data) or "not recorded",
        "license": contract.provenance.license or "not recorded",
        "made": f"{contract.provenance.date or 'date unknown'}, "
        f"commit {contract.provenance.commit or 'unknown'}",
        "weights sha256": contract.provenance.weights_sha256 or "not recorded",
        "metrics": ", ".join(f"{k} {v:.4f}" for k, v in contract.metrics.items()) or "none recorded",
        **_integers(contract),
        **described,
    }
    for key, value in rows.items():
        print(f"{key:15} {value}")
    return 0


def _integers(contract: InputContract) -> dict[str, str]:
    """How an INT8 artefact came to its ranges; nothing for others."""
    found = contract.quantization
    if found is None:
        return {}
    if not found.pictures:
        return {"integers": f"{found.scheme}, activations scaled as they come, no calibration"}
    measured = f"{found.method} on {found.pictures} pictures ({found.source}, list {found.sha256[:12]})"
    return {
        "integers": f"{found.scheme}, {measured}",
        "kept in float": ", ".join(found.float_layers) or "no layer",
    }


def _short(values: tuple[float, ...]) -> str:
    texts = [f"{v:g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"


COMMAND = Command("show a model's input contract and where it came from", _arguments, _run)
