"""Arguments that the demos share. Imports nothing heavy: ``--help`` must answer at once."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_deeplab.cli.arguments import add_runtime_options, positive

if TYPE_CHECKING:
    from edge_deeplab.demos.views import View

SIDE_BY_SIDE = "side-by-side"

MODES = {"blur": "B", "replace": "R", "cutout": "C", "mask": "M", SIDE_BY_SIDE: "S"}
"""Every mode, and the key that chooses it in a window."""


def strength(text: str) -> float:
    """A number from 0.1 to 5."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 5:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0.1 to 5")
    return value


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """``--model``, what is done with the background, and how the model runs."""
    parser.add_argument(
        "--model",
        default="portrait",
        metavar="MODEL",
        help="a shipped name, a checkpoint or an artefact; default: portrait",
    )
    parser.add_argument("--mode", choices=tuple(MODES), help="default: blur, or replace with --background")
    parser.add_argument(
        "--background",
        metavar="WHAT",
        help="for replace: a picture, a film, or a colour (a name, or RRGGBB as in 00b140)",
    )
    parser.add_argument("--strength", type=strength, metavar="X", help="of the blur, 0.1 to 5; default: 1")
    parser.add_argument(
        "--no-refine", action="store_true", help="leave the mask's edges as the network drew them"
    )
    add_runtime_options(parser)


def add_motion_options(parser: argparse.ArgumentParser) -> None:
    """What is done from frame to frame."""
    parser.add_argument("--no-smooth", action="store_true", help="no averaging over time")
    parser.add_argument(
        "--every",
        type=positive,
        default=1,
        metavar="N",
        help="run the model on every n-th frame and carry its answer along the motion in between; default: 1",
    )


def view_from(args: argparse.Namespace, *, keys: bool = False) -> View:
    """The view that the options ask for.

    Args:
        args: With the arguments of :func:`add_view_options`.
        keys: The mode can be changed afterwards, so that settings of other modes are of use.

    Raises:
        UserError: The background cannot be read, or a setting is for another mode.
    """
    from edge_deeplab.demos.views import View, open_background
    from edge_deeplab.errors import UserError

    effect = "replace" if args.background else "blur"
    mode = args.mode or effect
    shown = effect if mode == SIDE_BY_SIDE else mode
    for name, used_by in (("background", "replace"), ("strength", "blur")):
        if getattr(args, name) and shown != used_by and not keys:
            raise UserError(f"--{name} is for --mode {used_by}, not for {shown}")
    view = View(effect, open_background(args.background or "sky"), args.strength or 1.0)
    view.mode = mode
    return view
