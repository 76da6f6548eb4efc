"""ONNX: one file with the contract in its metadata, for ONNX Runtime and as the way to TensorRT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_deeplab.errors import needs
from edge_deeplab.export.base import Inspection, Options, Target, Tolerance
from edge_deeplab.spec import InputContract

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_deeplab.models.deeplab import DeepLabV3Plus


def write(
    model: DeepLabV3Plus, contract: InputContract, options: Options, path: Path, *, scheme: str = "u8s8"
) -> InputContract:
    """Trace, simplify, convert to the precision asked for, check and write ``model``.

    Args:
        model: In evaluation mode; batch norm is folded into the convolutions of the file.
        contract: Of the model; size and head are already those of ``options``.
        options: Dynamic axes, opset, precision, calibration, input type and layout.
        path: File to write.
        scheme: Integer types of INT8 where ``options`` names none.

    Returns:
        The contract as stored.
    """
    with needs("export"):
        from edge_deeplab.export import onnx_fp16, onnx_graph, onnx_int8, onnx_io
    with options.doing("tracing the network"):
        graph, contract = onnx_graph.float_graph(model, contract, options)
    if options.precision == "int8":
        scheme = options.scheme or scheme
        graph = onnx_int8.quantise(graph, contract, options, scheme)
        if options.calibration is not None:
            record = options.calibration.record(scheme, options.keep_float)
            contract = contract.replace(quantization=record)
    contract = onnx_io.take(graph, contract, options.input_dtype, options.layout or "NCHW")
    if options.precision == "fp16":
        graph = onnx_fp16.to_half(graph, options.keep_float)
    path.write_bytes(onnx_graph.finish(graph, contract))
    return contract


def inspect(path: Path) -> Inspection:
    """Operators and float islands of a file."""
    import onnx

    from edge_deeplab.export import onnx_int8

    return onnx_int8.inspect(onnx.load(path))


def trace(
    path: Path, layers: Sequence[str], tensors: Iterable[NDArray[Any]]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """What the layers of a file answer, for every input tensor: layer -> (N, C, H, W) float32."""
    from edge_deeplab.export import onnx_trace

    return onnx_trace.trace(path, layers, tensors)


TARGET = Target(
    suffix=".onnx",
    help="ONNX for ONNX Runtime and TensorRT",
    extra="export",
    tolerances={
        "fp32": Tolerance(logits=1e-2, agreement=0.9995, iou_drop=0.001),
        "fp16": Tolerance(logits=None, agreement=0.999, iou_drop=0.001),
        "int8": Tolerance(logits=None, agreement=0.99, iou_drop=0.005, masks_decide=True),
    },
    write=write,
    layouts=("NCHW", "NHWC"),
    input_dtypes=("float32", "uint8"),
    schemes=("u8s8", "s8s8"),
    symmetric=("s8s8",),
    keeps_float=("fp16", "int8"),
    inspect=inspect,
    trace=trace,
    has_opset=True,
    made_with=("onnx", "onnxscript", "onnxsim", "onnxruntime"),
)
