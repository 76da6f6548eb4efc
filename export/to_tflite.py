"""TFLite: one file for LiteRT on phones, boards and laptops; channels last, batch norm folded."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_deeplab.errors import UserError, needs
from edge_deeplab.export.base import Inspection, Options, Target, Tolerance
from edge_deeplab.spec import InputContract, Quantization

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_deeplab.export.tflite_model import TfliteModel
    from edge_deeplab.models.deeplab import DeepLabV3Plus

EXTRA = "export-tflite"

INPUT_NAME = "image"
OUTPUT_NAMES = {
    "logits": "logits",
    "logits-full": "logits",
    "probability": "probability",
    "classmap": "labels",
}

WEIGHTS_ONLY = Quantization("w8", "dynamic", pictures=0, source="", sha256="")

CHANGES_OF_TYPE = ("QUANTIZE", "DEQUANTIZE", "CAST")


def write(model: DeepLabV3Plus, contract: InputContract, options: Options, path: Path) -> InputContract:
    """Convert, quantise, describe and write ``model``.

    Args:
        model: In evaluation mode.
        contract: Of the model; size, head and precision are already those of ``options``.
        options: Type of the input, calibration, layers in float.
        path: File to write.

    Returns:
        The contract as stored.
    """
    with needs(EXTRA):
        from edge_deeplab.export import tflite_heads, tflite_metadata
        from edge_deeplab.export.heads import with_head
        from edge_deeplab.export.tflite_model import TfliteModel
    if options.dynamic:
        raise UserError("TFLite files have a fixed input; leave --dynamic away and export one per --size")
    if options.input_dtype != "float32" and contract.precision != "int8":
        raise UserError(f"--io {options.input_dtype} is for --int8: only there the input is an integer")
    _, contract = with_head(model, contract)
    contract = contract.replace(layout="NHWC", dtype="float32", dynamic=())
    with tempfile.TemporaryDirectory(prefix="edge-deeplab-") as own:
        source = _float_file(model, contract, options, options.scratch or Path(own))
        data, contract = _of_precision(source, contract, options)
    result = TfliteModel(data)
    if contract.precision == "fp16":
        result.halve()
    if contract.precision == "int8" and contract.head == "classmap":
        tflite_heads.integer_argmax(result)
    path.write_bytes(tflite_metadata.describe(result, contract, (INPUT_NAME, OUTPUT_NAMES[contract.head])))
    return contract


def _of_precision(source: Path, contract: InputContract, options: Options) -> tuple[bytes, InputContract]:
    """The float file as it is, or quantised, and its contract."""
    from edge_deeplab.export import tflite_quantize

    if contract.precision == "int8":
        return _quantised(source, contract.replace(dtype=options.input_dtype), options)
    if contract.precision == "int8-dynamic":
        return tflite_quantize.dynamic(source), contract.replace(quantization=WEIGHTS_ONLY)
    return source.read_bytes(), contract


def _float_file(model: DeepLabV3Plus, contract: InputContract, options: Options, folder: Path) -> Path:
    """The float32 file everything starts from, its layers named as in the network.

    It stays in ``folder`` for further attempts with the same weights.
    """
    from edge_deeplab.export.fold import fold, layers
    from edge_deeplab.export.tflite_heads import reshape_before_comparing
    from edge_deeplab.export.tflite_model import TfliteModel
    from edge_deeplab.export.tflite_network import convert
    from edge_deeplab.models.checkpoint import fingerprint

    folded = fold(model)
    what = f"{contract.head}-{contract.height}x{contract.width}-{contract.threshold}"
    source = folder / f"{what}-{fingerprint(folded.state_dict())}.tflite"
    if not source.is_file():
        unfinished = source.with_suffix(".unfinished")
        with options.doing("converting to TFLite"):
            convert(folded, contract, unfinished)
        converted = TfliteModel.read(unfinished)
        _name_layers(converted, [(layer.name, layer.convolution) for layer in layers(folded)])
        reshape_before_comparing(converted)
        source.write_bytes(converted.to_bytes())
        unfinished.unlink()
    return source


def _name_layers(model: TfliteModel, convolutions: Sequence[tuple[str, Any]]) -> None:
    """Call every convolution's output as the network calls the layer, found by its weights."""
    waiting = {
        name: convolution.weight.detach().numpy().transpose(0, 2, 3, 1) for name, convolution in convolutions
    }
    for node in model.convolutions():
        weight = model.constant(int(node.inputs[1]))
        if weight is None:
            raise RuntimeError("a convolution's weights are no constant of the file")
        if model.operator(node) == "DEPTHWISE_CONV_2D":
            weight = weight.transpose(3, 1, 2, 0)
        name = next((n for n, w in waiting.items() if w.shape == weight.shape and (w == weight).all()), None)
        if name is None:
            raise RuntimeError("the converter changed the weights of a convolution")
        del waiting[name]
        model.graph.tensors[int(node.outputs[0])].name = name
    if waiting:
        raise RuntimeError(f"the converter left out {', '.join(waiting)}")


def _quantised(source: Path, contract: InputContract, options: Options) -> tuple[bytes, InputContract]:
    from edge_deeplab.export import ranges, tflite_quantize, tflite_ranges
    from edge_deeplab.export.calibration import statistics
    from edge_deeplab.export.tflite_model import TfliteModel

    calibration = options.calibration
    if calibration is None:
        raise UserError("INT8 needs calibration pictures: --calibration DIR or KIND:PATH")
    pixels = contract.replace(dtype="float32")

    def compute() -> dict[str, Any]:
        run, inputs = tflite_ranges.all_tensors(source), calibration.tensors(pixels)
        return dict(ranges.measure(run, inputs, calibration.method, options.progress))

    measured = statistics(
        calibration,
        pixels,
        graph=hashlib.sha256(source.read_bytes()).hexdigest(),
        tools=tflite_quantize.versions(),
        compute=compute,
        note=options.note,
    )
    wanted = tflite_ranges.harmonise(measured, TfliteModel.read(source), contract)
    with options.doing("rounding to INT8"):
        data = tflite_quantize.full(source, wanted, contract.dtype, options.keep_float)
    return data, contract.replace(quantization=calibration.record("s8s8", options.keep_float))


def inspect(path: Path) -> Inspection:
    """Operators of a file, and those that compute in float though the file is INT8."""
    from edge_deeplab.export.tflite_model import TfliteModel

    model = TfliteModel.read(path)
    kinds = model.schema.TensorType
    ops: Counter[str] = Counter()
    islands: Counter[str] = Counter()
    for node in model.graph.operators:
        name = model.operator(node)
        ops[name] += 1
        if name not in CHANGES_OF_TYPE and model.graph.tensors[int(node.inputs[0])].type == kinds.FLOAT32:
            islands[name] += 1
    quantised = any(model.graph.tensors[int(n.inputs[1])].type == kinds.INT8 for n in model.convolutions())
    static = quantised and islands.total() < ops.total() / 2
    return Inspection(dict(sorted(ops.items())), dict(sorted(islands.items())) if static else {})


def trace(
    path: Path, layers: Sequence[str], tensors: Iterable[NDArray[Any]]
) -> Iterable[dict[str, NDArray[np.float32]]]:
    """Layer outputs of a file, as real values (1, C, h, w)."""
    from edge_deeplab.export.tflite_ranges import all_tensors

    run = all_tensors(path)
    for tensor in tensors:
        values = run(tensor)
        yield {name: values[name].transpose(0, 3, 1, 2) for name in layers if name in values}


TARGET = Target(
    suffix=".tflite",
    help="TFLite for LiteRT on phones, boards and laptops",
    extra=EXTRA,
    tolerances={
        "fp32": Tolerance(logits=1e-2, agreement=0.9995, iou_drop=0.001),
        "fp16": Tolerance(logits=None, agreement=0.999, iou_drop=0.001),
        "int8": Tolerance(logits=None, agreement=0.99, iou_drop=0.005, masks_decide=True),
        "int8-dynamic": Tolerance(logits=None, agreement=0.99, iou_drop=0.005, masks_decide=True),
    },
    write=write,
    layouts=("NHWC",),
    input_dtypes=("float32", "uint8", "int8"),
    schemes=("s8s8",),  # activations int8 with a zero point
    keeps_float=("int8",),
    inspect=inspect,
    trace=trace,
    made_with=("litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
)
