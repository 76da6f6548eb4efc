"""How fast would an architecture be? INT8 with random weights beside the fast peers, before any training.

Every candidate is a TFLite file with the operators that the exporter would write (random_tflite.py), opened
with our runtime: a 640x480 frame to its mask, one thread, resizing and thresholding included. Candidates and
peers take turns in one run; what is printed are ratios of times taken in the same round.

``--cpu-time`` counts the processor time of the thread instead of the clock: on a machine that others use
too, a call that was interrupted does not look slow. It hides what waiting for memory costs nobody.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import random_tflite
from measuring import (
    SHARED,
    Milliseconds,
    as_text,
    exit_status,
    interleaved,
    load_average,
    machine,
    paired_ratio,
    shared_folder,
    warn_if_busy,
)

from edge_deeplab.bench.frames import decode, frames_from
from edge_deeplab.bench.peers import KNOWN, Peer
from edge_deeplab.bench.tables import as_markdown
from edge_deeplab.cli.arguments import positive
from edge_deeplab.errors import UserError
from edge_deeplab.files import write_text
from edge_deeplab.imaging import Frame
from edge_deeplab.models.variants import VARIANTS, Architecture
from edge_deeplab.runtimes import open_model
from edge_deeplab.spec import PERSON_CLASSES, InputContract

FAST_PEERS = ("mnv3_seg_float.tflite", "mediapipe_selfie_segmentation_256.tflite")
AT_ONCE = 6
"""Candidates that take turns with the peers; more would push each other's weights out of the caches."""


@dataclass(frozen=True)
class Candidate:
    """An architecture at an input size."""

    name: str
    architecture: Architecture
    size: int

    @property
    def title(self) -> str:
        """For tables."""
        return f"{self.name} @{self.size}"


def candidates(sizes: Sequence[int], variants: Sequence[str]) -> Iterator[Candidate]:
    """The named variants, and a grid over width, output stride and decoder without atrous branches."""
    named = {name: VARIANTS[name].architecture for name in variants}
    for width, stride, (decoder, pyramid, low) in itertools.product(
        (1.0, 0.75, 0.5), (16, 32), ((128, 128, 32), (64, 128, 32), (32, 96, 16))
    ):
        named[f"{width:g} os{stride} dec{decoder}"] = Architecture(
            width=width,
            output_stride=stride,
            aspp_channels=pyramid,
            atrous=False,
            low_level_channels=low,
            decoder_channels=(decoder,),
        )
    for (name, architecture), size in itertools.product(named.items(), sizes):
        yield Candidate(name, architecture, size)


def write(candidate: Candidate, folder: Path) -> Path:
    """The candidate as a file."""
    stride = 4 if candidate.architecture.decoder_channels else candidate.architecture.output_stride
    contract = InputContract(
        candidate.title,
        candidate.name,
        candidate.size,
        candidate.size,
        classes=PERSON_CLASSES,
        layout="NHWC",
        dtype="int8",
        precision="int8",
        head_stride=stride,
    )
    path = folder / f"{candidate.title.replace(' ', '-')}.tflite"
    path.write_bytes(random_tflite.deeplab(candidate.architecture, contract))
    return path


Call = Callable[[int], object]


def on(frames: Sequence[Frame], segment: Callable[[Frame], object]) -> Call:
    """Segment the frame of a round."""
    return lambda number: segment(frames[number % len(frames)])


def cpu_times(calls: dict[str, Call], rounds: int) -> dict[str, Milliseconds]:
    """Processor time of this thread, in turns; every call is made twice and the second counts."""
    times = {name: np.empty(rounds) for name in calls}
    for number in range(-3, rounds):
        for name, call in calls.items():
            call(number)
            begin = time.thread_time_ns()
            call(number)
            if number >= 0:
                times[name][number] = (time.thread_time_ns() - begin) / 1e6
    return times


def run(args: argparse.Namespace) -> None:
    """Time all candidates, a few at once beside the peers."""
    shared = shared_folder(args.shared)
    frames = decode(frames_from(shared / "video", 480, 640))
    cv2.setNumThreads(1)
    warn_if_busy()
    load = load_average()
    fast = {KNOWN[file][0]: Peer(str(shared / "peers" / file), KNOWN[file][1], 1) for file in FAST_PEERS}
    everyone = [c for c in candidates(args.sizes, args.variants) if not args.only or args.only in c.title]
    if not everyone:
        raise UserError(f"no candidate is called {args.only!r}")
    title_row = ["candidate", "MB", "p50 ms", *(f"times {name} (95 %)" for name in fast)]
    rows, record = [title_row], []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(everyone), AT_ONCE):
            group = everyone[start : start + AT_ONCE]
            files = {c.title: write(c, Path(folder)) for c in group}
            runtimes = {name: open_model(path, threads=1) for name, path in files.items()}
            calls: dict[str, Call] = {name: on(frames, peer.segment) for name, peer in fast.items()}
            calls |= {name: on(frames, runtime.segment) for name, runtime in runtimes.items()}
            if args.cpu_time:
                times = cpu_times(calls, args.rounds)
            else:
                times = interleaved(calls, rounds=args.rounds, lead_in=1, title=f"{start + len(group)}")
            for candidate in group:
                ms, size = times[candidate.title], files[candidate.title].stat().st_size
                ratios = [paired_ratio(ms, times[name]) for name in fast]
                cells = [f"{size / 1e6:.2f}", f"{np.percentile(ms, 50):.2f}", *map(str, ratios)]
                rows.append([candidate.title, *cells])
                record.append(
                    {
                        "name": candidate.title,
                        "architecture": asdict(candidate.architecture),
                        "size": candidate.size,
                        "bytes": size,
                        "p50_ms": float(np.percentile(ms, 50)),
                        "ratios": {name: asdict(r) for name, r in zip(fast, ratios, strict=True)},
                    }
                )
            for runtime in runtimes.values():
                runtime.close()
    print(as_text(rows))
    if args.markdown:
        write_text(args.markdown, as_markdown(rows) + "\n")
    if args.json:
        whole = {"machine": machine(), "load_average": load, "rounds": args.rounds, "candidates": record}
        write_text(
            args.json, json.dumps({**whole, "clock": "cpu" if args.cpu_time else "wall"}, indent=1) + "\n"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--sizes", type=positive, nargs="+", default=[256, 224, 192, 160], metavar="N")
    parser.add_argument("--variants", nargs="*", default=["lite", "nano"], choices=list(VARIANTS))
    parser.add_argument("--only", metavar="TEXT", help="candidates with this in their name")
    parser.add_argument("--rounds", type=positive, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--cpu-time", action="store_true", help="processor time instead of the clock")
    parser.add_argument(
        "--shared", type=Path, default=SHARED, metavar="DIR", help="peers and clips (default: ../shared)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    args = parser.parse_args(argv)
    return exit_status("architectures", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
