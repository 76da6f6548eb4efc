"""The float ONNX graph that every ONNX artefact, and TensorRT's, is made from."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.base import Options
from edge_deeplab.spec import METADATA_KEY, InputContract

if TYPE_CHECKING:
    from edge_deeplab.models.deeplab import DeepLabV3Plus

INPUT_NAME = "image"

OUTPUT_NAMES = {
    "logits": "logits",
    "logits-full": "logits",
    "probability": "probability",
    "classmap": "labels",
}

TRACED_OPSET = 18
"""The oldest opset that torch's tracer writes; TensorRT 8 (JetPack 5) reads no newer than 17."""


def float_graph(model: DeepLabV3Plus, contract: InputContract, options: Options) -> tuple[Any, InputContract]:
    """Trace and simplify ``model``; the input is float32 NCHW.

    Convolutions are named after their layers (``backbone.blocks.3.depthwise``). The graph is kept in
    ``options.scratch``, where there is one, for further attempts with the same weights.

    Returns:
        The ``onnx.ModelProto`` without metadata, and the contract with head stride and dynamic axes.
    """
    with needs("export"):
        import onnx

        from edge_deeplab.export.fold import fold
        from edge_deeplab.export.heads import with_head
        from edge_deeplab.models.checkpoint import fingerprint
    if options.opset < 17:
        raise UserError(f"opset {options.opset} is too old; 17 is the least")
    folded = fold(model)
    network, contract = with_head(folded, contract)
    dynamic = tuple(
        axis
        for axis in ("batch", "height", "width")
        if axis in options.dynamic or (axis != "batch" and "size" in options.dynamic)
    )
    contract = contract.replace(layout="NCHW", dtype="float32", dynamic=dynamic)
    what = "-".join(
        (
            contract.head,
            f"{contract.height}x{contract.width}",
            str(contract.threshold),
            str(options.opset),
            *dynamic,
        )
    )
    kept = options.scratch / f"{what}-{fingerprint(folded.state_dict())}.onnx" if options.scratch else None
    if kept and kept.is_file():
        return onnx.load(kept), contract
    proto = _trace(network, contract, options.opset)
    _name_layers(proto, folded)
    _pool_globally(proto)
    if kept:
        onnx.save(proto, kept)
    return proto, contract


@contextlib.contextmanager
def path_unchanged() -> Iterator[None]:
    """Around imports from ``onnxruntime``'s tools, which add a folder to ``sys.path`` and need it meanwhile.

    Its file names would shadow others. ``onnxruntime.quantization`` imports modules of that folder by their
    bare names, so it must have been imported, once, before the path is put back.
    """
    path = list(sys.path)
    try:
        import onnxruntime.quantization  # noqa: F401

        yield
    finally:
        sys.path[:] = path


def finish(proto: Any, contract: InputContract) -> bytes:
    """The graph's file with the contract inside.

    Raises:
        onnx.checker.ValidationError: The graph is not valid ONNX: a bug here.
    """
    import onnx

    with path_unchanged():
        from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(proto).topological_sort()  # converters append their casts at the end
    proto.producer_name = "edge-deeplab"
    proto.doc_string = f"{contract.name}: {contract.variant}, {contract.precision}, {contract.head} head"
    onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(proto, full_check=True)
    data: bytes = proto.SerializeToString()
    return data


def _trace(network: Any, contract: InputContract, opset: int) -> Any:
    with needs("export"):
        import onnxsim
        import torch

    axes: dict[int, Any] = {}
    if "batch" in contract.dynamic:
        axes[0] = torch.export.Dim("batch", min=1, max=1024)
    if "height" in contract.dynamic:
        # Multiples of 32: every stride divides evenly, so paddings are constants of the graph.
        axes[2] = 32 * torch.export.Dim("height_by_32", min=1, max=256)
        axes[3] = 32 * torch.export.Dim("width_by_32", min=1, max=256)
        if contract.height % 32 or contract.width % 32:
            raise UserError(
                f"--dynamic size needs a default of multiples of 32, not {contract.height}x{contract.width}"
            )
    # An example axis of length 1 would be taken for a constant, in these units too.
    size = [max(64, v) if "height" in contract.dynamic else v for v in (contract.height, contract.width)]
    example = torch.zeros(2 if "batch" in contract.dynamic else 1, 3, *size)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=max(TRACED_OPSET, opset),
            verbose=False,
            input_names=[INPUT_NAME],
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
    if opset < TRACED_OPSET:
        proto = _lowered(proto, opset)
    written = next(entry.version for entry in proto.opset_import if not entry.domain)
    if written != opset:
        raise UserError(f"torch {torch.__version__} cannot write opset {opset}; leave --opset away")
    _name_axes(proto, axes, contract.head_stride)
    return proto


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


def _name_layers(proto: Any, network: DeepLabV3Plus) -> None:
    """Give every node a name, convolutions that of the layer whose weights they hold."""
    from onnx import numpy_helper

    from edge_deeplab.export.fold import layers

    weights = {value.name: numpy_helper.to_array(value) for value in proto.graph.initializer}
    open_layers = [(layer.name, layer.convolution.weight.numpy()) for layer in layers(network)]
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
        if node.op_type != "Conv":
            continue
        for layer in open_layers:
            if np.array_equal(layer[1], weights[node.input[1]]):
                node.name = layer[0]
                open_layers.remove(layer)
                break
        else:
            raise RuntimeError(f"the tracer changed the weights of {node.input[1]}")


def _pool_globally(proto: Any) -> None:
    """Write the mean over both spatial axes as GlobalAveragePool, which integer kernels exist for."""
    from onnx import numpy_helper

    constants = {value.name: value for value in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "ReduceMean":
            continue
        named = {attribute.name: attribute for attribute in node.attribute}
        if "axes" in named:  # before opset 18
            axes = list(named["axes"].ints)
        else:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        if sorted(axis % 4 for axis in axes) == [2, 3] and ("keepdims" not in named or named["keepdims"].i):
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]


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
