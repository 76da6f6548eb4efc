"""Flags of ``edge-deeplab export`` that only some exports use: typed with another, they are refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edge_deeplab.errors import UserError

if TYPE_CHECKING:
    from edge_deeplab.export import Target


@dataclass(frozen=True)
class Limited:
    """Flags that have an effect only sometimes.

    Attributes:
        places: Of the flags in the namespace.
        used: (arguments, target) -> whether they have one.
        otherwise: When they have none: "--count has no effect …".
    """

    places: tuple[str, ...]
    used: Callable[[argparse.Namespace, Target], bool]
    otherwise: str


CALIBRATION = ("calibration", "calibration_count", "calibration_method", "calibration_seed")

IN_FILE = ("head", "size", "dynamic", "io", "layout", "scheme", "keep_float", "no_remedies")
"""What a prepared file was written with."""


def _prepared(args: argparse.Namespace, target: Target) -> bool:
    return target.build is not None and bool(args.model.endswith(".onnx"))


LIMITED = (
    Limited(
        IN_FILE,
        lambda args, target: not _prepared(args, target),
        "on a prepared file (prepare the model again with it)",
    ),
    Limited(
        CALIBRATION[1:],
        lambda args, target: (
            not _prepared(args, target) or args.precision != "int8" or bool(args.calibration)
        ),
        "on a prepared file without --calibration",
    ),
    Limited(("opset",), lambda args, target: target.has_opset, "with --target {target}"),
    Limited(
        (*CALIBRATION, "scheme", "no_remedies"),
        lambda args, target: args.precision == "int8",
        "without --int8",
    ),
    Limited(
        ("count",),
        lambda args, target: bool(args.data or args.pictures),
        "without --data or --pictures",
    ),
    Limited(("max_drop",), lambda args, target: bool(args.data), "without labelled pictures (--data)"),
    Limited(("diagnose",), lambda args, target: target.trace is not None, "with --target {target}"),
)


def _chosen(name: str, args: argparse.Namespace, target: Target) -> bool:
    return bool(args.target == name)


def refuse_unused(
    args: argparse.Namespace, typed: Mapping[str, str], known: Mapping[str, Target], own: Mapping[str, str]
) -> None:
    """Refuse what was typed and would be ignored.

    Args:
        args: Complete.
        typed: Place in ``args`` -> flag.
        known: All targets.
        own: Place -> the one target that added this flag.

    Raises:
        UserError: It names all such flags.
    """
    owned = (
        Limited((place,), partial(_chosen, name), f"without --target {name}") for place, name in own.items()
    )
    target = known[args.target]
    idle: dict[str, list[str]] = {}
    for limited in (*LIMITED, *owned):
        if not limited.used(args, target):
            flags = [typed[place] for place in limited.places if place in typed]
            idle.setdefault(limited.otherwise.format(target=args.target), []).extend(flags)
    reasons = [
        f"{' and '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect {otherwise}"
        for otherwise, flags in idle.items()
        if flags
    ]
    if reasons:
        raise UserError(f"{'; '.join(reasons)}: leave it away, or give what it goes with")
