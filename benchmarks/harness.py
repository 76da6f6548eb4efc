"""What ``edge-deeplab bench`` costs, whether it repeats, notices others, and agrees with the webcam demo.

Four ways to time the same model on the same frames take turns, in an order drawn anew:

- the harness, scenario ``single``;
- a bare loop: a process that opens the model and calls ``segment`` in a ``for`` loop with a clock around it;
- the harness, scenario ``stream``, its camera at 30 frames a second;
- ``edge-deeplab demo webcam`` on those frames at 30 a second, by its own counter (``--log``).

The first two are pinned to one core and their ratio is the overhead. The other two may use all cores, as the
demo draws while the model runs; their ratio says whether a benchmark tells what a user will see. After that
the harness measures again while another process computes on its core: it must mark its own results.

Needs ``pip install -e '.[onnx]'``.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from measuring import ROOT, as_text, bar, exit_status, machine, paired_ratio, warn_if_busy
from webcam_process import Webcam

from edge_deeplab.bench import Contender, Job, Plan, Result, open_device
from edge_deeplab.bench.frames import decode, frames_from
from edge_deeplab.bench.lineup import files_of
from edge_deeplab.bench.record import Ratio
from edge_deeplab.bench.session import allowed_cpus
from edge_deeplab.bench.tables import as_markdown
from edge_deeplab.cli.arguments import positive
from edge_deeplab.errors import UserError
from edge_deeplab.files import write_text
from edge_deeplab.imaging import write_image

HARNESS, BARE, STREAM, DEMO = "harness", "bare loop", "harness, stream", "webcam demo"

OVERHEAD, REPEATS = 0.02, 0.03
"""How far the ratio to the bare loop may lie from 1, and repetitions from each other."""

RATE = 30.0
"""Frames a second of the stream and the demo."""

DEMO_WARM_UP_S = 2.0
DEMO_PATIENCE_S = 300.0
MODEL_STAGES = ("preprocess", "inference", "postprocess")

Stages = dict[str, float]
"""Stage of the model -> milliseconds."""

LOOP = """
import json, sys, time
import cv2
from edge_deeplab.bench.frames import decode
from edge_deeplab.runtimes import open_model
told = json.load(sys.stdin)
cv2.setNumThreads(1)
frames = decode(told["frames"])
model = open_model(told["path"], threads=1)
for _ in range(told["warmup"]):
    model.segment(frames[0])
times = []
for k in range(told["queries"]):
    begin = time.perf_counter()
    model.segment(frames[k % len(frames)])
    times.append(1e3 * (time.perf_counter() - begin))
print(json.dumps(times))
"""

BURN = "import hashlib\nblock = bytes(1 << 16)\nwhile True: hashlib.sha256(block)"


# -- the ways to time ------------------------------------------------------------------------------


def harness(job: Job) -> tuple[float, list[str]]:
    """Median pipeline by ``edge-deeplab bench``, and the marks it gave itself."""
    result: Result = open_device("local").measure(job, lambda _: None)
    (entry,) = result.entries
    middle = entry.stages["pipeline"].p50
    if middle is None:
        raise ValueError("a measured contender has a median")
    return middle, [mark.text for mark in (*result.marks, *entry.marks)]


def bare(job: Job) -> float:
    """Median of a plain loop."""
    told = {
        "path": job.contenders[0].path,
        "frames": job.frames,
        "warmup": 30,
        "queries": job.plan.min_queries,
    }
    pinned = ["taskset", "-c", ",".join(map(str, job.cpus))] if job.cpus else []
    done = subprocess.run(
        [*pinned, sys.executable, "-c", LOOP],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(np.median(json.loads(done.stdout)))


def stream(job: Job) -> tuple[float, Stages]:
    """Median pipeline by ``edge-deeplab bench --scenario stream``, and medians of the model's stages."""
    (entry,) = open_device("local").measure(job, lambda _: None).entries
    middle = {name: float(np.median(entry.samples[name])) for name in (*MODEL_STAGES, "pipeline")}
    return middle.pop("pipeline"), middle


def demo(job: Job) -> tuple[float, Stages]:
    """The same by the demo's own counter: the stages of the model, added up for every frame.

    Raises:
        UserError: The demo ended by itself.
    """
    seconds = DEMO_WARM_UP_S + job.plan.min_queries / RATE
    with tempfile.TemporaryDirectory() as folder:
        for k, frame in enumerate(decode(job.frames)):
            write_image(Path(folder) / f"{k:03}.bmp", frame)  # quickly read, as a camera is
        words = [folder, "--loop", "--rate", str(RATE), "--model", job.contenders[0].path, "--threads", "1"]
        with Webcam([*words, "--mode", "mask", "--headless"]) as webcam:
            until = time.monotonic() + DEMO_PATIENCE_S + seconds
            while webcam.running() and time.monotonic() < until:
                time.sleep(0.2)
                lines = webcam.lines()
                if lines and lines[-1]["seconds"] >= seconds:
                    break
            lines = [line for line in webcam.lines() if line["seconds"] > DEMO_WARM_UP_S]
            _, said = webcam.interrupt()
    if not lines:
        raise UserError(f"the demo has shown nothing: {said}")
    stages = {name: float(np.mean([line["stages_ms"][name] for line in lines])) for name in MODEL_STAGES}
    return float(np.median(np.concatenate([line["pipeline_ms"] for line in lines]))), stages


@contextmanager
def busy(core: int) -> Iterator[None]:
    """Within the block another process computes on ``core``."""
    neighbour = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", BURN])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


# -- the script ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Findings:
    """What a run of the script came to; times are medians in ms, one for every repetition.

    Attributes:
        times: By way of timing.
        marks: What the harness said of each of its quiet runs.
        busy: Its median beside a busy process, and what it said of each of these runs.
        stages: Of the stream and the demo, to tell where they differ.
    """

    times: dict[str, list[float]]
    marks: list[list[str]]
    busy: list[tuple[float, list[str]]]
    stages: dict[str, list[Stages]]

    def ratio(self, way: str, base: str) -> Ratio:
        """Of two ways, by repetition."""
        return paired_ratio(np.array(self.times[way]), np.array(self.times[base]))

    def verdicts(self) -> list[tuple[str, bool]]:
        """What was to be shown, and whether it was."""

        def near(way: str, base: str, within: float) -> tuple[str, bool]:
            r = self.ratio(way, base)
            text = f"{way} / {base}: {r.value:.3f} ({r.low:.3f}–{r.high:.3f}), within {within:.0%}"
            return text, abs(r.value - 1) <= within

        repeated, count = self.times[HARNESS], len(self.marks)
        apart, marked = max(repeated) / min(repeated) - 1, sum(map(bool, self.marks))
        noticed = sum(bool(marks) for _, marks in self.busy)
        found = [
            near(HARNESS, BARE, OVERHEAD),
            (
                f"{HARNESS}: medians of {count} runs lie {apart:.1%} apart, within {REPEATS:.0%} or marked "
                f"({marked} of {count} are)",
                apart <= REPEATS or bool(marked),
            ),
            (
                f"beside a busy process {noticed} of {len(self.busy)} runs marked themselves",
                noticed == len(self.busy),
            ),
        ]
        return [*found, near(DEMO, STREAM, REPEATS)] if DEMO in self.times else found


def measure(job: Job, args: argparse.Namespace, core: int) -> Findings:
    """Quiet repetitions of every way in turn, then busy ones of the harness."""
    free = replace(job, cpus=None)
    camera = replace(free, plan=replace(job.plan, scenario="stream", fps=RATE))
    found = Findings({HARNESS: [], BARE: []}, [], [], {})
    ways: dict[str, Callable[[], tuple[float, Stages]]] = {BARE: lambda: (bare(job), {})}
    if not args.no_demo:
        ways |= {STREAM: lambda: stream(camera), DEMO: lambda: demo(free)}
        found.times.update({STREAM: [], DEMO: []})
    order = random.Random(0)
    for _ in bar(range(args.repeats), desc="quiet", unit="repetition"):
        for way in order.sample([HARNESS, *ways], 1 + len(ways)):
            if way == HARNESS:
                middle, marks = harness(job)
                found.marks.append(marks)
            else:
                middle, stages = ways[way]()
                if stages:
                    found.stages.setdefault(way, []).append(stages)
            found.times[way].append(middle)
    with busy(core):
        for _ in bar(range(args.repeats), desc="beside a busy process", unit="run"):
            found.busy.append(harness(job))
    return found


def table(found: Findings) -> list[list[str]]:
    """One row a way, one column a repetition."""
    count = len(found.times[HARNESS])
    rows = [["pipeline p50 ms", *(f"run {k}" for k in range(1, count + 1)), "highest / lowest"]]
    everything = {**found.times, "harness beside a busy process": [middle for middle, _ in found.busy]}
    for way, middles in everything.items():
        apart = max(middles) / min(middles)
        rows.append([way, *(f"{middle:.3f}" for middle in middles), f"{apart:.3f}"])
    return rows


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    warn_if_busy()
    core = args.core if args.core is not None else allowed_cpus()[-1]
    frames = frames_from(ROOT / "export" / "sample.jpg", 480, 640)
    plan = Plan(min_queries=args.queries, min_seconds=0.001, rounds=30, loads=1)
    path = next(p for p in files_of(args.model) if p.suffix == ".onnx")
    job = Job((Contender(path.name, str(path)),), plan, frames, (core,))
    height, width = decode(frames[:1])[0].shape[:2]
    found = measure(job, args, core)
    here = machine()
    title = (
        f"{path.name}, frames of {width}x{height}, {args.queries} queries each, one thread, pinned to "
        f"core {core} (stream and demo: not pinned, {RATE:g} frames a second), {here['cpu']}, "
        f"{here['cores']} cores"
    )
    verdicts = [f"{'yes' if held else 'NO':3}  {text}" for text, held in found.verdicts()]
    said = [f"harness, run {k}: {'; '.join(marks) or 'no mark'}" for k, marks in enumerate(found.marks, 1)]
    said += [f"busy, run {k}: {'; '.join(marks) or 'no mark'}" for k, (_, marks) in enumerate(found.busy, 1)]
    for way, runs in found.stages.items():
        for k, stages in enumerate(runs, 1):
            told = ", ".join(f"{name} {ms:.3f}" for name, ms in stages.items())
            said.append(f"{way}, run {k}: {told} ms")
    rows = table(found)
    print(title, as_text(rows), "\n".join(verdicts), "\n".join(said), sep="\n\n")
    if args.output:
        listed = "\n".join(f"- {line}" for line in (*verdicts, *said))
        write_text(args.output / "harness.md", f"{title}\n\n{as_markdown(rows)}\n\n{listed}\n")
        record = {"queries": args.queries, "core": core, "machine": here, **asdict(found)}
        record["verdicts"] = [{"text": text, "held": held} for text, held in found.verdicts()]
        write_text(args.output / "harness.json", json.dumps(record, indent=1))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="portrait", metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--repeats", type=positive, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--queries", type=positive, default=600, metavar="N", help="default: %(default)s")
    parser.add_argument("--core", type=int, metavar="K", help="default: the last this process may use")
    parser.add_argument("--no-demo", action="store_true", help="leave the webcam demo out")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write harness.md and harness.json there")
    args = parser.parse_args(argv)
    return exit_status("harness", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
