"""``edge-deeplab demo image PICTURE… --output PATH``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import bar, open_from
from edge_deeplab.demos.options import add_view_options, view_from

if TYPE_CHECKING:
    from edge_deeplab.demos.views import View
    from edge_deeplab.imaging import Floats, Frame

TRANSPARENT = (".png", ".webp", ".tif", ".tiff")
"""Formats that keep a cut-out's transparency."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", metavar="PICTURE", nargs="+", help="pictures, or folders of pictures")
    parser.add_argument(
        "--output", required=True, metavar="PATH", help="for one picture: a file; otherwise a folder"
    )
    add_view_options(parser)


def _run(args: argparse.Namespace) -> int:
    from edge_deeplab.imaging import read_image, write_image
    from edge_deeplab.matte import Matte

    view = view_from(args)
    places = _places(args.sources, Path(args.output), view.mode)
    with open_from(args) as model:
        for source, place in bar(places.items(), unit="picture"):
            frame = read_image(source)
            alpha = Matte(smooth=False, refine=not args.no_refine).update(frame, model.segment(frame).logits)
            write_image(place, _result(view, frame, alpha))
    plural = "" if len(places) == 1 else "s"
    print(f"{len(places)} picture{plural} ({view.mode}) -> {args.output}")
    return 0


def _result(view: View, frame: Frame, alpha: Floats) -> Frame:
    """What goes into a file: as on the screen, but a cut-out is really transparent."""
    from edge_deeplab.composite import cut_out

    return cut_out(frame, alpha) if view.mode == "cutout" else view(frame, alpha)


def _places(sources: list[str], output: Path, mode: str) -> dict[Path, Path]:
    """Picture -> where its result goes, checked before the first is made."""
    from edge_deeplab.errors import UserError
    from edge_deeplab.imaging import IMAGE_SUFFIXES, pictures_in

    pictures: list[Path] = []
    for source in map(Path, sources):
        pictures += pictures_in(source) if source.is_dir() else [source]
    pictures = list(dict.fromkeys(pictures))
    if len(pictures) == 1 and output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir():
        places = {pictures[0]: output}
    else:
        if output.exists() and not output.is_dir():
            raise UserError(f"--output {output} is a file; {len(pictures)} pictures need a folder")
        ending = f"-{mode}{'.png' if mode in ('cutout', 'mask') else '.jpg'}"
        places = {picture: output / (picture.stem + ending) for picture in pictures}
    taken: dict[Path, Path] = {}
    for picture, place in places.items():
        if place in taken:
            raise UserError(f"{taken[place]} and {picture} would both become {place.name}; run them apart")
        taken[place] = picture
        if mode == "cutout" and place.suffix.lower() not in TRANSPARENT:
            raise UserError(f"{place.suffix} keeps no transparency; write the cut-out as .png or .webp")
    mine = {place.resolve() for place in taken}
    for picture in pictures:
        if picture.resolve() in mine:
            raise UserError(f"--output {output} would overwrite {picture}; choose another place")
    return places


DEMO = Command("put a picture's background out of focus, replace it, or cut it away", _arguments, _run)
