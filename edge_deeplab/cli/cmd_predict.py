"""``edge-deeplab predict MODEL SOURCE… --output DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import add_runtime_options, bar, open_from

ENDINGS = {
    "mask": ".png",
    "alpha": "-alpha.png",
    "overlay": "-overlay.jpg",
    "cutout": "-cutout.png",
}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped name, a checkpoint or an artefact")
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="pictures, or folders of pictures")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for the results, made if missing"
    )
    parser.add_argument(
        "--save",
        choices=tuple(ENDINGS),
        action="append",
        help="mask: NAME.png, uint8 class ids, nearly black to the eye (default); alpha: NAME-alpha.png, "
        "0 to 255; overlay: NAME-overlay.jpg; cutout: NAME-cutout.png with transparency; repeat for several",
    )
    add_runtime_options(parser)


def _run(args: argparse.Namespace) -> int:
    from edge_deeplab.imaging import read_image, write_image

    kinds = args.save or ["mask"]
    pictures = _pictures(args.sources)
    output = Path(args.output)
    _check_folder(output)
    places = _places(pictures, kinds, output)
    times = []
    with open_from(args) as model:
        for path in bar(pictures, unit="picture"):
            frame = read_image(path)
            result = model.segment(frame)
            times.append(result.times.total)
            for kind, place in places[path].items():
                if kind == "mask":
                    write_image(place, result.labels)
                elif kind == "alpha":
                    write_image(place, result.alpha)
                elif kind == "overlay":
                    write_image(place, result.overlay(frame))
                else:
                    write_image(place, result.cutout(frame))
    middle = sorted(times)[len(times) // 2]
    plural = "" if len(pictures) == 1 else "s"
    print(
        f"{len(pictures)} picture{plural} segmented into {output} ({', '.join(kinds)}), "
        f"median {middle:.1f} ms a picture"
    )
    return 0


def _check_folder(output: Path) -> None:
    from edge_deeplab.errors import UserError
    from edge_deeplab.imaging import IMAGE_SUFFIXES

    if output.is_dir():
        return
    if output.exists():
        raise UserError(f"--output {output} is a file; give a folder")
    if output.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"--output {output} is named like a picture; give a folder, results go into it")


def _pictures(sources: list[str]) -> list[Path]:
    """Files as they are, folders by their pictures."""
    from edge_deeplab.imaging import pictures_in

    found: list[Path] = []
    for source in map(Path, sources):
        found += pictures_in(source) if source.is_dir() else [source]
    return found


def _places(pictures: list[Path], kinds: list[str], output: Path) -> dict[Path, dict[str, Path]]:
    """Picture -> kind -> where it goes; nothing may land on another result or on a picture."""
    from edge_deeplab.errors import UserError

    places: dict[Path, dict[str, Path]] = {}
    taken: dict[Path, Path] = {}
    for path in pictures:
        places[path] = {kind: output / (path.stem + ENDINGS[kind]) for kind in kinds}
        for place in places[path].values():
            if place in taken:
                raise UserError(f"{taken[place]} and {path} would both become {place.name}; run them apart")
            taken[place] = path
    results = {place.resolve() for place in taken}
    for path in pictures:
        if path.resolve() in results:
            raise UserError(f"--output {output} would overwrite {path}; give another folder")
    return places


COMMAND = Command("segment pictures into masks, overlays or cut-outs", _arguments, _run)
