"""An FP16 engine beside the INT8 one, and which of the two is faster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_deeplab.errors import UserError
from edge_deeplab.export.base import Again, Options
from edge_deeplab.export.trt_request import IN_FILE, settings_of

if TYPE_CHECKING:
    from edge_deeplab.export.trt_settings import TrtSettings
    from edge_deeplab.runtimes.base import Runtime

TIMED = 60
"""Inferences of each engine, taken in turns, when two are compared."""


def export_beside(model: str, output: Path, options: Options, export: Again) -> Options:
    """Export the FP16 engine (with ``--prepare``: the FP16 file) that was asked for beside the INT8 one.

    Args:
        model: What is exported.
        output: Where the INT8 one will be.
        options: For the INT8 one.
        export: Exports once more: (model, output, options).

    Returns:
        Options for the INT8 one, with the FP16 engine to time it against.
    """
    settings = settings_of(options)
    if settings.beside is None:
        return options
    from edge_deeplab.export.trt_prepare import graph_precision

    prepared = Path(model).suffix == ".onnx"
    graph = graph_precision(Path(model)) if prepared else options.precision
    if "int8" not in (graph, options.precision):
        raise UserError("--beside-fp16 goes with an INT8 engine: give --int8, or a file prepared with it")
    if graph == "int8" and prepared and not settings.beside:
        raise UserError(
            "an INT8 graph cannot become an FP16 engine: name the FP16 one, --beside-fp16 PREPARED.onnx "
            "(--prepare --int8 --beside-fp16 writes both)"
        )
    stem = output.stem.removesuffix("-int8")
    beside = output.with_name(f"{stem}-fp16{output.suffix}")
    if beside == output:
        raise UserError(f"--output {output}: the FP16 one would have the same name; give another")
    export(settings.beside or model, beside, _in_fp16(options, settings))
    if settings.prepare:
        return options
    return dataclasses.replace(options, settings=dataclasses.replace(settings, rival=beside))


def _in_fp16(options: Options, settings: TrtSettings) -> Options:
    """Without what is for INT8 alone, and for a file that is prepared already, without what is in it."""
    unused = ["calibration", "scheme", "keep_float", "remedies", *(IN_FILE if settings.beside else ())]
    default = Options()
    return dataclasses.replace(
        options,
        **{name: getattr(default, name) for name in unused},
        precision="fp16",
        settings=dataclasses.replace(settings, beside=None, calibrator=None),
    )


def compare(engine: Path, rival: Path, note: Callable[[str], None]) -> None:
    """Say when INT8 is not the faster one: small networks spend the gain on changing formats."""
    from edge_deeplab.runtimes import open_model

    with open_model(engine) as int8, open_model(rival) as fp16:
        ours, theirs = _times(int8, fp16)
    figures = f"INT8 {ours:.2f} ms, FP16 {theirs:.2f} ms (p50 of {TIMED}, in turns, copies included)"
    if ours > theirs:
        note(f"INT8 is the slower one here: {figures}; use {rival}")
    else:
        note(figures)


def _times(*models: Runtime) -> list[float]:
    """Median milliseconds of one inference of each model, taken in turns."""
    import numpy as np

    tensors = []
    for model in models:
        contract = model.contract
        shape = (3, contract.height, contract.width)
        shape = shape if contract.layout == "NCHW" else (*shape[1:], 3)
        tensors.append(np.zeros((1, *shape), contract.dtype))
        for _ in range(10):
            model.infer(tensors[-1])
    taken: list[list[float]] = [[] for _ in models]
    for _ in range(TIMED):
        for model, tensor, times in zip(models, tensors, taken, strict=True):
            begin = time.perf_counter()
            model.infer(tensor)
            times.append(1e3 * (time.perf_counter() - begin))
    return [float(np.median(times)) for times in taken]
