"""The webcam demo with its real window: frame rate, dropped frames, latency from capture to display.

Films are played as cameras, at 30 frames a second, to ``edge-deeplab demo webcam`` in a process of its own,
under a virtual screen (Xvfb) unless ``--display`` names one. Models and modes take turns on every film, in an
order drawn anew. What is counted comes from the demo's own ``--log``: latency is from the moment the frame
was there to the moment the window had taken its result.

Needs ``pip install -e '.[demo]'`` and, without a screen, ``apt install xvfb``.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from measuring import SHARED, bar, exit_status, machine, warn_if_busy
from screens import screenshot, virtual_screen
from skimage.data import rocket
from webcam_process import Webcam, clips_in

from edge_deeplab.bench.tables import as_markdown, as_text
from edge_deeplab.cli.arguments import number, positive
from edge_deeplab.demos.options import MODES
from edge_deeplab.errors import UserError
from edge_deeplab.files import write_text
from edge_deeplab.imaging import write_image

WARM_UP_S = 2.0
"""The window opens and finds its size meanwhile."""

START_S = 60.0
"""How long the first frame may take to come."""

MODEL_STAGES = ("preprocess", "inference", "postprocess")


@dataclass(frozen=True)
class Case:
    """One run."""

    model: str
    clip: Path
    mode: str


@dataclass(frozen=True)
class Figures:
    """What one run, or several together, came to.

    Attributes:
        fps: Frames shown a second.
        captured, dropped: Frames of the camera, and those that gave way to newer ones.
        p50, p90: Capture to display, ms.
        inference, matte, view: Medians, ms: the model with its processing, the mask's, the picture's.
        cores: Processor time by time.
    """

    model: str
    clip: str
    mode: str
    fps: float
    captured: int
    dropped: int
    p50: float
    p90: float
    inference: float
    matte: float
    view: float
    cores: float


# -- one run ---------------------------------------------------------------------------------------


def measure(case: Case, args: argparse.Namespace, display: str, background: Path) -> list[dict[str, Any]]:
    """The log lines of one run, without its beginning.

    Raises:
        UserError: It ended by itself.
    """
    words = [str(case.clip), "--loop", "--rate", str(args.rate), "--model", case.model, "--mode", case.mode]
    words += ["--threads", str(args.threads)]
    if case.mode == "replace":
        words += ["--background", str(background)]
    with Webcam(words, display) as webcam:
        _wait_for(webcam, args.seconds + WARM_UP_S)
        lines = [line for line in webcam.lines() if line["seconds"] > WARM_UP_S]
        if args.shots:
            screenshot(display, args.output / f"{_name(case.model)}-{case.clip.stem}-{case.mode}.png")
        status, said = webcam.interrupt()
    if status != 130 or len(lines) < 2:
        raise UserError(f"{case}: status {status} after {len(lines)} s: {said}")
    return lines


def _wait_for(webcam: Webcam, seconds: float) -> None:
    """Until the log has come that far, or the demo has ended."""
    deadline = time.monotonic() + START_S + seconds
    while webcam.running() and time.monotonic() < deadline:
        time.sleep(0.2)
        lines = webcam.lines()
        if lines and lines[-1]["seconds"] >= seconds:
            return


def figures(model: str, clip: str, mode: str, runs: Sequence[Sequence[dict[str, Any]]]) -> Figures:
    """Frames of all runs in one heap; every run begins with the line before the first that counts."""
    seconds = sum(lines[-1]["seconds"] - lines[0]["seconds"] for lines in runs)
    counted = [line for lines in runs for line in lines[1:]]
    latencies = np.array([ms for line in counted for ms in line["frames_ms"]])
    stage = {
        name: float(np.median([line["stages_ms"][name] for line in counted]))
        for name in counted[0]["stages_ms"]
    }

    def grown(key: str) -> int:
        return int(sum(lines[-1][key] - lines[0][key] for lines in runs))

    return Figures(
        model=model,
        clip=clip,
        mode=mode,
        fps=len(latencies) / seconds,
        captured=grown("captured"),
        dropped=grown("dropped"),
        p50=float(np.percentile(latencies, 50)),
        p90=float(np.percentile(latencies, 90)),
        inference=sum(stage[name] for name in MODEL_STAGES),
        matte=stage["matte"],
        view=stage["view"],
        cores=float(np.mean([line["cores"] for line in counted])),
    )


# -- the script ------------------------------------------------------------------------------------


def table(rows: Sequence[Figures]) -> list[list[str]]:
    """One row each."""
    titles = ["model", "clip", "mode", "FPS", "dropped", "latency p50 ms", "p90 ms", "model ms", "mask ms"]
    cells = [[*titles, "picture ms", "cores"]]
    for f in rows:
        times = (f.p50, f.p90, f.inference, f.matte, f.view)
        dropped = f"{f.dropped} of {f.captured}"
        cells.append(
            [f.model, f.clip, f.mode, f"{f.fps:.1f}", dropped, *(f"{t:.1f}" for t in times), f"{f.cores:.2f}"]
        )
    return cells


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    warn_if_busy()
    clips = args.clip or clips_in(args.shared)
    args.output.mkdir(parents=True, exist_ok=True)
    models = args.models or ["portrait"]
    cases = [Case(*which) for which in product(models, clips, args.mode or MODES)]
    found: dict[Case, list[dict[str, Any]]] = {}
    with _screen(args.display) as display, tempfile.TemporaryDirectory() as folder:
        background = Path(folder) / "background.png"
        write_image(background, rocket()[..., ::-1])  # type: ignore[no-untyped-call]  # a picture costs more than a colour
        for case in bar(random.Random(0).sample(cases, len(cases)), unit="run"):
            found[case] = measure(case, args, display, background)
    each = [figures(_name(c.model), c.clip.stem, c.mode, [found[c]]) for c in cases]
    pairs = list(product(models, args.mode or MODES))
    together = [
        figures(_name(m), "all", mode, [found[c] for c in cases if (c.model, c.mode) == (m, mode)])
        for m, mode in pairs
    ]
    here = machine()
    title = (
        f"{args.seconds:g} s of each clip at {args.rate} frames a second, --threads {args.threads}, "
        f"real window{'' if args.display else ' under Xvfb'}, {here['cpu']}, {here['cores']} cores"
    )
    print(title, as_text(table(together)), as_text(table(each)), sep="\n\n")
    pages = [title, as_markdown(table(together)), as_markdown(table(each))]
    write_text(args.output / "webcam.md", "\n\n".join(pages) + "\n")
    told = {
        "seconds": args.seconds, "rate": args.rate, "threads": args.threads, "machine": here,
        "together": [asdict(f) for f in together], "each": [asdict(f) for f in each],
    }  # fmt: skip
    write_text(args.output / "webcam.json", json.dumps(told, indent=1))


@contextmanager
def _screen(display: str | None) -> Iterator[str]:
    if display:
        yield display
        return
    with virtual_screen() as found:
        yield found


def _name(model: str) -> str:
    return Path(model).stem


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="shipped names or files; default: portrait"
    )
    parser.add_argument("--mode", choices=tuple(MODES), action="append", help="repeat; default: all")
    parser.add_argument(
        "--seconds", type=number, default=10, metavar="S", help="of each run; default: %(default)s"
    )
    parser.add_argument(
        "--rate", type=positive, default=30, metavar="FPS", help="of the camera; default: %(default)s"
    )
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--shots", action="store_true", help="also write a picture of the screen of every run"
    )
    parser.add_argument("--display", metavar="NAME", help="a screen to use instead of Xvfb, e.g. :0")
    parser.add_argument(
        "--clip", type=Path, action="append", metavar="FILM", help="instead of the shared ones; repeat"
    )
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="DIR", help="holds video/*.mkv")
    parser.add_argument(
        "--output", type=Path, default=Path("out/webcam"), metavar="DIR", help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    return exit_status("webcam", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
