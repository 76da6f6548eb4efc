"""INT8 ONNX as Q/DQ: weights per channel, activations uint8 for CPUs or symmetric int8 for TensorRT."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export import ranges
from edge_deeplab.export.base import Inspection, Options
from edge_deeplab.export.calibration import Calibration, statistics
from edge_deeplab.export.onnx_graph import INPUT_NAME, path_unchanged
from edge_deeplab.spec import InputContract

OPERATORS = ("Conv", "Clip", "Relu", "Add", "Concat", "Resize", "GlobalAveragePool", "Expand")
"""What is quantised; all else is the head, which stays in float."""

FLOAT_KERNELS = ("Resize",)
"""ONNX Runtime computes these in float on CPUs, between a DequantizeLinear and a QuantizeLinear."""

GLUE = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Style:
    """How a consumer wants its Q/DQ graph.

    Attributes:
        activations: ``QUInt8`` or ``QInt8`` of ``onnxruntime.quantization.QuantType``.
        symmetric: Zero point 0, so that no correction term is needed.
        bias: int32 biases; TensorRT wants them in float.
        dedicated: Every consumer has a Q/DQ pair of its own, as TensorRT's fusions expect.
    """

    activations: str
    symmetric: bool
    bias: bool
    dedicated: bool


STYLES = {
    "u8s8": Style("QUInt8", symmetric=False, bias=True, dedicated=False),
    "s8s8": Style("QInt8", symmetric=True, bias=False, dedicated=True),
}


def quantise(graph: Any, contract: InputContract, options: Options, scheme: str) -> Any:
    """Put quantisation into a float graph.

    Args:
        graph: From :func:`edge_deeplab.export.onnx_graph.float_graph`; changed.
        contract: Of the model; the input's range follows from it, not from pictures.
        options: Calibration and the layers that stay in float.
        scheme: A key of :data:`STYLES`.

    Raises:
        UserError: No calibration.
    """
    with needs("export"), path_unchanged():
        from onnxruntime.quantization import QDQQuantizer, QuantType
    if options.calibration is None:
        raise UserError("INT8 needs calibration pictures; see edge_deeplab.export.calibration.choose")
    style = STYLES[scheme]
    measured = _ranges(graph, contract, options.calibration, options)
    graph = _with_shapes(graph)
    with options.doing("rounding to INT8"), _quiet():
        quantizer = QDQQuantizer(
            graph,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType[style.activations],
            tensors_range=_tensors_data(measured),
            nodes_to_quantize=[],
            nodes_to_exclude=[*options.keep_float, *_head(graph)],
            op_types_to_quantize=list(OPERATORS),
            extra_options={
                "ActivationSymmetric": style.symmetric,
                "QuantizeBias": style.bias,
                "DedicatedQDQPair": style.dedicated,
                "TensorQuantOverrides": {INPUT_NAME: [_input_scale(contract, style)]},
            },
        )
        quantizer.quantize_model()
    quantised = quantizer.model.model
    _stay_float(quantised, options.keep_float)
    return quantised


def _stay_float(graph: Any, names: Collection[str]) -> None:
    """Put a Clip that changes nothing between a DequantizeLinear and a convolution that is to stay float.

    ONNX Runtime rounds float weights between DequantizeLinear and QuantizeLinear to int8 itself, with one
    scale for all channels (its transformer WeightBiasQuantization; microsoft/onnxruntime pull requests
    22969 and 25673), which is worse than what the layer was kept from.
    """
    import onnx

    makers = {output: node for node in graph.graph.node for output in node.output}
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in graph.graph.initializer}
    nodes = []
    for node in graph.graph.node:
        before = makers.get(node.input[0]) if node.input else None
        if node.name in names and before is not None and before.op_type == "DequantizeLinear":
            scale, zero = (constants[name] for name in before.input[1:3])
            limits = np.iinfo(zero.dtype)
            ends = {"lowest": limits.min, "highest": limits.max}
            kept = f"{node.name}.kept"
            for end, integer in ends.items():
                value = np.asarray(np.float32(integer - int(zero)) * scale, np.float32)
                graph.graph.initializer.append(onnx.numpy_helper.from_array(value, f"{kept}.{end}"))
            nodes.append(
                onnx.helper.make_node(
                    "Clip", [node.input[0], *(f"{kept}.{end}" for end in ends)], [kept], name=kept
                )
            )
            node.input[0] = kept
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _head(graph: Any) -> list[str]:
    """Nodes behind the last convolution. A Resize to full size would be rounded a second time, and slower."""
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    after = set(convolutions[-1].output)
    names = []
    for node in graph.graph.node:
        if after & set(node.input):
            after |= set(node.output)
            names.append(node.name)
    return names


def _ranges(graph: Any, contract: InputContract, calibration: Calibration, options: Options) -> ranges.Ranges:
    """Of every tensor of the float graph; from the cache where this was measured before."""
    import onnxruntime

    def compute() -> dict[str, Any]:
        run = all_tensors(graph)
        inputs = calibration.tensors(contract)
        return dict(ranges.measure(run, inputs, calibration.method, options.progress))

    return statistics(
        calibration,
        contract,
        graph=hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
        tools={"onnxruntime": onnxruntime.__version__},
        compute=compute,
        note=options.note,
    )


def all_tensors(graph: Any) -> ranges.Run:
    """A function that runs a graph and gives every float tensor in it by name."""
    import onnx
    import onnxruntime

    observed = _with_shapes(graph)
    known = {value.name for value in observed.graph.output}
    for info in observed.graph.value_info:
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and info.name not in known:
            observed.graph.output.append(info)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    # Fusions would leave tensors out; these two change nothing that can be seen.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        observed.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    given = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]

    def run(tensor: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        values = dict(zip(names, session.run(names, {given: tensor}), strict=True))
        return {given: tensor, **values} if tensor.dtype == np.float32 else values

    return run


def _tensors_data(measured: ranges.Ranges) -> Any:
    from onnxruntime.quantization import CalibrationMethod, TensorsData

    return TensorsData(
        CalibrationMethod.MinMax,
        {name: (np.float32(low), np.float32(high)) for name, (low, high) in measured.items()},
    )


def _input_scale(contract: InputContract, style: Style) -> dict[str, Any]:
    """Scale and zero point of the input, which the contract gives exactly.

    With (pixel - 128) / 128 the integers are the pixels: uint8 as they are, int8 less 128.
    """
    from onnxruntime.quantization import QuantType

    low = min((0 - mean) / std for mean, std in zip(contract.mean, contract.std, strict=True))
    high = max((255 - mean) / std for mean, std in zip(contract.mean, contract.std, strict=True))
    if style.symmetric:
        scale, zero = max(-low / 128, high / 127), 0
    else:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255
        zero = round(-low / scale)
    return {
        "quant_type": QuantType[style.activations],
        "scale": np.array(scale, np.float32),
        "zero_point": np.array(zero, np.int8 if style.symmetric else np.uint8),
    }


def _with_shapes(graph: Any) -> Any:
    import onnx

    return onnx.shape_inference.infer_shapes(graph)


# -- what came of it -----------------------------------------------------------------------------


def inspect(graph: Any) -> Inspection:
    """Operators of a graph, and those of the network proper that compute in float.

    In a Q/DQ graph an operator computes in integers when all its inputs come from DequantizeLinear and
    all its outputs go to QuantizeLinear, and ONNX Runtime has a kernel for it.
    """
    ops: dict[str, int] = {}
    producer = {output: node for node in graph.graph.node for output in node.output}
    consumers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        ops[node.op_type] = ops.get(node.op_type, 0) + 1
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    islands: dict[str, int] = {}
    if "QuantizeLinear" not in ops:
        return Inspection(ops, islands)
    head = set(_head(graph))
    for node in graph.graph.node:
        if node.name in head or node.op_type not in OPERATORS:
            continue
        if node.op_type in FLOAT_KERNELS or not _integer(node, producer, consumers):
            islands[node.op_type] = islands.get(node.op_type, 0) + 1
    return Inspection(ops, islands)


def _integer(node: Any, producer: dict[str, Any], consumers: dict[str, list[Any]]) -> bool:
    source = producer.get(node.input[0])
    if node.op_type in ("Clip", "Relu") and source is not None and source.op_type == "Conv":
        return _integer(source, producer, consumers)  # fused into it
    after = list(consumers.get(node.output[0], []))
    for user in list(after):  # Conv, then its activation, then Q
        if node.op_type == "Conv" and user.op_type in ("Clip", "Relu"):
            after.remove(user)
            after += consumers.get(user.output[0], [])
    values = {"Conv": 2, "Clip": 1, "Resize": 1, "Expand": 1}.get(node.op_type, len(node.input))
    before = [producer.get(name) for name in node.input[:values]]
    return bool(after) and all(
        neighbour is not None and neighbour.op_type == kind
        for group, kind in ((before, "DequantizeLinear"), (after, "QuantizeLinear"))
        for neighbour in group
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantiser prints its progress and logs advice that does not apply."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
