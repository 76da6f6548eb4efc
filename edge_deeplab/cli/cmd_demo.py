"""``edge-deeplab demo NAME``: each ``demo_NAME.py`` of the folder ``demos/`` is one."""

from __future__ import annotations

import argparse

from edge_deeplab.cli import Command
from edge_deeplab.plugins import discover


def _arguments(parser: argparse.ArgumentParser) -> None:
    demos = parser.add_subparsers(dest="demo", metavar="DEMO", required=True)
    for name, demo in discover("edge_deeplab.demos", "demo_", "DEMO").items():
        sub = demos.add_parser(name, help=demo.help, description=demo.help)
        demo.arguments(sub)
        sub.set_defaults(run_demo=demo.run)


def _run(args: argparse.Namespace) -> int:
    status: int = args.run_demo(args)
    return status


COMMAND = Command("see a model at work: on a camera, a film, a picture", _arguments, _run)
