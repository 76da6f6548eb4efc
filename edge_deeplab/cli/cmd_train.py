"""``edge-deeplab train --data SPEC…``; its options are the fields of :class:`TrainConfig`."""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import size


def _arguments(parser: argparse.ArgumentParser) -> None:
    import dataclasses
    import re
    from typing import get_type_hints

    from edge_deeplab.training.config import TrainConfig

    described = dict(re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", TrainConfig.__doc__ or "", re.MULTILINE))
    hints = get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        words = " ".join(described[field.name].replace("`", "").split()).replace("%", "%%")
        options = _options(hints[field.name])
        if field.default is dataclasses.MISSING:
            options["required"] = True
        else:
            options["default"] = field.default
            words += f" (default: {_shown(field.default)})" if field.default not in ("", None) else ""
        parser.add_argument("--" + field.name.replace("_", "-"), help=words, **options)
    parser.add_argument(
        "--output", default="runs/model", metavar="DIR", help="folder of the run (default: runs/model)"
    )
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run in --output was")


def _options(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of a field's type."""
    if get_origin(hint) is Literal:
        values = get_args(hint)
        return {"type": type(values[0]), "choices": values, "metavar": "|".join(map(str, values))}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint == tuple[str, ...]:
        return {"nargs": "+", "metavar": "SPEC"}
    if hint in (tuple[int, int], tuple[int, int] | None):
        return {"type": size, "metavar": "HxW"}
    if hint == tuple[float, float]:
        return {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    return {"type": hint, "metavar": hint.__name__.upper()}


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ("x" if isinstance(value[0], int) else " ").join(map(str, value))
    return str(value)


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
    config = TrainConfig(
        **{**values, "data": tuple(args.data), "scale": tuple(args.scale)},
    )
    best = train(config, Path(args.output), resume=args.resume)
    print(f"best model: {best}")
    return 0


COMMAND = Command("train a model on labelled pictures", _arguments, _run)
