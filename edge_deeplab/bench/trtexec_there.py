"""``trtexec`` at the other end of a connection: builds engines and times them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_deeplab.bench.connection import Connection
from edge_deeplab.bench.record import Plan
from edge_deeplab.bench.tools import trtexec
from edge_deeplab.errors import UserError

WARMUP_MS = 500

TIMES = "times.json"


class Trtexec:
    """The program over there.

    Args:
        link: An open connection.
        program: Its path there.
        cpus: Cores it may run on; empty leaves it all.

    Attributes:
        version: Of its TensorRT.
    """

    def __init__(self, link: Connection, program: str, cpus: Sequence[int]) -> None:
        self._link, self._program = link, program
        self._built: dict[str, str | None] = {}
        self._pinned = ["taskset", "-c", ",".join(map(str, cpus))] if cpus else []
        _, text = self._output("--help")
        self.version = trtexec.parse_version(text)
        if not self.version:
            raise UserError(
                f"{program} does not say which TensorRT it is of ({_last(text)}); is it NVIDIA's trtexec?"
            )

    def __str__(self) -> str:
        return f"trtexec {'.'.join(map(str, self.version))}"

    def build(self, onnx: str, engine: str, graph: str, precision: str) -> str | None:
        """Build an engine there, once. Returns why it cannot be built; else None."""
        if engine not in self._built:
            self._built[engine] = self._build(onnx, engine, graph, precision)
        return self._built[engine]

    def _build(self, onnx: str, engine: str, graph: str, precision: str) -> str | None:
        wrong = self._impossible(graph, precision)
        if wrong:
            return wrong
        words = [f"--onnx={_there(onnx)}", f"--saveEngine={_there(engine)}", *self._flags(graph, precision)]
        # Building is followed by a measurement that nobody looks at: as short as it can be.
        status, text = self._output(*words, "--duration=0", "--iterations=1", "--warmUp=0")
        found = trtexec.parse(text)
        if status == 0 and not found.errors:
            return None
        return (
            f"{self} cannot build it: {_reason(status, text, found)} (was it written by edge-deeplab export "
            "--target trt --prepare?)"
        )

    def time(
        self, engine: str, plan: Plan, turns: int
    ) -> tuple[trtexec.Output, dict[str, tuple[float, ...]]]:
        """One run of an engine: what it printed, and every query's time.

        Raises:
            UserError: It failed: why.
        """
        status, text = self._output(
            f"--loadEngine={_there(engine)}",
            f"--warmUp={WARMUP_MS}",
            f"--duration={math.ceil(plan.min_seconds / turns)}",
            f"--iterations={math.ceil(plan.min_queries / turns)}",
            f"--exportTimes={_there(TIMES)}",
            *trtexec.flags(self.version),
        )
        found = trtexec.parse(text)
        if status != 0 or found.errors or not found.passed:
            raise UserError(f"{self} cannot run it: {_reason(status, text, found)}")
        return found, trtexec.parse_times(self._link.get(TIMES))

    def size(self, name: str) -> int | None:
        """Bytes of a file there."""
        text = "".join(self._link.run(["stat", "-c", "%s", _there(name)]))
        return int(text) if text.isdigit() else None

    def _flags(self, graph: str, precision: str) -> list[str]:
        """11 takes the precision from the graph. Before, INT8 gets FP16 too: not all layers have INT8."""
        if self.version >= (11,) or precision == "fp32":
            return []
        if graph == "fp16" and self.version >= (10,):
            return ["--stronglyTyped"]
        return ["--fp16", "--int8"] if precision == "int8" else ["--fp16"]

    def _impossible(self, graph: str, precision: str) -> str | None:
        if graph == precision or (self.version < (11,) and (graph, precision) == ("fp32", "fp16")):
            return None
        return (
            f"the graph computes in {graph}, an engine in {precision} needs another one: "
            f"edge-deeplab export MODEL --target trt --prepare{f' --{precision}' * (precision != 'fp32')}"
        )

    def _output(self, *words: str) -> tuple[int, str]:
        """(status, what it printed)."""
        lines: list[str] = []
        running = self._link.run([*self._pinned, self._program, *words], errors=lines.append)
        for line in running:
            lines.append(line)  # noqa: PERF402 - errors arrive in between
        return running.status or 0, "\n".join(lines)


def _there(name: str) -> str:
    return f"{{folder}}/{name}"


def _reason(status: int, text: str, found: trtexec.Output) -> str:
    if found.errors:
        return found.errors[0].removeprefix("[TRT] ")
    if status == -9:
        return "it was killed (signal 9); most likely the memory there ran out"
    return f"status {status}: {_last(text)}"


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
