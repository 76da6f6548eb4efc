"""``edge-deeplab train --data SPEC…``; its options are the fields of :class:`TrainConfig`."""

from __future__ import annotations

import argparse

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import size


def _arguments(parser: argparse.ArgumentParser) -> None:
    import dataclasses
    import re

    from edge_deeplab.training.config import TrainConfig

    described = dict(re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", TrainConfig.__doc__ or "", re.MULTILINE))
    for field in dataclasses.fields(TrainConfig):
        flag = "--" + field.name.replace("_", "-")
        words = " ".join(described[field.name].replace("`", "").split()).replace("%", "%%")
        if field.name == "data":
            parser.add_argument(flag, nargs="+", required=True, metavar="SPEC", help=words)
        elif field.name == "size":
            parser.add_argument(flag, type=size, default=field.default, metavar="HxW", help=words)
        else:
            kind = type(field.default)
            default = f" (default: {field.default})" if field.default != "" else ""
            parser.add_argument(
                flag,
                type=kind,
                default=field.default,
                metavar=kind.__name__.upper(),
                help=words + default,
            )
    parser.add_argument(
        "--output", default="runs/model", metavar="DIR", help="folder of the run (default: runs/model)"
    )
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run in --output was")


def _run(args: argparse.Namespace) -> int:
    import dataclasses
    from pathlib import Path

    from edge_deeplab.errors import needs
    from edge_deeplab.training.allocator import with_huge_pages
    from edge_deeplab.training.config import TrainConfig

    with_huge_pages()
    with needs("train"):
        from edge_deeplab.training.engine import train
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(TrainConfig)}
    config = TrainConfig(**{**values, "data": tuple(args.data)})
    best = train(config, Path(args.output), resume=args.resume)
    print(f"best model: {best}")
    return 0


COMMAND = Command("train a model on labelled pictures", _arguments, _run)
