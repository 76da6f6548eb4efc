"""The process of one contender: ``python -m edge_deeplab.bench.child`` loads it, then runs turns when told.

Each contender lives in a process of its own, so that memory is its own, thread settings do not leak, and
libraries do not meet. It reads one JSON object a line from standard input and answers each with one on
what was standard output; libraries that print there write to standard error instead. It ends with its
input, so it cannot outlive the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import IO, Any

import cv2

from edge_deeplab.bench.conditions import resident
from edge_deeplab.bench.frames import decode
from edge_deeplab.bench.loop import as_stages, timed
from edge_deeplab.bench.record import Contender
from edge_deeplab.bench.stats import Steadiness
from edge_deeplab.bench.subject import Subject, import_library, open_subject
from edge_deeplab.bench.typed import from_plain
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame
from edge_deeplab.runtimes import Times

Answer = dict[str, Any]
Clock = time.perf_counter


class Turns:
    """A loaded contender and its frames.

    Args:
        subject: The contender.
        frames: BGR uint8 (H, W, 3), used in turn, on and on.
    """

    def __init__(self, subject: Subject, frames: list[Frame]) -> None:
        self.subject = subject
        self._frames = frames
        self._next = 0

    def window(self) -> Answer:
        """A window of the warm-up rule."""
        times: list[float] = []
        while len(times) < Steadiness.QUERIES or sum(times) < Steadiness.WINDOW_MS:
            times.append(self._query()[0])
        return {"times": times}

    def batch_window(self, size: int) -> Answer:
        """The same in batches."""
        times: list[float] = []
        while len(times) < Steadiness.QUERIES or sum(times) < Steadiness.WINDOW_MS:
            times.append(self._batch(size))
        return {"times": times}

    def single(self, queries: int, lead_in: int) -> Answer:
        """Frame after frame: the next goes in when the mask of the last is out."""
        for _ in range(lead_in):
            self._query()
        pipeline: list[float] = []
        stages: list[Times] = []
        accelerator: list[float | None] = []
        wall, cpu = Clock(), time.process_time()
        for _ in range(queries):
            total, times, device = self._query()
            pipeline.append(total)
            stages.append(times)
            accelerator.append(device)
        cpu, wall = time.process_time() - cpu, Clock() - wall
        return {"stages": _stages(pipeline, stages, accelerator), "wall": wall, "cpu": cpu}

    def stream(self, queries: int, lead_in: int, fps: float) -> Answer:
        """A camera delivers a frame every 1/fps seconds; whoever is ready takes the newest.

        Until ``queries`` masks are out. Frames are used in the order of capture, so a dropped one is
        skipped here too. The lead-in belongs to the stream: the first timed frame finds the camera where
        any later one does, and the time of all is that of so many frames, none less.
        """
        latency: list[float] = []
        pipeline: list[float] = []
        stages: list[Times] = []
        accelerator: list[float | None] = []
        interval, last, met = 1 / fps, -1, 0
        start = Clock()
        for _ in range(lead_in):
            last = _newest(start, interval, last)
            self._query(last)
        before, begin, cpu = last, Clock(), time.process_time()
        while len(latency) < queries:
            last = _newest(start, interval, last)
            total, times, device = self._query(last)
            done = Clock() - start
            latency.append(1e3 * (done - last * interval))
            pipeline.append(total)
            stages.append(times)
            accelerator.append(device)
            met += done <= (last + 1) * interval
        cpu, wall = time.process_time() - cpu, Clock() - begin
        offered = last - before
        found = {**_stages(pipeline, stages, accelerator), "latency": latency}
        counts = {"offered": offered, "met": met, "late": queries - met, "dropped": offered - queries}
        return {"stages": found, "wall": wall, "cpu": cpu, "stream": counts}

    def offline(self, queries: int, lead_in: int, size: int) -> Answer:
        """Batches, one after the other."""
        for _ in range(lead_in):
            self._batch(size)
        wall, cpu = Clock(), time.process_time()
        batches = [self._batch(size) for _ in range(queries)]
        cpu, wall = time.process_time() - cpu, Clock() - wall
        return {"stages": {"batch": batches}, "wall": wall, "cpu": cpu}

    def finish(self) -> Answer:
        """Memory at the end, and only then what takes memory to find out."""
        now, peak = resident()
        return {"steady": now, "peak": peak, "used": self.subject.inspect()}

    def _query(self, number: int | None = None) -> tuple[float, Times, float | None]:
        frame = self._frames[(self._next if number is None else number) % len(self._frames)]
        self._next += 1
        return *timed(self.subject, frame), self.subject.accelerator_ms()

    def _batch(self, size: int) -> float:
        frames = [self._frames[(self._next + k) % len(self._frames)] for k in range(size)]
        self._next += size
        begin = Clock()
        self.subject.batch(frames)
        return 1e3 * (Clock() - begin)


def _stages(pipeline: list[float], times: list[Times], accelerator: list[float | None]) -> dict[str, Any]:
    found: dict[str, Any] = {**as_stages(pipeline, times)}
    if None not in accelerator:
        found["device"] = accelerator
    return found


def _newest(start: float, interval: float, last: int) -> int:
    """Number of the newest frame after ``last``; sleeps until there is one, as an application does.

    Whoever wakes late, wakes to a newer frame: waking up is a part of the latency.
    """
    while (newest := int((Clock() - start) / interval)) <= last:
        time.sleep(max(0.0, start + (last + 1) * interval - Clock()))
    return newest


def load(contender: Contender, frames: list[Frame]) -> tuple[Turns, Answer]:
    """Import, load and run the first frame, each timed."""
    if contender.threads is not None:
        cv2.setNumThreads(contender.threads)
    begin = Clock()
    import_library(contender)
    imported = Clock()
    base, _ = resident()
    subject = open_subject(contender)
    loaded = Clock()
    turns = Turns(subject, frames)
    first, _, _ = turns._query()
    now, _ = resident()
    times = {"import": 1e3 * (imported - begin), "load": 1e3 * (loaded - imported), "first": first}
    return turns, {"times": times, "base": base, "loaded": now, "facts": asdict(subject.facts())}


def _private_output() -> IO[str]:
    """Standard output for us alone; what libraries print there goes to standard error."""
    ours = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return ours


def serve(lines: Iterator[str], answer: Callable[[Answer], None]) -> None:
    """Load what the first line tells, then answer every further line until ``finish`` or the end."""
    told = json.loads(next(lines))
    turns, loaded = load(from_plain(Contender, told["contender"]), decode(told["frames"]))
    answer(loaded)
    for line in lines:
        told = json.loads(line)
        what = told.pop("do")
        before = time.process_time()
        found = getattr(turns, what)(**told)
        answer({**found, "busy": time.process_time() - before})
        if what == "finish":
            break


def main() -> int:
    """Entry point of the process."""
    output = _private_output()

    def answer(value: Answer) -> None:
        output.write(json.dumps(value) + "\n")
        output.flush()

    try:
        serve(iter(sys.stdin.readline, ""), answer)
    except UserError as error:
        answer({"error": " ".join(str(error).split())})
        return 2
    except MemoryError:
        answer({"error": "not enough memory"})
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    except Exception as error:  # noqa: BLE001 - a foreign library's: the run goes on without this contender
        import traceback

        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
