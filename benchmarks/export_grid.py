"""What ``exports.py`` exports: targets x precisions x heads, each by the command a user types."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import random_checkpoint

from edge_deeplab.errors import UserError
from edge_deeplab.files import write_text
from edge_deeplab.spec import Head
from edge_deeplab.zoo import checkpoint_contract, find, shipped

HEADS: tuple[Head, ...] = ("logits", "logits-full", "classmap", "probability")

EXPORTS: dict[str, tuple[str, ...]] = {
    "onnx-fp32": ("--target", "onnx"),
    "onnx-fp16": ("--target", "onnx", "--fp16"),
    "onnx-int8": ("--target", "onnx", "--int8", "--io", "uint8", "--layout", "NHWC"),
    "tflite-fp32": ("--target", "tflite"),
    "tflite-fp16": ("--target", "tflite", "--fp16"),
    "tflite-int8-dynamic": ("--target", "tflite", "--int8-dynamic"),
    "tflite-int8": ("--target", "tflite", "--int8", "--io", "uint8"),
    "tflite-signed-int8": ("--target", "tflite", "--int8", "--io", "int8"),
}
"""Every artefact for CPUs that a model can become."""

ALL_HEADS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")
"""Exports whose heads are all tried; the others stand between them and get the default head."""

RANDOM = "random:"
"""``random:VARIANT``: 21 classes at 513x513, weights that were never trained."""


@dataclass(frozen=True)
class Model:
    """A model that is exported.

    Attributes:
        title: For tables and file names.
        argument: What ``edge-deeplab export`` is given.
        checkpoint: Its file.
        data: Labelled pictures, a SPEC; empty: none fit its classes.
        calibration: SPEC or folder.
        shipped: It came with the package.
        trained: Random weights have no accuracy to lose, so nothing is refused or mended.
    """

    title: str
    argument: str
    checkpoint: Path
    data: str
    calibration: str
    shipped: bool = False
    trained: bool = True


@dataclass(frozen=True)
class Export:
    """One export as it went.

    Attributes:
        model, name, head: What was exported.
        path: The artefact.
        status: Exit status: 0 verified, 1 too far from PyTorch.
        seconds: From start to end of the process.
        peak_mb: Largest resident set of the process.
        report: ``ARTEFACT.report.json``; None where it was refused.
    """

    model: str
    name: str
    head: str
    path: Path
    status: int
    seconds: float
    peak_mb: float
    report: dict[str, Any] | None


def models(names: Sequence[str], shared: Path, output: Path, weights: Path | None) -> Iterator[Model]:
    """The models behind the arguments; random ones are written to ``output`` first.

    Labelled pictures are those in ``shared`` that have the model's classes.

    Raises:
        UserError: No such model.
    """
    for name in names:
        trained = not name.startswith(RANDOM)
        if trained:
            argument, title = name, Path(name).stem
        else:
            title = f"{name.removeprefix(RANDOM)} of 21 classes"
            argument = str(output / f"random-{name.removeprefix(RANDOM)}.safetensors")
            random_checkpoint.write(name.removeprefix(RANDOM), 21, (513, 513), Path(argument), weights)
        path = find(argument, prefer=(".safetensors",))
        contract = checkpoint_contract(path)
        portrait, camvid = f"folder:{shared / 'data' / 'eg'}", f"camvid:{shared / 'data' / 'camvid'}"
        if not trained:
            yield Model(title, argument, path, "", portrait, trained=False)
        elif contract.binary:
            yield Model(title, argument, path, portrait, portrait, shipped=name in shipped())
        elif "camvid" in contract.name:
            yield Model(title, argument, path, camvid, camvid)
        else:
            raise UserError(f"{shared} has no pictures with the {len(contract.classes)} classes of {name}")


def export(
    model: Model, name: str, head: str, output: Path, *, pictures: int, views: str, reuse: bool = False
) -> Export:
    """Run the command and watch it.

    Args:
        model, name, head: What to export; ``name`` is a key of :data:`EXPORTS`.
        output: Folder of the artefact.
        pictures: At most as many are verified on.
        views: Folder of pictures for models without labelled ones; empty: what comes with the package.
        reuse: Take an artefact that is there already, with what was written down about it.
    """
    path = output / f"{model.title.replace(' ', '-')}-{name}-{head}.{name.partition('-')[0]}"
    record = path.with_name(f"{path.name}.exported.json")
    if reuse and path.is_file() and record.is_file():
        return Export(path=path, **json.loads(record.read_text()))
    flags = [*EXPORTS[name], "--head", head]
    if model.data or views:
        flags += ["--count", str(pictures)]
        flags += ["--data", model.data] if model.data else ["--pictures", views]
    int8 = "--int8" in flags
    if int8 and model.calibration:
        flags += ["--calibration", model.calibration]
    if not model.trained:
        flags += ["--force", *(["--no-remedies"] if int8 else [])]
    command = [sys.executable, "-m", "edge_deeplab", "export", model.argument, *flags, "--output", str(path)]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said = process.stdout.read().decode() if process.stdout else ""
        _, waited, usage = os.wait4(process.pid, 0)
        process.returncode = status = os.waitstatus_to_exitcode(waited)
    seconds = time.perf_counter() - begin
    if status:
        print(f"{path.name}: {said.strip().splitlines()[-1]}", file=sys.stderr)
    if status not in (0, 1):
        raise UserError(f"exporting {path.name} ended with status {status}")
    verified = path.with_name(f"{path.name}.report.json")
    report = json.loads(verified.read_text()) if verified.is_file() and path.is_file() else None
    done = Export(model.title, name, head, path, status, seconds, usage.ru_maxrss / 1024, report)
    if report:
        facts = {key: value for key, value in dataclasses.asdict(done).items() if key != "path"}
        write_text(record, json.dumps(facts))
    return done


def cases(only: Sequence[str], heads: Sequence[Head]) -> list[tuple[str, Head]]:
    """(export, head) in the order of the table."""
    return [(name, head) for name in only for head in (heads if name in ALL_HEADS else heads[:1])]
