"""A request for a TensorRT file: what cannot be is said before anything is loaded, measured or built."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_deeplab.errors import MissingExtra, UserError
from edge_deeplab.export.base import Options
from edge_deeplab.export.trt_settings import DEFAULT_BATCH, TrtSettings

if TYPE_CHECKING:
    from edge_deeplab.export.trt_builder import Api, BuildSettings

IN_FILE = {
    "head": "--head",
    "size": "--size",
    "dynamic": "--dynamic",
    "input_dtype": "--io",
    "layout": "--layout",
    "scheme": "--scheme",
    "keep_float": "--keep-float",
    "remedies": "--no-remedies",
}
"""Fields of the options that a prepared file was written with -> their flags."""

OF_ENGINE = {
    "batch": "--batch",
    "workspace_mib": "--workspace",
    "timing_cache": "--timing-cache",
    "dla_core": "--dla",
    "hardware": "--hardware",
    "version_compatible": "--version-compatible",
}
"""Fields of the settings that only a build uses -> their flags."""


def settings_of(options: Options) -> TrtSettings:
    """The flags of ``--target trt``."""
    given: TrtSettings | None = options.settings
    return given or TrtSettings()


def check(model: str, options: Options) -> Options:
    """Refuse what would fail, or be ignored, later.

    Args:
        model: What is exported: a shipped name, a checkpoint or a prepared ``.onnx``.
        options: What was asked for.

    Returns:
        The options; for TensorRT's own calibrators without remedies, which need ranges in the graph.

    Raises:
        UserError: Flags that do not go together; no GPU; a timing cache that cannot be written.
        MissingExtra: An engine is asked for and TensorRT is not there.
    """
    settings = settings_of(options)
    prepared = Path(model) if Path(model).suffix == ".onnx" else None
    if prepared is not None:
        _check_prepared(prepared, options, settings)
    if "size" in options.dynamic:
        raise UserError("an engine has one input size: give --size instead of --dynamic size")
    if settings.calibrator is not None:
        _check_calibrator(options, settings)
    if settings.prepare:
        _check_prepare(settings)
    else:
        _check_build(prepared, options, settings)
    return options if settings.calibrator is None else dataclasses.replace(options, remedies=False)


def _changed(record: Any, flags: dict[str, str]) -> list[str]:
    """Flags whose fields are not what they are by default."""
    plain = type(record)()
    return [flag for name, flag in flags.items() if getattr(record, name) != getattr(plain, name)]


def _check_prepared(prepared: Path, options: Options, settings: TrtSettings) -> None:
    if settings.prepare:
        raise UserError(f"{prepared} is prepared already; leave --prepare away to build the engine")
    if ignored := _changed(options, IN_FILE):
        raise UserError(
            f"{prepared} is prepared and cannot be changed by {', '.join(ignored)}: leave that away, or "
            "prepare the model again with it"
        )


def _check_calibrator(options: Options, settings: TrtSettings) -> None:
    if settings.prepare:
        raise UserError(
            "--calibrator measures while an engine is built, and --prepare builds none: leave --calibrator "
            "away, or prepare without --int8 and give both when building"
        )
    if options.keep_float:
        raise UserError("--keep-float is for ranges that are in the graph: leave it or --calibrator away")
    method = options.calibration.method if options.calibration else "minmax"
    if method not in ("minmax", settings.calibrator):
        raise UserError(
            f"--calibrator {settings.calibrator} is the method: leave --calibration-method {method} away"
        )


def _check_prepare(settings: TrtSettings) -> None:
    ignored = _changed(settings, OF_ENGINE)
    if not ignored:
        return
    instead = "; for a range of batches give --dynamic batch here" if settings.batch else ""
    raise UserError(f"--prepare builds no engine: give {', '.join(ignored)} when building it{instead}")


def _check_build(prepared: Path | None, options: Options, settings: TrtSettings) -> None:
    """What the build would refuse, and what it needs."""
    from edge_deeplab.export.trt_prepare import graph_precision
    from edge_deeplab.files import check_writable
    from edge_deeplab.runtimes import open_model
    from edge_deeplab.runtimes.cuda_device import open_device

    if options.diagnose:
        raise UserError(
            "an engine cannot be looked into layer by layer: leave --diagnose away, or diagnose the file "
            "that it is built from, with --prepare"
        )
    # TensorRT's own calibrators want the float graph and find the ranges while they build.
    graph: Any = "fp32" if settings.calibrator else options.precision
    dynamic = settings.batch is not None or "batch" in options.dynamic
    if prepared is not None:
        graph = graph_precision(prepared)
        with open_model(prepared) as reference:
            dynamic = "batch" in reference.contract.dynamic
        if options.precision == "fp32":  # without another wish an engine has the precision of its graph
            options = dataclasses.replace(options, precision=graph)
    api = open_api()
    asked = build_settings(options, dynamic=dynamic, source=prepared.name if prepared else "the model")
    api.check(graph, asked, calibrated=settings.calibrator is not None)
    if settings.calibrator and (options.precision != "int8" or options.calibration is None):
        raise UserError("--calibrator measures on pictures: give --int8 and --calibration DIR or KIND:PATH")
    if prepared and options.calibration and not settings.calibrator:
        raise UserError(
            f"{prepared} has its INT8 ranges already: leave --calibration away, or prepare the model again "
            "with it"
        )
    if asked.timing_cache is not None:
        check_writable(asked.timing_cache)
    open_device(0).close()


def open_api() -> Api:
    """TensorRT's builder.

    Raises:
        MissingExtra: It is not there; with the way that needs none.
        UserError: Its version is not supported.
    """
    from edge_deeplab.export.trt_builder import Api
    from edge_deeplab.runtimes.trt_engine import import_tensorrt

    try:
        return Api(import_tensorrt())
    except MissingExtra as error:
        raise MissingExtra(
            f"{error}; or write the ONNX file for TensorRT here with --prepare, and build the engine from "
            "it on the board: edge-deeplab export PREPARED.onnx --target trt"
        ) from error


def build_settings(options: Options, *, dynamic: bool, source: str) -> BuildSettings:
    """What to ask of the builder.

    Args:
        options: ``precision`` and ``settings``.
        dynamic: The batch of the graph is.
        source: Name of the graph, for messages.

    Raises:
        UserError: A range of batches for a graph without one.
    """
    from edge_deeplab.export.trt_builder import BuildSettings

    flags = settings_of(options)
    if flags.batch and not dynamic:
        raise UserError(
            f"{source} was prepared with a fixed batch of 1: leave --batch away or prepare it with "
            "--dynamic batch"
        )
    precision: Any = options.precision
    hardware: Any = flags.hardware
    return BuildSettings(
        precision=precision,
        batch=(flags.batch or DEFAULT_BATCH) if dynamic else (1, 1, 1),
        workspace_mib=flags.workspace_mib,
        timing_cache=Path(flags.timing_cache) if flags.timing_cache else None,
        dla_core=flags.dla_core,
        hardware=hardware,
        version_compatible=flags.version_compatible,
    )
