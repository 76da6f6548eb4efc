"""The flags of ``--target trt`` and the record they become."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from edge_deeplab.errors import UserError

DEFAULT_BATCH = (1, 1, 8)
"""Smallest, best and largest batch of a prepared file with dynamic batch."""


@dataclass(frozen=True)
class TrtSettings:
    """The flags of ``--target trt``.

    Attributes:
        prepare: Stop at the prepared ONNX file.
        calibrator: Have TensorRT measure INT8 ranges itself, ``entropy`` or ``minmax``.
        batch: Smallest, best and largest batch; None: fixed at 1, or :data:`DEFAULT_BATCH` where the
            prepared file's is dynamic.
        workspace_mib, timing_cache, dla_core, hardware, version_compatible: See
            :class:`edge_deeplab.export.trt_builder.BuildSettings`.
        beside: Build an FP16 engine too: the prepared FP16 file to make it from, ``""`` to make it from
            the model itself; None: do not.
        rival: The FP16 engine once built, to time the INT8 one against.
    """

    prepare: bool = False
    calibrator: str | None = None
    batch: tuple[int, int, int] | None = None
    workspace_mib: int | None = None
    timing_cache: str | None = None
    dla_core: int | None = None
    hardware: str = "same-gpu"
    version_compatible: bool = False
    beside: str | None = None
    rival: Path | None = None


def arguments(group: argparse._ArgumentGroup) -> None:
    """The flags of ``--target trt``."""
    group.add_argument(
        "--prepare",
        action="store_true",
        help="write the ONNX file that engines are built from, verified; needs no TensorRT",
    )
    group.add_argument(
        "--calibrator",
        choices=("entropy", "minmax"),
        help="with --int8: let TensorRT up to 10 measure the ranges itself, from --calibration",
    )
    group.add_argument(
        "--batch",
        type=_batch,
        metavar="MIN,BEST,MAX",
        help="batch sizes of the engine (default: 1; 1,1,8 where the prepared file's batch is dynamic)",
    )
    group.add_argument("--workspace", type=int, metavar="MIB", help="scratch memory while building")
    group.add_argument(
        "--timing-cache", metavar="PATH", help="keep measured layer times here; the next build is faster"
    )
    group.add_argument("--dla", type=int, metavar="CORE", help="run on this DLA core, the rest on the GPU")
    group.add_argument(
        "--hardware",
        choices=("same-gpu", "same-compute-capability", "ampere-plus"),
        default="same-gpu",
        help="GPUs the engine shall run on (default: the kind it is built on, the fastest)",
    )
    group.add_argument(
        "--version-compatible",
        action="store_true",
        help="let later TensorRT versions read the engine, at some cost in speed",
    )
    group.add_argument(
        "--beside-fp16",
        nargs="?",
        const="",
        metavar="PREPARED.onnx",
        help="with --int8: build an FP16 engine too and say which is faster",
    )


def settings(args: argparse.Namespace) -> TrtSettings:
    """The flags above as a record."""
    for flag, value in (("--workspace", args.workspace), ("--dla", args.dla)):
        if value is not None and value < (flag == "--workspace"):
            raise UserError(f"{flag} {value} is too small")
    return TrtSettings(
        prepare=args.prepare,
        calibrator=args.calibrator,
        batch=args.batch,
        workspace_mib=args.workspace,
        timing_cache=args.timing_cache,
        dla_core=args.dla,
        hardware=args.hardware,
        version_compatible=args.version_compatible,
        beside=args.beside_fp16,
    )


def _batch(text: str) -> tuple[int, int, int]:
    """``4`` or ``1,4,16``."""
    try:
        sizes = [int(part) for part in text.split(",")]
        smallest, best, largest = sizes * 3 if len(sizes) == 1 else sizes
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no batch; give MIN,BEST,MAX, e.g. 1,4,16") from None
    if not 1 <= smallest <= best <= largest:
        raise argparse.ArgumentTypeError(f"{text!r}: batches must be 1 or more and must not fall")
    return smallest, best, largest
