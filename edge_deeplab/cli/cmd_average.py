"""``edge-deeplab average CHECKPOINT… --output PATH``."""

from __future__ import annotations

import argparse

from edge_deeplab.cli import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="two or more .safetensors or shipped names",
    )
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="one each (default: equal)")
    parser.add_argument("--output", required=True, metavar="PATH", help="the checkpoint to write")


def _run(args: argparse.Namespace) -> int:
    from edge_deeplab.errors import UserError, needs
    from edge_deeplab.zoo import find

    if not args.output.endswith(".safetensors"):
        raise UserError(f"--output {args.output} must end in .safetensors")
    paths = [find(name, prefer=(".safetensors",)) for name in args.checkpoints]
    with needs("train"):
        from edge_deeplab.models.soup import average
    weights = args.weights or [1.0] * len(args.checkpoints)
    contract = average(paths, weights, args.output)
    print(f"{args.output}: {contract.variant}, average of {len(args.checkpoints)}; score it with eval")
    return 0


COMMAND = Command("average checkpoints of one variant (model soup)", _arguments, _run)
