"""TensorRT: a prepared ONNX file anywhere, or an engine with its sidecar on the machine that will run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_deeplab.export.base import Again, Inspection, Options, Target, Tolerance
from edge_deeplab.export.trt_beside import compare, export_beside
from edge_deeplab.export.trt_request import build_settings, check, open_api, settings_of
from edge_deeplab.export.trt_settings import arguments, settings
from edge_deeplab.spec import InputContract

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_deeplab.export.trt_builder import Api, BuildSettings, GraphPrecision
    from edge_deeplab.models.deeplab import DeepLabV3Plus
    from edge_deeplab.runtimes.cuda_device import Device

# -- from a checkpoint ---------------------------------------------------------------------------


def write(model: DeepLabV3Plus, contract: InputContract, options: Options, path: Path) -> InputContract:
    """Write the prepared ONNX file, and unless that is all that was asked for, build the engine from it."""
    from edge_deeplab.export import to_onnx
    from edge_deeplab.export.trt_prepare import prepare
    from edge_deeplab.export.trt_rules import OPSET

    flags = settings_of(options)
    # TensorRT's own calibrators want the float graph and find the ranges while they build.
    graph: Any = "fp32" if flags.calibrator else options.precision
    exported = dataclasses.replace(
        options,
        opset=OPSET,
        scheme="s8s8",
        dynamic=("batch",) if flags.batch else options.dynamic,
        precision=graph,
        settings=None,
    )
    prepared = path if flags.prepare else _scratch(options) / "prepared.onnx"
    contract = to_onnx.write(model, contract.replace(precision=graph), exported, prepared)
    prepare(prepared, graph)
    return contract if flags.prepare else build(prepared, contract, options, path)


def _scratch(options: Options) -> Path:
    if options.scratch is None:
        raise TypeError("an engine is built by export_model, which gives a scratch folder")
    return options.scratch


# -- from a prepared file ------------------------------------------------------------------------


def build(prepared: Path, contract: InputContract, options: Options, path: Path) -> InputContract:
    """Build an engine for the GPU at hand, and its sidecar beside it. No torch, no onnx.

    Args:
        prepared: Written by :func:`write`, here or elsewhere.
        contract: Of the prepared file.
        options: ``precision`` and ``settings``.
        path: The engine.

    Returns:
        The engine's contract.
    """
    from edge_deeplab.export import trt_builder
    from edge_deeplab.export.trt_prepare import graph_precision
    from edge_deeplab.files import read_bytes
    from edge_deeplab.runtimes.cuda_device import open_device

    flags = settings_of(options)
    graph = graph_precision(prepared)
    api = open_api()
    asked = build_settings(options, dynamic="batch" in contract.dynamic, source=contract.name)
    api.check(graph, asked, calibrated=flags.calibrator is not None)
    onnx = read_bytes(prepared)
    device = open_device(0)
    try:
        calibrator, calibrated = _calibrator(api, contract, options, onnx, device)
        plan = trt_builder.build(
            api,
            onnx,
            asked,
            graph=graph,
            source=prepared.name,
            calibrator=calibrator,
            progress=options.progress,
            note=options.note,
        )
        contract = contract.replace(precision=options.precision)
        if flags.calibrator is not None and options.calibration is not None:
            ranges = options.calibration.record("s8s8")
            contract = contract.replace(
                quantization=dataclasses.replace(ranges, method=flags.calibrator)  # and not our own
            )
        path.write_bytes(plan)
        _write_sidecar(path, plan, onnx, api, asked, graph, device, contract, calibrated)
    finally:
        device.close()
    if flags.rival is not None:
        compare(path, flags.rival, options.note)
    return contract


def _calibrator(
    api: Api, contract: InputContract, options: Options, onnx: bytes, device: Device
) -> tuple[Any, dict[str, Any]]:
    """TensorRT's own calibrator and what it measures on; (None, {}) where ranges are in the graph."""
    import hashlib

    from edge_deeplab.export import trt_calibrator

    method: Any = settings_of(options).calibrator
    if method is None:
        return None, {}
    if options.calibration is None:
        raise TypeError("a calibrator needs pictures; export_model asks for them")
    made = trt_calibrator.make_calibrator(
        api,
        method,
        options.calibration,
        contract,
        graph=hashlib.sha256(onnx).hexdigest(),
        device=device,
        progress=options.progress,
        note=options.note,
    )
    return made, trt_calibrator.record(options.calibration, method)


def _write_sidecar(
    path: Path,
    plan: bytes,
    onnx: bytes,
    api: Api,
    asked: BuildSettings,
    graph: GraphPrecision,
    device: Device,
    contract: InputContract,
    calibrated: dict[str, Any],
) -> None:
    import hashlib

    from edge_deeplab.runtimes.trt_sidecar import Sidecar, write_sidecar
    from edge_deeplab.version import __version__

    write_sidecar(
        path,
        Sidecar(
            engine_sha256=hashlib.sha256(plan).hexdigest(),
            prepared_sha256=hashlib.sha256(onnx).hexdigest(),
            tensorrt=api.trt.__version__,
            compute_capability=f"{device.capability[0]}.{device.capability[1]}",
            gpu=device.name,
            hardware=asked.hardware,
            version_compatible=asked.version_compatible,
            dla_core=asked.dla_core,
            batch=asked.batch,
            contract=contract,
            build={
                "graph": graph,
                "strongly typed": api.strongly_typed(graph, asked),
                "workspace MiB": asked.workspace_mib,
                "calibration": calibrated,
                "edge-deeplab": __version__,
                "cuda through": device.library,
            },
        ),
    )


def inspect(path: Path) -> Inspection | None:
    """Operators of a prepared file; an engine's layers are TensorRT's own."""
    if path.suffix != ".onnx":
        return None
    import onnx

    from edge_deeplab.export.trt_rules import float_operators

    model = onnx.load(path)
    kinds = [node.op_type for node in model.graph.node]
    quantised = "QuantizeLinear" in kinds
    return Inspection(
        ops={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        islands=float_operators(model) if quantised else {},
    )


def trace(
    path: Path, layers: Sequence[str], tensors: Iterable[NDArray[Any]]
) -> Iterable[dict[str, NDArray[np.float32]]]:
    """Layer outputs of a prepared file, for ``--diagnose``."""
    from edge_deeplab.export import to_onnx

    return to_onnx.trace(path, layers, tensors)


def suffix_for(options: Options) -> str:
    """``--prepare`` stops at the ONNX file."""
    return ".onnx" if settings_of(options).prepare else ".engine"


def before(model: str, output: Path, options: Options, export: Again) -> Options:
    """Say what cannot be, then export what was asked for beside it."""
    return export_beside(model, output, check(model, options), export)


TARGET = Target(
    suffix=".engine",
    help="a TensorRT engine for the GPU at hand; --prepare: the ONNX file to build it from elsewhere",
    extra="trt",
    tolerances={
        "fp32": Tolerance(logits=1e-2, agreement=0.9995, iou_drop=0.001),
        "fp16": Tolerance(logits=None, agreement=0.999, iou_drop=0.001),
        "int8": Tolerance(logits=None, agreement=0.99, iou_drop=0.005, masks_decide=True),
    },
    write=write,
    layouts=("NCHW", "NHWC"),
    input_dtypes=("float32", "uint8"),
    schemes=("s8s8",),
    symmetric=("s8s8",),
    keeps_float=("fp16", "int8"),
    inspect=inspect,
    trace=trace,
    arguments=arguments,
    settings=settings,
    build=build,
    suffix_for=suffix_for,
    before=before,
    made_with=("onnx", "onnxscript", "onnxsim", "onnxruntime"),
)
