"""Steady masks: how much flicker an average over time removes, and whether it leaves a trail.

Every average gets the same answers of the same network, frame by frame, and its result goes through the same
edge refinement. Two kinds of films:

* clips of real webcams. Where the picture rests, a steady mask does not change from frame to frame; what does
  is flicker. Where it moves, masks are compared with those of a network of other people that has no memory
  (MediaPipe's selfie segmentation).
* people of labelled photos, moved by us, with fresh noise in every frame (``moving_photos.py``): their true
  masks are known.

Motion is found by DIS optical flow at half the frame's size, not by the luma differences that the shipped
average goes by. A place rests when nothing moved there or near it for a third of a second.

Needs ``pip install -e '.[onnx,tflite]'``.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from averages import Flow, OneEuro, Plain
from measuring import SHARED, bar, exit_status, interleaved, machine, shared_folder, warn_if_busy
from moving_photos import film, photos
from steadiness_picture import Strip
from webcam_process import clips_in

from edge_deeplab.bench.peers import KNOWN, Peer
from edge_deeplab.bench.tables import as_markdown, as_text
from edge_deeplab.cli.arguments import positive
from edge_deeplab.demos.films import FilmReader
from edge_deeplab.files import write_text
from edge_deeplab.imaging import Floats, Frame, Labels
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime, open_model
from edge_deeplab.temporal import Average, MotionAverage

REFERENCE = "mediapipe_selfie_segmentation_256.tflite"

RATE = 30.0

AVERAGES: dict[str, Callable[[], bool | Average]] = {
    "each frame on its own": lambda: False,
    "plain average, 0.1 s": lambda: Plain(0.1),
    "plain average, 0.3 s": lambda: Plain(0.3),
    "One-Euro": OneEuro,
    "along DIS flow": Flow,
    "motion-aware (shipped)": MotionAverage,
}
NONE, SHIPPED = "each frame on its own", "motion-aware (shipped)"

FLOW_SIDE = 320
MOVED = 0.5
"""Flow, in pixels of a frame 320 wide, from which a place moves."""

NEAR = 15
"""Pixels around a moving place that count as moving, and around an edge that count as its band."""

REST_FRAMES, LEFT_FRAMES = 10, 5
"""How long a place must have rested; how long ago somebody may have left it."""

Films = Iterable[tuple[str, Iterable[tuple[Frame, Labels]]]]


# -- what is measured ------------------------------------------------------------------------------


@dataclass
class Tally:
    """Sums over the pixels of all frames; the properties are what tables show, in percent.

    Attributes:
        changed, flipped, band: In the band around the mask's edge, where the picture rests: change of
            alpha since the frame before, pixels that went over 0.5, and pixels.
        wrong, moving: Where the picture moves: distance from the reference, and pixels.
        trailing, left: Where somebody has just left: alpha that is still there, and pixels.
        resting_wrong, resting: As ``wrong`` and ``moving``, in the resting band.
    """

    changed: float = 0.0
    flipped: float = 0.0
    band: float = 0.0
    wrong: float = 0.0
    moving: float = 0.0
    trailing: float = 0.0
    left: float = 0.0
    resting_wrong: float = 0.0

    @property
    def flicker(self) -> float:
        """Mean change of alpha between two frames."""
        return 100 * self.changed / max(1.0, self.band)

    @property
    def flips(self) -> float:
        """Share of pixels that change sides between two frames."""
        return 100 * self.flipped / max(1.0, self.band)

    @property
    def moving_error(self) -> float:
        """Mean distance from the reference where the picture moves."""
        return 100 * self.wrong / max(1.0, self.moving)

    @property
    def trail(self) -> float:
        """Mean alpha where the reference has none any more."""
        return 100 * self.trailing / max(1.0, self.left)

    @property
    def resting_error(self) -> float:
        """Mean distance from the reference in the resting band."""
        return 100 * self.resting_wrong / max(1.0, self.band)


@dataclass
class Motion:
    """Where the picture moves, from optical flow."""

    _flow: Any = field(default_factory=lambda: cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM))
    _before: Labels | None = None
    _recent: deque[Labels] = field(default_factory=lambda: deque(maxlen=REST_FRAMES))

    def update(self, frame: Frame) -> tuple[Labels, Labels]:
        """Moving now, and resting for :data:`REST_FRAMES`: both uint8 0 or 1 (H, W)."""
        height, width = frame.shape[:2]
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        small: Any = cv2.resize(
            gray, (FLOW_SIDE, round(height * FLOW_SIDE / width)), interpolation=cv2.INTER_AREA
        )
        moving: Any = np.zeros(small.shape, np.uint8)
        if self._before is not None:
            flow = self._flow.calc(self._before, small, None)
            moving = (np.hypot(flow[..., 0], flow[..., 1]) > MOVED).astype(np.uint8)
        self._before = small
        moving = cv2.resize(moving, (width, height), interpolation=cv2.INTER_NEAREST)
        near: Any = cv2.dilate(moving, np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8))
        self._recent.append(near)
        full = len(self._recent) == REST_FRAMES
        resting: Any = 1 - np.maximum.reduce(self._recent) if full else np.zeros_like(near)
        return moving, resting.astype(np.uint8)


class Comparison:
    """All averages on one film.

    Args:
        tallies: Added to, by name of the average.
    """

    def __init__(self, tallies: dict[str, Tally]) -> None:
        self._tallies = tallies
        self._mattes = {name: Matte(smooth=make()) for name, make in AVERAGES.items()}
        self._before: dict[str, Floats] = {}
        self._motion = Motion()
        self._truths: deque[Labels] = deque(maxlen=LEFT_FRAMES)

    def add(self, frame: Frame, logits: Floats, truth: Labels) -> tuple[dict[str, Floats], Labels]:
        """Take in a frame.

        Returns:
            Alphas by name, and where the picture rests.
        """
        alphas = {name: matte.update(frame, logits, 1 / RATE) for name, matte in self._mattes.items()}
        moving, resting = self._motion.update(frame)
        edge = cv2.inRange(alphas[NONE], 0.05, 0.95)
        band = (cv2.dilate(edge, np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8)) > 0) & (resting > 0)
        left = (truth == 0) & (np.maximum.reduce([*self._truths, truth]) > 0)
        for name, alpha in alphas.items():
            tally = self._tallies[name]
            wrong = np.abs(alpha - truth)
            tally.wrong += float(wrong[moving > 0].sum())
            tally.moving += int(moving.sum())
            tally.trailing += float(alpha[left].sum())
            tally.left += int(left.sum())
            tally.resting_wrong += float(wrong[band].sum())
            tally.band += int(band.sum())
            before = self._before.get(name, alpha)
            tally.changed += float(np.abs(alpha - before)[band].sum())
            tally.flipped += int(((alpha > 0.5) != (before > 0.5))[band].sum())
        self._before = alphas
        self._truths.append(truth)
        return alphas, resting


# -- the films -------------------------------------------------------------------------------------


def clips(paths: Sequence[Path], reference: Peer, frames: int | None) -> Films:
    """Real films, with the masks of the reference network."""

    def pairs(path: Path) -> Iterable[tuple[Frame, Labels]]:
        with FilmReader(path) as reader:
            for number, timed in enumerate(reader.read()):
                if number == frames:
                    return
                yield timed.frame, reference.segment(timed.frame)[0]

    for path in paths:
        yield path.stem, pairs(path)


def moved(folder: Path, count: int, frames: int) -> Films:
    """Photos that we move, with their true masks."""
    for number, (photo, person) in enumerate(photos(folder, count)):
        yield f"photo {number}", film(photo, person, frames)


def compare(films: Films, model: Runtime, strip: Strip | None = None) -> dict[str, Tally]:
    """All averages on all films."""
    tallies = {name: Tally() for name in AVERAGES}
    for name, frames in films:
        comparison = Comparison(tallies)
        for frame, truth in bar(frames, desc=name, unit="frame"):
            alphas, resting = comparison.add(frame, model.segment(frame).logits, truth)
            if strip is not None:
                strip.add(name, frame, alphas[NONE], alphas[SHIPPED], resting)
    return tallies


def costs(path: Path, model: Runtime, rounds: int) -> dict[str, float]:
    """Median milliseconds of a whole :meth:`Matte.update` by average, on frames of a clip, in turns."""
    with FilmReader(path) as reader:
        frames = [timed.frame for timed, _ in zip(reader.read(), range(30), strict=False)]
    answers = [model.segment(frame).logits for frame in frames]

    def call(matte: Matte) -> Callable[[int], Any]:
        return lambda number: matte.update(frames[number % 30], answers[number % 30], 1 / RATE)

    mattes = {name: call(Matte(smooth=make())) for name, make in AVERAGES.items()}
    return {name: float(np.median(times)) for name, times in interleaved(mattes, rounds=rounds).items()}


# -- the script ------------------------------------------------------------------------------------


def table(tallies: dict[str, Tally], reference: str) -> list[list[str]]:
    """One row an average; all in percent."""
    titles = ["average", "flicker", "flips", f"error at rest, by {reference}", "error in motion", "trail"]
    rows = [titles]
    for name, t in tallies.items():
        cells = (t.flicker, t.flips, t.resting_error, t.moving_error, t.trail)
        rows.append([name, *(f"{cell:.3f}" for cell in cells)])
    return rows


def run(args: argparse.Namespace) -> None:
    """Compare, print, write."""
    warn_if_busy()
    shared = shared_folder(args.shared)
    paths = clips_in(shared)
    reference = Peer(str(shared / "peers" / REFERENCE), KNOWN[REFERENCE][1], 1)
    strip = Strip(args.strip)
    args.output.mkdir(parents=True, exist_ok=True)
    with open_model(args.model, threads=1) as model:
        real = compare(clips(paths, reference, args.frames), model, strip)
        known = compare(moved(shared / "data" / "ccp_upper", args.photos, args.frames or 120), model)
        times = costs(paths[0], model, args.rounds)
    prices = [["average", "whole update of a 640x480 frame, ms", "more than none, ms"]]
    prices += [[name, f"{ms:.2f}", f"{ms - times[NONE]:+.2f}"] for name, ms in times.items()]
    here = machine()
    parts = {
        f"Percent, {len(paths)} clips, {args.model}": table(real, "mediapipe"),
        f"Percent, {args.photos} moved photos, {args.model}": table(known, "true mask"),
        f"Cost, {here['cpu']}": prices,
    }
    for title, rows in parts.items():
        print(title, as_text(rows), sep="\n", end="\n\n")
    page = "\n\n".join(f"{title}\n\n{as_markdown(rows)}" for title, rows in parts.items())
    write_text(args.output / "steadiness.md", page + "\n")
    figures = {
        which: {name: {**asdict(t), "flicker": t.flicker, "flips": t.flips, "moving_error": t.moving_error,
                       "trail": t.trail, "resting_error": t.resting_error} for name, t in tallies.items()}
        for which, tallies in (("clips", real), ("photos", known))
    }  # fmt: skip
    told = {"model": args.model, "machine": here, **figures, "update_ms": times}
    write_text(args.output / "steadiness.json", json.dumps(told, indent=1))
    strip.save(args.output / "steadiness.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="portrait", metavar="MODEL", help="default: %(default)s")
    parser.add_argument(
        "--frames", type=positive, metavar="N", help="of each film; default: all, 120 of photos"
    )
    parser.add_argument("--photos", type=positive, default=12, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--rounds", type=positive, default=300, metavar="N", help="of timing; default: %(default)s"
    )
    parser.add_argument(
        "--strip", default="book", metavar="CLIP", help="shown in the picture; default: %(default)s"
    )
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="DIR", help="peers/, data/, video/")
    parser.add_argument(
        "--output", type=Path, default=Path("out/steadiness"), metavar="DIR", help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    return exit_status("steadiness", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
