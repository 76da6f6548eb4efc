"""Every artefact of a model: how long exporting takes, in how much memory, and a folder for the bench.

Each export is the command a user types, in a process of its own; seconds and peak memory are those of that
process. The artefacts stay in ``--output``, the command that times them beside each other is printed at the
end. ``--random VARIANT`` makes a checkpoint with random weights first: time does not depend on weights, so
the heads of a 21-class model can be compared before one is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import random_checkpoint
from measuring import as_text, exit_status, machine

from edge_deeplab.cli.arguments import bar, positive, size
from edge_deeplab.errors import UserError
from edge_deeplab.files import write_text
from edge_deeplab.spec import Head
from edge_deeplab.zoo import find

HEADS: tuple[Head, ...] = ("logits", "logits-full", "classmap", "probability")

EXPORTS: dict[str, tuple[str, ...]] = {
    "onnx-fp32": ("--target", "onnx"),
    "onnx-fp16": ("--target", "onnx", "--fp16"),
    "onnx-int8": ("--target", "onnx", "--int8", "--io", "uint8", "--layout", "NHWC"),
    "tflite-fp32": ("--target", "tflite"),
    "tflite-fp16": ("--target", "tflite", "--fp16"),
    "tflite-int8-dynamic": ("--target", "tflite", "--int8-dynamic"),
    "tflite-int8": ("--target", "tflite", "--int8", "--io", "uint8"),
}


@dataclass(frozen=True)
class Export:
    """One export as it went.

    Attributes:
        artefact: File name.
        status: Exit status: 0 verified, 1 too far from PyTorch.
        seconds: From start to end of the process.
        peak_mb: Largest resident set of the process.
        mb: Size of the artefact; None where there is none.
    """

    artefact: str
    status: int
    seconds: float
    peak_mb: float
    mb: float | None


def export(model: str, flags: list[str], output: Path) -> Export:
    """Run the command and watch it."""
    command = [sys.executable, "-m", "edge_deeplab", "export", model, *flags, "--output", str(output)]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = process.stdout.read().decode() if process.stdout else ""
    _, waited, usage = os.wait4(process.pid, 0)
    process.returncode = status = os.waitstatus_to_exitcode(waited)
    seconds = time.perf_counter() - begin
    if status:
        print(f"{output.name}: {said.strip().splitlines()[-1]}", file=sys.stderr)
    mb = output.stat().st_size / 1e6 if output.is_file() else None
    return Export(output.name, status, seconds, usage.ru_maxrss / 1024, mb)


def main() -> int:
    """Export, tabulate, and say how to time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="portrait", help="a shipped name or a checkpoint")
    parser.add_argument("--random", metavar="VARIANT", help="a variant with random weights instead")
    parser.add_argument("--classes", type=positive, default=21, help="of --random (default 21)")
    parser.add_argument("--size", type=size, default=(513, 513), help="of --random (default 513x513)")
    parser.add_argument("--only", nargs="+", choices=list(EXPORTS), default=list(EXPORTS))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=["logits"])
    parser.add_argument("--calibration", metavar="SPEC|DIR", help="passed on to INT8 exports")
    parser.add_argument("--data", metavar="SPEC", help="verify on labelled pictures")
    parser.add_argument("--output", type=Path, default=Path("out/exports"), metavar="DIR")
    args = parser.parse_args()
    if args.random and not args.calibration and any(name.endswith("-int8") for name in args.only):
        raise UserError("INT8 of a random network needs --calibration, or leave it out with --only")
    args.output.mkdir(parents=True, exist_ok=True)
    model = args.model
    if args.random:
        model = str(args.output / f"random-{args.random}.safetensors")
        random_checkpoint.write(args.random, args.classes, args.size, Path(model))
    stem = find(model, prefer=(".safetensors",)).stem
    made = []
    cases = [(name, head) for name in args.only for head in args.heads]
    for name, head in bar(cases, desc="exporting", unit="artefact"):
        flags = [*EXPORTS[name], "--head", head]
        if name.endswith("-int8") and args.calibration:
            flags += ["--calibration", args.calibration]
        if args.data:
            flags += ["--data", args.data]
        if args.random:  # noise has no accuracy to lose
            flags += ["--force", "--no-remedies"]
        target = name.partition("-")[0]
        made.append(export(model, flags, args.output / f"{stem}-{name}-{head}.{target}"))
    print(as_text([("artefact", "verdict", "s", "peak MB", "file MB"), *map(row, made)]))
    print(f"all: {sum(e.seconds for e in made):.0f} s, at most {max(e.peak_mb for e in made):.0f} MB")
    record = {"machine": machine(), "exports": [asdict(entry) for entry in made]}
    write_text(args.output / "exports.json", json.dumps(record, indent=2))
    files = " ".join(str(args.output / entry.artefact) for entry in made if entry.mb is not None)
    print(f"\nto time them beside each other:\n  edge-deeplab bench {files} --threads 1,2")


def row(entry: Export) -> tuple[str, ...]:
    """A line of the table."""
    verdict = "verified" if entry.status == 0 else "REFUSED" if entry.mb is None else "failed, kept"
    size_mb = "-" if entry.mb is None else f"{entry.mb:.2f}"
    return entry.artefact, verdict, f"{entry.seconds:.0f}", f"{entry.peak_mb:.0f}", size_mb


if __name__ == "__main__":
    sys.exit(exit_status("exports.py", main))
