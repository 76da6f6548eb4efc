"""Every CPU artefact of a model, one after the other in one process: how long, and in how much memory.

What a user does who has no pictures: INT8 is calibrated and everything is verified on what comes with the
package. Float graphs are converted once and shared. Other models than shipped ones need ``--calibration``.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from measuring import as_text, exit_status, machine

from edge_deeplab.bench.tables import figure, megabytes
from edge_deeplab.cli.arguments import bar
from edge_deeplab.export import Options, VerificationError, calibration, export_model
from edge_deeplab.files import write_text

ARTEFACTS = {
    "onnx-fp32": Options(),
    "onnx-fp16": Options(precision="fp16"),
    "onnx-int8": Options(precision="int8", input_dtype="uint8", layout="NHWC"),
    "tflite-fp32": Options(),
    "tflite-fp16": Options(precision="fp16"),
    "tflite-int8-dynamic": Options(precision="int8-dynamic"),
    "tflite-int8": Options(precision="int8", input_dtype="uint8"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", nargs="?", default="portrait", metavar="MODEL")
    parser.add_argument("--output", type=Path, default=Path("out/all"), metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=list(ARTEFACTS), default=list(ARTEFACTS))
    parser.add_argument("--calibration", metavar="SPEC|DIR", help="pictures for INT8")
    args = parser.parse_args(argv)
    return exit_status("export_all", lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Export, and print the table."""
    begin = time.perf_counter()
    choose = calibration.choose if args.calibration else calibration.for_shipped
    pictures = choose(args.calibration or args.model)
    rows = []
    with tempfile.TemporaryDirectory(prefix="edge-deeplab-") as scratch:
        for name in bar(args.only, desc="exporting", unit="artefact"):
            options = ARTEFACTS[name]
            chosen = pictures if options.precision == "int8" else None
            options = replace(options, calibration=chosen, scratch=Path(scratch))
            rows.append(export(args.model, name, options, args.output))
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(as_text([("artefact", "seconds", "MB", "labels as PyTorch's", "verdict"), *rows]))
    print(f"together {seconds:.0f} s, at most {peak / 1e9:.2f} GB of memory")
    record = {"machine": machine(), "seconds": seconds, "peak_bytes": peak, "artefacts": rows}
    write_text(args.output / "export_all.json", json.dumps(record, indent=1))


def export(model: str, name: str, options: Options, folder: Path) -> tuple[str, ...]:
    """One artefact, one row."""
    target = name.partition("-")[0]
    begin = time.perf_counter()
    verdict = "verified"
    try:
        report = export_model(model, target, folder / f"{Path(model).stem}-{name}.{target}", options)
    except VerificationError as error:
        report, verdict = error.report, f"refused: {error}"
    took = figure(time.perf_counter() - begin, 1)
    return name, took, megabytes(report.bytes), f"{report.agreement:.2%}", verdict


if __name__ == "__main__":
    sys.exit(main())
