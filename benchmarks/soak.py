"""An hour of the webcam demo: does it keep its frame rate and its memory, and does it end cleanly?

``edge-deeplab demo webcam --headless`` runs in a process of its own on films that are joined, looped and
played at 30 frames a second. Its memory is read from /proc every few seconds, its figures from its own
``--log``. At the end it gets what Ctrl-C sends. The script fails when memory grew, frames became fewer,
or the end was not clean.

Needs Linux and ``pip install -e '.[demo]'``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from measuring import SHARED, bar, exit_status, machine, warn_if_busy
from webcam_process import Webcam, clips_in, joined

from edge_deeplab.bench.tables import as_markdown, as_text
from edge_deeplab.cli.arguments import number, positive
from edge_deeplab.demos.films import FilmReader
from edge_deeplab.errors import UserError
from edge_deeplab.files import write_text

GROWTH_MB = 10.0
DRIFT = 0.01
"""Limits: growth of memory, and how much slower the last part may be than the first."""

WARM_UP_S = 60.0
"""At most; a tenth of shorter runs. Buffers and thread pools reach their size meanwhile."""

PARTS, SHORTEST_S = 10, 10.0
"""The rest is looked at in this many parts, fewer if they were too short; the last is compared with the
first."""

PAGE_KIB = 1024


@dataclass(frozen=True)
class Sample:
    """Memory of the process.

    Attributes:
        seconds: Since its start.
        resident: All of its pages that are in memory, MB.
        own: Those that are no files (heap, stacks), MB.
    """

    seconds: float
    resident: float
    own: float


@dataclass(frozen=True)
class Part:
    """A tenth of the run: medians, but for ``fps`` (frames by time) and ``dropped`` (a sum).

    Frames are lost when others want the cores, too; then the processor time of a frame stays as it was.
    """

    minute: float
    fps: float
    dropped: int
    latency_p50: float
    latency_p90: float
    cpu_ms: float
    resident: float
    own: float


@dataclass(frozen=True)
class Verdict:
    """One question and its answer."""

    what: str
    found: str
    good: bool


# -- watching --------------------------------------------------------------------------------------


def memory(pid: int, seconds: float) -> Sample:
    """What the process holds now.

    Raises:
        UserError: The system does not tell, or the process is gone.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if " kB" in line}
        return Sample(seconds, kib["VmRSS"] * PAGE_KIB / 1e6, kib["RssAnon"] * PAGE_KIB / 1e6)
    except (OSError, KeyError) as error:
        raise UserError(
            f"cannot read the memory of process {pid}: it has ended, or this is no Linux"
        ) from error


def watch(webcam: Webcam, seconds: float, every: float) -> list[Sample]:
    """Sample a running demo.

    Raises:
        UserError: It ended by itself.
    """
    begin = time.monotonic()
    samples = []
    for count in bar(range(1, int(seconds / every) + 1), unit="sample"):
        time.sleep(max(0.0, begin + count * every - time.monotonic()))
        if not webcam.running():
            status, said = webcam.ended()
            raise UserError(f"the demo ended by itself with status {status}: {said}")
        samples.append(memory(webcam.process.pid, time.monotonic() - begin))
    return samples


# -- judging ---------------------------------------------------------------------------------------


def parts_of(lines: Sequence[dict[str, Any]], samples: Sequence[Sample], warm_up: float) -> list[Part]:
    """The run without its beginning, in up to :data:`PARTS` parts.

    Raises:
        UserError: Too short.
    """
    end = samples[-1].seconds if samples else 0.0
    count = max(2, min(PARTS, int(end // SHORTEST_S)))
    parts = []
    for low, high in pairwise(np.linspace(warm_up, end, count + 1).tolist()):
        rows = [line for line in lines if low <= line["seconds"] < high]
        held = [s for s in samples if low <= s.seconds <= high]
        if len(rows) < 2 or not held:
            raise UserError("too short a run to be judged; give more --minutes")
        first, last = rows[0], rows[-1]
        middle = {key: float(np.median([row["latency_ms"][key] for row in rows])) for key in ("p50", "p90")}
        parts.append(
            Part(
                minute=high / 60,
                fps=(last["shown"] - first["shown"]) / (last["seconds"] - first["seconds"]),
                dropped=last["dropped"] - first["dropped"],
                latency_p50=middle["p50"],
                latency_p90=middle["p90"],
                cpu_ms=float(np.median([1e3 * row["cores"] / row["fps"] for row in rows])),
                resident=float(np.median([s.resident for s in held])),
                own=float(np.median([s.own for s in held])),
            )
        )
    return parts


def judge(parts: Sequence[Part], status: int, said: str) -> list[Verdict]:
    """Memory, frame rate, end."""
    first, last = parts[0], parts[-1]
    growth, slower = last.resident - first.resident, 1 - last.fps / first.fps
    words = said.strip().splitlines() or [""]
    most, lowest = max(p.resident for p in parts), min(p.fps for p in parts)
    return [
        Verdict(
            f"memory grew by less than {GROWTH_MB:g} MB",
            f"{first.resident:.1f} -> {last.resident:.1f} MB ({growth:+.1f}); most {most:.1f}",
            growth < GROWTH_MB,
        ),
        Verdict(
            f"frames became fewer by less than {DRIFT:.0%}",
            f"{first.fps:.2f} -> {last.fps:.2f} a second ({-slower:+.2%}); lowest {lowest:.2f}",
            slower < DRIFT,
        ),
        Verdict(
            "Ctrl-C ended it with its figures, status 130, and no traceback",
            f"status {status}, last words {words[-1]!r}",
            status == 130 and any(" frames in " in word for word in words) and "Traceback" not in said,
        ),
    ]


def whole(record: Path) -> Verdict:
    """Whether a recording can be read to its end."""
    with FilmReader(record) as film:
        promised, found = film.frames, sum(1 for _ in film.read())
    left = [p.name for p in record.parent.glob(".part-*")]
    return Verdict(
        "the recording is whole",
        f"{found} of {promised} frames, left over: {left}",
        found == promised and not left,
    )


def table(parts: Sequence[Part]) -> list[list[str]]:
    """One row a part."""
    rows = [
        [
            "until minute",
            "FPS",
            "dropped",
            "latency p50 ms",
            "p90 ms",
            "CPU ms a frame",
            "RSS MB",
            "of it own MB",
        ]
    ]
    for p in parts:
        figures = (f"{p.fps:.2f}", str(p.dropped), f"{p.latency_p50:.1f}", f"{p.latency_p90:.1f}")
        rows.append([f"{p.minute:.1f}", *figures, f"{p.cpu_ms:.1f}", f"{p.resident:.1f}", f"{p.own:.1f}"])
    return rows


# -- the script ------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> None:
    """Run, judge, write."""
    warn_if_busy()
    clips = args.clip or clips_in(args.shared)
    seconds = 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        film = joined(clips, Path(folder) / "clips.mp4")
        record = Path(folder) / "record.mp4"
        words = [str(film), "--headless", "--loop", "--rate", "30", "--model", args.model]
        words += [
            "--threads",
            str(args.threads),
            *(["--record", str(record)] if args.record else []),
            *args.more,
        ]
        with Webcam(words) as webcam:
            samples = watch(webcam, seconds, min(args.every, max(0.5, seconds / 60)))
            status, said = webcam.interrupt()
            lines = webcam.lines()
        parts = parts_of(lines, samples, min(WARM_UP_S, seconds / PARTS))
        verdicts = judge(parts, status, said)
        if args.record:
            verdicts.append(whole(record))
    options = " ".join(["--headless --loop --rate 30", *words[5:]]).replace(str(record), "record.mp4")
    here = machine()
    title = f"{args.minutes:g} minutes of `demo webcam {options}` on {len(clips)} clips, {here['cpu']}"
    print(title, as_text(table(parts)), said.strip(), sep="\n")
    answers = [f"{'yes' if v.good else 'NO'}: {v.what}: {v.found}" for v in verdicts]
    print(*answers, sep="\n")
    args.output.mkdir(parents=True, exist_ok=True)
    page = (
        f"{title}\n\n{as_markdown(table(parts))}\n\n" + "\n".join(f"- {answer}" for answer in answers) + "\n"
    )
    write_text(args.output / "soak.md", page)
    told = {
        "minutes": args.minutes, "options": options, "clips": [clip.name for clip in clips], "machine": here,
        "verdicts": [asdict(v) for v in verdicts], "parts": [asdict(p) for p in parts], "said": said,
        "memory": [asdict(s) for s in samples], "log": lines,
    }  # fmt: skip
    write_text(args.output / "soak.json", json.dumps(told))
    if not all(v.good for v in verdicts):
        raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--minutes", type=number, default=60, metavar="M", help="default: %(default)s")
    parser.add_argument("--model", default="portrait", metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--record", action="store_true", help="record meanwhile, and read the recording afterwards"
    )
    parser.add_argument(
        "--every", type=number, default=5, metavar="S", help="seconds between two looks at the memory"
    )
    parser.add_argument(
        "--clip", type=Path, action="append", metavar="FILM", help="instead of the shared ones; repeat"
    )
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="DIR", help="holds video/*.mkv")
    parser.add_argument(
        "--output", type=Path, default=Path("out/soak"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("more", nargs="*", metavar="-- OPTION", help="further options of demo webcam")
    args = parser.parse_args(argv)
    return exit_status("soak", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
