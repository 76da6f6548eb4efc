"""``edge-deeplab models``."""

from __future__ import annotations

import argparse

from edge_deeplab.cli import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _run(args: argparse.Namespace) -> int:
    import dataclasses
    import json

    from edge_deeplab.models.variants import VARIANTS
    from edge_deeplab.zoo import checkpoint_contract, shipped

    ours = shipped()
    contracts = {
        name: checkpoint_contract(files[".safetensors"])
        for name, files in ours.items()
        if ".safetensors" in files
    }
    if args.json:
        record = {
            "shipped": {name: json.loads(c.to_json()) for name, c in contracts.items()},
            "variants": {name: dataclasses.asdict(v) for name, v in VARIANTS.items()},
        }
        print(json.dumps(record, indent=2))
        return 0
    print("Shipped models")
    for name, contract in contracts.items():
        print(
            f"  {name:16} {contract.variant}, input {contract.height}x{contract.width}, "
            f"{len(contract.classes)} classes"
        )
        print(f"  {'':16} {', '.join(f'{k} {v:.4f}' for k, v in contract.metrics.items())}")
        print(f"  {'':16} {contract.provenance.license}")
        print(f"  {'':16} {', '.join(path.name for path in ours[name].values())}")
    print("\nVariants               params   multiply-adds")
    print("                        (21 cl.)  513x513, 21 cl.   256x256, 1 logit")
    for name, variant in VARIANTS.items():
        print(
            f"  {name:16} {variant.params / 1e6:10.2f} M {variant.macs_513 / 1e9:11.2f} B "
            f"{variant.macs_256 / 1e9:14.2f} B   {variant.reason}"
        )
    return 0


COMMAND = Command("list shipped models and variants", _arguments, _run)
