"""Engines built on a board by TensorRT's Python package, from ONNX files that were prepared elsewhere.

What runs there is the project's own export, so an engine is verified against its ONNX file and gets the
record without which no runtime opens it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from edge_deeplab.bench import facts
from edge_deeplab.bench.connection import Connection, Greeting
from edge_deeplab.bench.device import Progress, Report
from edge_deeplab.bench.record import Contender, Entry, Job, Result
from edge_deeplab.files import sha256

Failures = dict[str, str]
"""Name of a contender -> why it has no engine."""


def build_all(
    link: Connection, there: Greeting, precision: str, sent: Job, report: Report
) -> tuple[Job, Failures]:
    """Build an engine from every ONNX file of a job.

    Args:
        link: An open connection; the modules of :func:`edge_deeplab.bench.bundle.bundle` lie there.
        there: What is at its other end.
        precision: ``fp16``, ``int8``, or ``own`` for what each file was prepared for.
        sent: Its paths lie in our folder there.
        report: Told how far it is.

    Returns:
        The job with engines in place of the ONNX files, without contenders whose engine failed; and
        why they did.
    """
    kept: list[Contender] = []
    failures: Failures = {}
    built: dict[str, str | None] = {}
    for k, contender in enumerate(sent.contenders):
        path = contender.path
        if Path(path).suffix != ".onnx":
            kept.append(contender)
            continue
        report(Progress("build", k, len(sent.contenders), contender.name))
        engine = str(Path(path).with_suffix(".engine"))
        if path not in built:
            built[path] = _build(link, there, path, engine, precision)
        reason = built[path]
        if reason is None:
            options = {key: value for key, value in contender.options.items() if key != "providers"}
            kept.append(dataclasses.replace(contender, path=engine, options=options))
        else:
            failures[contender.name] = f"no engine was built: {reason}"
    return dataclasses.replace(sent, contenders=tuple(kept)), failures


def with_failures(result: Result, contenders: Sequence[Contender], failures: Failures) -> Result:
    """Put those whose engine failed back among the entries, each with its reason."""
    measured = {entry.name: entry for entry in result.entries}
    entries = [
        measured[contender.name] if contender.name in measured else _failed(contender, failures)
        for contender in contenders
    ]
    return result.replace(entries=tuple(entries))


def _failed(contender: Contender, failures: Failures) -> Entry:
    path = Path(contender.path)
    return Entry(
        name=contender.name,
        runtime="TensorRT",
        file=path.name,
        threads=contender.threads,
        bytes=path.stat().st_size,
        sha256=sha256(path),
        error=failures[contender.name],
        **facts.of_file(path),
    )


def _build(link: Connection, there: Greeting, onnx: str, engine: str, precision: str) -> str | None:
    """Build one engine there. Returns why it failed; else None."""
    errors: list[str] = []
    module = "edge_deeplab.export.build_engine"
    program = link.run(
        [there.interpreter, "-m", module, f"{{folder}}/{onnx}", f"{{folder}}/{engine}", precision],
        environment={"PYTHONPATH": "{folder}", "PYTHONDONTWRITEBYTECODE": "1"},
        errors=errors.append,
    )
    said = [*program, *errors]
    if program.status == 0:
        return None
    if program.status == -9:
        return "it was killed (signal 9); most likely the memory there ran out"
    words = [line for line in said if line.strip()]
    return words[-1] if words else f"status {program.status}"
