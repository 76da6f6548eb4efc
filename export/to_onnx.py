"""ONNX: one file with the contract in its metadata, for ONNX Runtime and as the way to TensorRT."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.base import Options, Target, Tolerance
from edge_deeplab.spec import METADATA_KEY, InputContract

if TYPE_CHECKING:
    from edge_deeplab.models.deeplab import DeepLabV3Plus

OUTPUT_NAMES = {
    "logits": "logits",
    "logits-full": "logits",
    "probability": "probability",
    "classmap": "labels",
}

TRACED_OPSET = 18
"""The oldest opset that torch's tracer writes; TensorRT 8 (JetPack 5) reads no newer than 17."""


def write(model: DeepLabV3Plus, contract: InputContract, options: Options, path: Path) -> InputContract:
    """Trace, simplify, check and write ``model``.

    Args:
        model: In evaluation mode; batch norm is folded into the convolutions of the file.
        contract: Of the model; size and head are already those of ``options``.
        options: Dynamic axes and opset.
        path: File to write.

    Returns:
        The contract as stored.
    """
    with needs("export"):
        import onnx
        import onnxsim
        import torch

        from edge_deeplab.export.heads import with_head
    if options.opset < 17:
        raise UserError(f"opset {options.opset} is too old; 17 is the least")
    network, contract = with_head(model, contract)
    dynamic = tuple(
        axis
        for axis in ("batch", "height", "width")
        if axis in options.dynamic or (axis != "batch" and "size" in options.dynamic)
    )
    contract = contract.replace(layout="NCHW", dtype="float32", dynamic=dynamic)
    axes: dict[int, Any] = {}
    if "batch" in dynamic:
        axes[0] = torch.export.Dim("batch", min=1, max=1024)
    if "height" in dynamic:
        # Multiples of 32: every stride divides evenly, so paddings are constants of the graph.
        axes[2] = 32 * torch.export.Dim("height_by_32", min=1, max=256)
        axes[3] = 32 * torch.export.Dim("width_by_32", min=1, max=256)
        if contract.height % 32 or contract.width % 32:
            raise UserError(
                f"--dynamic size needs a default of multiples of 32, not {contract.height}x{contract.width}"
            )
    # An example axis of length 1 would be taken for a constant, in these units too.
    size = [max(64, v) if "height" in dynamic else v for v in (contract.height, contract.width)]
    example = torch.zeros(2 if "batch" in dynamic else 1, 3, *size)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=max(TRACED_OPSET, options.opset),
            verbose=False,
            input_names=["image"],
            output_names=[OUTPUT_NAMES[contract.head]],
            dynamic_shapes={"image": axes} if axes else None,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        proto, simplified = onnxsim.simplify(program.model_proto)
    if not simplified:
        raise UserError(
            "onnxsim changed what the network computes; please report this with your versions (doctor)"
        )
    if options.opset < TRACED_OPSET:
        proto = _lowered(proto, options.opset)
    written = next(entry.version for entry in proto.opset_import if not entry.domain)
    if written != options.opset:
        raise UserError(f"torch {torch.__version__} cannot write opset {options.opset}; leave --opset away")
    _name_axes(proto, axes, contract.head_stride)
    proto.producer_name = "edge-deeplab"
    proto.doc_string = f"{contract.name}: {contract.variant}, {contract.head} head"
    onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    return contract


def _lowered(proto: Any, opset: int) -> Any:
    """The same graph in an older opset than the tracer can write."""
    import onnx.version_converter

    proto = onnx.version_converter.convert_version(proto, opset)
    for node in proto.graph.node:
        for attribute in list(node.attribute):
            if (
                attribute.name == "noop_with_empty_axes"
            ):  # ReduceMean has it from 18 on; left by the converter
                node.attribute.remove(attribute)
    return proto


def _name_axes(proto: Any, axes: Iterable[int], stride: int) -> None:
    """Call the dynamic axes batch, height and width, and those of the output e.g. height/4."""
    given, answered = (v[0].type.tensor_type.shape.dim for v in (proto.graph.input, proto.graph.output))
    for axis in axes:
        name = {0: "batch", 2: "height", 3: "width"}[axis]
        given[axis].dim_param = name
        if axis:  # the last two, with or without a channel axis before them
            answered[axis - 4].dim_param = name if stride == 1 else f"{name}/{stride}"
        else:
            answered[0].dim_param = name


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the tracer's chatter off the terminal; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


TARGET = Target(
    suffix=".onnx",
    help="ONNX for ONNX Runtime and TensorRT",
    extra="export",
    tolerances={"fp32": Tolerance(logits=1e-2, agreement=0.9995, iou_drop=0.001)},
    write=write,
)
