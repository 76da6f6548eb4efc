"""``edge-deeplab demo video FILM --output PATH``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import bar, open_from
from edge_deeplab.demos.options import add_motion_options, add_view_options, view_from

if TYPE_CHECKING:
    from edge_deeplab.demos.views import View
    from edge_deeplab.imaging import Floats, Frame


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILM", help="anything FFmpeg reads, up to 4K and beyond")
    parser.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help=".mp4, .mov or .mkv (H.264), or .webm (VP9, which keeps a cut-out's transparency)",
    )
    add_view_options(parser)
    add_motion_options(parser)


def _run(args: argparse.Namespace) -> int:
    from edge_deeplab.demos.films import FilmReader, FilmWriter, format_of
    from edge_deeplab.errors import UserError
    from edge_deeplab.matte import Matte

    source, output = Path(args.source), Path(args.output)
    transparent = format_of(output).transparent
    if output.resolve() == source.resolve():
        raise UserError(f"--output would overwrite {source}; choose another place")
    view = view_from(args)
    matte = Matte(smooth=not args.no_smooth, refine=not args.no_refine)
    with FilmReader(source) as film, open_from(args) as model:
        if film.hdr:
            print(f"note: {source} is HDR; its colours are used as they are and will look pale")
        with FilmWriter(output, film.rate, film.audio) as writer:
            before = 0.0
            frames = bar(film.read(writer.sound), total=film.frames, unit="frame")
            for number, timed in enumerate(frames):
                if number % args.every and matte.ready(timed.frame):
                    alpha = matte.propagate(timed.frame)
                else:
                    logits = model.segment(timed.frame).logits
                    alpha = matte.update(timed.frame, logits, timed.seconds - before)
                    before = timed.seconds
                writer.write(_result(view, timed.frame, alpha, timed.seconds, transparent), timed.seconds)
    if film.damaged:
        print(f"note: {film.damaged} damaged packets of {source} were passed over")
    sound = f", sound kept ({len(film.audio)})" if film.audio else ""
    print(f"{writer.frames} frame{'s' * (writer.frames != 1)} ({view.mode}) -> {output}{sound}")
    return 0


def _result(view: View, frame: Frame, alpha: Floats, seconds: float, transparent: bool) -> Frame:
    """As on the screen, but a cut-out is really transparent where the format keeps that."""
    from edge_deeplab.composite import cut_out

    if transparent and view.mode == "cutout":
        return cut_out(frame, alpha)
    return view(frame, alpha, seconds)


DEMO = Command(
    "put a film's background out of focus, replace it, or cut it away; sound is kept", _arguments, _run
)
