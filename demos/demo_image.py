"""``edge-deeplab demo image SOURCE --output PATH``."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import add_runtime_options, open_from


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="PICTURE", help="JPEG, PNG, WebP, BMP or TIFF")
    parser.add_argument("--output", required=True, metavar="PATH", help="picture to write; .png for cutout")
    parser.add_argument("--model", default="portrait", metavar="MODEL", help="default: portrait")
    parser.add_argument("--mode", choices=("mask", "cutout"), default="cutout", help="default: cutout")
    add_runtime_options(parser)


def _run(args: argparse.Namespace) -> int:
    from edge_deeplab.imaging import read_image, write_image

    frame = read_image(args.source)
    with open_from(args) as model:
        result = model.segment(frame)
    write_image(Path(args.output), result.alpha if args.mode == "mask" else result.cutout(frame))
    print(f"{args.source} -> {args.output} ({args.mode}), {result.times.total:.1f} ms")
    return 0


DEMO = Command("a picture with its background cut away", _arguments, _run)
