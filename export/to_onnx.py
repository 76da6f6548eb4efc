"""ONNX: one file with the contract in its metadata, for ONNX Runtime and as the way to TensorRT."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
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
        axes[2] = 32 * torch.export.Dim("height", min=1, max=256)
        axes[3] = 32 * torch.export.Dim("width", min=1, max=256)
    example = torch.zeros(2 if "batch" in dynamic else 1, 3, contract.height, contract.width)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=options.opset,
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
    names = {0: "batch", 2: "height", 3: "width"}
    for axis in axes:
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = names[axis]
    proto.producer_name = "edge-deeplab"
    proto.doc_string = f"{contract.name}: {contract.variant}, {contract.head} head"
    onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    return contract


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the tracer's chatter off the terminal; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


TARGET = Target(
    suffix=".onnx",
    help="ONNX for ONNX Runtime and TensorRT",
    extra="export",
    tolerances={"fp32": Tolerance(logits=1e-2, agreement=0.9995, iou_drop=0.001)},
    write=write,
)
