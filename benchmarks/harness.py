"""What ``edge-deeplab bench`` itself costs, and whether it repeats: the harness against a bare loop.

The bare loop is a process that opens the model and calls ``segment`` in a ``for`` loop with a clock around
it: nothing else runs, nothing takes turns. Harness and bare loop measure the same model one after the
other, again and again, in an order drawn anew; the ratio of their medians is the overhead. With ``--busy``
another process computes on the same core meanwhile: the harness must then mark its own results.

Needs ``pip install -e '.[onnx]'``.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from measuring import ROOT, as_text, bar, exit_status, machine, paired_ratio, warn_if_busy

from edge_deeplab.bench import Contender, Job, Plan, Result, open_device
from edge_deeplab.bench.frames import decode, frames_from
from edge_deeplab.bench.lineup import files_of
from edge_deeplab.bench.session import allowed_cpus
from edge_deeplab.cli.arguments import positive

BARE = """
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


def harness(job: Job) -> tuple[float, Result]:
    """Median pipeline by ``edge-deeplab bench``, and the whole result."""
    result = open_device("local").measure(job, lambda _: None)
    middle = result.entries[0].stages["pipeline"].p50
    if middle is None:
        raise ValueError("a measured contender has a median")
    return middle, result


def bare(job: Job, queries: int) -> float:
    """Median of a plain loop."""
    told = {"path": job.contenders[0].path, "frames": job.frames, "warmup": 30, "queries": queries}
    done = subprocess.run(
        [*_pinned(job), sys.executable, "-c", BARE],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(np.median(json.loads(done.stdout)))


def _pinned(job: Job) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, job.cpus))] if job.cpus else []


@contextmanager
def busy(core: int, wanted: bool) -> Iterator[None]:
    """Within the block another process computes on ``core``."""
    if not wanted:
        yield
        return
    neighbour = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", BURN])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    warn_if_busy()
    core = args.core if args.core is not None else allowed_cpus()[-1]
    frames = frames_from(ROOT / "export" / "sample.jpg", 480, 640)
    plan = Plan(min_queries=args.queries, min_seconds=0.001, rounds=30, loads=1)
    path = next(p for p in files_of(args.model) if p.suffix == ".onnx")
    job = Job((Contender(Path(path).name, str(path)),), plan, frames, (core,))
    size = decode(frames[:1])[0].shape
    order = random.Random(0)
    found: dict[str, list[float]] = {"harness": [], "bare loop": []}
    marks: list[str] = []
    with busy(core, args.busy):
        for _ in bar(range(args.repeats), desc="repeats"):
            for who in order.sample(list(found), 2):
                if who == "harness":
                    middle, result = harness(job)
                    own = [m.text for m in (*result.marks, *result.entries[0].marks)]
                    marks.append("; ".join(own) or "none")
                else:
                    middle = bare(job, args.queries)
                found[who].append(middle)
    here = machine()
    print(
        f"{Path(path).name}, frames of {size[1]}x{size[0]}, {args.queries} queries each, core {core}, "
        f"{here['cpu']}{', beside a busy process' if args.busy else ''}"
    )
    rows = [["p50 ms", *(f"run {k}" for k in range(1, args.repeats + 1)), "highest / lowest"]]
    for who, middles in found.items():
        apart = max(middles) / min(middles)
        rows.append([who, *(f"{v:.3f}" for v in middles), f"{apart:.3f}"])
    print(as_text(rows))
    ratio = paired_ratio(np.array(found["harness"]), np.array(found["bare loop"]))
    print(f"harness / bare loop: {ratio.value:.3f} ({ratio.low:.3f}–{ratio.high:.3f})")
    for k, text in enumerate(marks, 1):
        print(f"marks of run {k}: {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="portrait", metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--queries", type=positive, default=600, metavar="N", help="default: %(default)s")
    parser.add_argument("--core", type=int, metavar="K", help="default: the last this process may use")
    parser.add_argument("--busy", action="store_true", help="another process computes on the same core")
    args = parser.parse_args(argv)
    return exit_status("harness", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
