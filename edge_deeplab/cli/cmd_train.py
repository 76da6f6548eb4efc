"""``edge-deeplab train --data SPEC…``; its options are the fields of :class:`TrainConfig`."""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import size


def _arguments(parser: argparse.ArgumentParser) -> None:
    from edge_deeplab.training.config_file import FIELDS, HELP, HINTS

    parser.add_argument(
        "--config", metavar="FILE.yaml", help="read settings from a file; options given here go before it"
    )
    for name, field in FIELDS.items():
        words = HELP[name].replace("`", "").replace("%", "%%")
        if field.default not in ("", None) and name != "data":
            words += f" (default: {_shown(field.default)})"
        # No default: what is not given here comes from the file, then from the dataclass.
        parser.add_argument(
            "--" + name.replace("_", "-"), help=words, default=argparse.SUPPRESS, **_options(HINTS[name])
        )
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
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _run(args: argparse.Namespace) -> int:
    import os
    from pathlib import Path

    from edge_deeplab.errors import UserError, needs
    from edge_deeplab.files import check_writable
    from edge_deeplab.training.allocator import with_huge_pages
    from edge_deeplab.training.config import TrainConfig
    from edge_deeplab.training.config_file import FIELDS, read_config
    from edge_deeplab.training.place import check_place

    values = read_config(args.config) if args.config else {}
    given_names = FIELDS.keys() & vars(args).keys()
    for name in given_names:
        given = getattr(args, name)
        values[name] = tuple(given) if isinstance(given, list) else given
    if "data" not in values:
        raise UserError("give the data to train on: --data KIND:PATH, or data: in --config")
    config = TrainConfig(**values)
    config.check()
    output = Path(args.output)
    check_place(output, resume=args.resume)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    if first:
        check_writable(output / "config.yaml")
    with_huge_pages()
    with needs("train"):
        from edge_deeplab.training.engine import train
    # A file may hold every setting, as a run's config.yaml does; an option is somebody's wish.
    best = train(config, output, resume=args.resume, given=given_names)
    if first:
        print(f"best model: {best}")
    return 0


COMMAND = Command("train a model on labelled pictures", _arguments, _run)
