"""Edge refinement: what it does to the masks of labelled photos, and what it costs.

The network's answer for every photo of a val split is made a mask in several ways: as it is; by the guided
filter as shipped; and by the same filter with other windows and other regularisation. Boundary IoU (Cheng et
al., CVPR 2021) looks at the pixels within 2 % of the diagonal of the contour; a second one, within 0.5 %, is
stricter. Whole ``Matte.update`` with and without refinement is timed in turns on one frame at several sizes.

Needs ``pip install -e '.[onnx]'``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring import SHARED, bar, exit_status, interleaved, machine, shared_folder, warn_if_busy

from edge_deeplab.bench.tables import as_markdown, as_text
from edge_deeplab.cli.arguments import positive
from edge_deeplab.data import open_split
from edge_deeplab.files import write_text
from edge_deeplab.imaging import Floats, Frame, Labels, sigmoid
from edge_deeplab.matte import GRID, SURE, Matte
from edge_deeplab.metrics import IGNORE, boundary
from edge_deeplab.refine import EPSILON, RADIUS, guided_upsample
from edge_deeplab.runtimes import Runtime, open_model

RATIOS = (0.02, 0.005)
"""Widths of the band of boundary IoU, of the diagonal."""

SIZES = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))

RADII, EPSILONS = (1, 2, 4, 8), (1e-4, 1e-3, 1e-2)

Refine = Callable[[Floats, Labels], Floats]
"""Logits at the photo's size and its luma -> alpha."""


# -- quality ---------------------------------------------------------------------------------------


class Overlap:
    """Pooled IoU, of whole masks and of bands along their edges."""

    def __init__(self) -> None:
        self._hits = np.zeros(1 + len(RATIOS))
        self._union = np.zeros(1 + len(RATIOS))

    def add(self, mask: Labels, truth: Labels) -> None:
        """Score one photo: 0 and 1, 255 in the truth is ignored."""
        known = truth != IGNORE
        pairs = [((mask == 1) & known, truth == 1)]
        pairs += [(boundary(pairs[0][0], ratio=r), boundary(pairs[0][1], ratio=r)) for r in RATIOS]
        self._hits += [(a & b).sum() for a, b in pairs]
        self._union += [(a | b).sum() for a, b in pairs]

    def figures(self) -> list[float]:
        """IoU, and boundary IoU for each of :data:`RATIOS`."""
        return [float(value) for value in self._hits / np.maximum(1, self._union)]


def ways() -> dict[str, Refine]:
    """All that are compared; the answer as it is comes first, the shipped way second."""
    found: dict[str, Refine] = {"as the network drew it": lambda logits, luma: sigmoid(logits)}
    for radius in sorted(RADII, key=lambda r: r != RADIUS):
        for epsilon in sorted(EPSILONS, key=lambda e: e != EPSILON):
            shipped = (radius, epsilon) == (RADIUS, EPSILON)
            name = f"guided, radius {radius}, epsilon {epsilon:g}{' (shipped)' if shipped else ''}"
            found[name] = _guided(radius, epsilon)
    return found


def _guided(radius: int, epsilon: float) -> Refine:
    """The filter on Matte's grid."""

    def refine(logits: Floats, luma: Labels) -> Floats:
        factor = min(1.0, GRID / max(luma.shape))
        size = (max(1, round(luma.shape[1] * factor)), max(1, round(luma.shape[0] * factor)))
        small: Any = np.clip(cv2.resize(logits, size, interpolation=cv2.INTER_AREA), -SURE, SURE)
        return guided_upsample(sigmoid(small), luma, radius=radius, epsilon=epsilon)

    return refine


def quality(data: str, model: Runtime, photos: int | None, height: int | None) -> dict[str, list[float]]:
    """Figures of every way over a val split.

    Args:
        data: ``KIND:PATH``.
        photos: How many; None for all.
        height: Photos are enlarged to it: a camera's frames are larger than the network's input.
    """
    split = open_split(data, "val")
    refine, overlaps = ways(), {name: Overlap() for name in ways()}
    for index in bar(range(min(photos or len(split), len(split))), desc=split.name, unit="photo"):
        photo, truth = split.read(index)
        if height:
            size = (round(photo.shape[1] * height / photo.shape[0]), height)
            photo = cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
            truth = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
        logits = model.segment(photo).logits
        luma: Any = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
        for name, way in refine.items():
            overlaps[name].add((way(logits, luma) > 0.5).astype(np.uint8), truth)
    return {name: overlap.figures() for name, overlap in overlaps.items()}


# -- cost ------------------------------------------------------------------------------------------


def costs(photo: Frame, model: Runtime, rounds: int) -> dict[str, tuple[float, float]]:
    """Median ms of ``Matte(smooth=False).update`` without and with refinement, by frame size."""
    found = {}
    for height, width in SIZES:
        frame: Any = cv2.resize(photo, (width, height))
        logits = model.segment(frame).logits
        mattes = {on: Matte(smooth=False, refine=on) for on in (False, True)}
        calls = {str(on): _update(matte, frame, logits) for on, matte in mattes.items()}
        times = interleaved(calls, rounds=rounds, title=f"{width}x{height}")
        found[f"{width}x{height}"] = (float(np.median(times["False"])), float(np.median(times["True"])))
    return found


def _update(matte: Matte, frame: Frame, logits: Floats) -> Callable[[int], object]:
    return lambda _: matte.update(frame, logits)


# -- the script ------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    warn_if_busy()
    data = args.data or f"folder:{shared_folder(args.shared) / 'data' / 'eg'}"
    with open_model(args.model, threads=1) as model:
        found = quality(data, model, args.photos, args.height)
        times = costs(open_split(data, "val").read(0)[0], model, args.rounds)
    titles = ["masks", "IoU", *(f"boundary IoU, {100 * r:g} %" for r in RATIOS)]
    rows = [titles] + [[name, *(f"{v:.4f}" for v in values)] for name, values in found.items()]
    prices = [["frame", "without, ms", "with, ms", "refinement, ms"]]
    prices += [[size, f"{a:.2f}", f"{b:.2f}", f"{b - a:+.2f}"] for size, (a, b) in times.items()]
    here = machine()
    larger = f", photos enlarged to {args.height} rows" if args.height else ""
    parts = {f"{open_split(data, 'val').name}, {args.model}{larger}": rows, f"Cost, {here['cpu']}": prices}
    for title, cells in parts.items():
        print(title, as_text(cells), sep="\n", end="\n\n")
    args.output.mkdir(parents=True, exist_ok=True)
    page = "\n\n".join(f"{title}\n\n{as_markdown(cells)}" for title, cells in parts.items())
    write_text(args.output / "edges.md", page + "\n")
    told = {"model": args.model, "height": args.height, "machine": here, "quality": found, "update_ms": times}
    write_text(args.output / "edges.json", json.dumps(told, indent=1))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="portrait", metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--data", metavar="KIND:PATH", help="default: the shared folder's eg")
    parser.add_argument("--photos", type=positive, metavar="N", help="default: all of the val split")
    parser.add_argument("--height", type=positive, metavar="ROWS", help="enlarge the photos to it first")
    parser.add_argument(
        "--rounds", type=positive, default=200, metavar="N", help="of timing; default: %(default)s"
    )
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="DIR", help="holds data/eg")
    parser.add_argument(
        "--output", type=Path, default=Path("out/edges"), metavar="DIR", help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    return exit_status("edges", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
