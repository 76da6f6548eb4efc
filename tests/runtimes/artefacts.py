"""Models made on the spot: a toy ONNX file that anybody can check by hand, and a small random network."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import Frame
from edge_deeplab.spec import METADATA_KEY, PERSON_CLASSES, ClassInfo, Head, InputContract, InputDType

if TYPE_CHECKING:
    from edge_deeplab.models.deeplab import DeepLabV3Plus

SIZE = (64, 96)
"""Input of all these models: small, and not square."""

RED_GREEN_BLUE = (
    ClassInfo("nothing", (0, 0, 0)),
    ClassInfo("red", (255, 0, 0)),
    ClassInfo("green", (0, 255, 0)),
    ClassInfo("blue", (0, 0, 255)),
)


def picture(height: int, width: int, *, seed: int = 0) -> Frame:
    """Colourful and smooth, with darker and brighter halves: uint8 (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


# -- the toy -------------------------------------------------------------------------------------


def toy_contract(**changes: Any) -> InputContract:
    """Of the toy: binary, 64x96, logits at stride 4."""
    return InputContract("toy", "lite", *SIZE, classes=PERSON_CLASSES).replace(**changes)


def toy_onnx(
    path: Path,
    contract: InputContract | None = None,
    *,
    metadata: dict[str, str] | None = None,
    size: tuple[int, int] = SIZE,
    head: Head | None = None,
    outputs: int | None = None,
) -> Path:
    """Write an ONNX file without PyTorch: bright pixels are people.

    The binary logit is the mean of a pixel's three channels, scaled, times 4. With four classes the logits
    are 0 and the channels. Pixels are averaged over 4x4 for heads at low resolution.

    Args:
        path: Written.
        contract: Goes into the file; the graph follows its head and classes.
        metadata: Instead of the contract.
        size, head, outputs: Of the graph, where it shall differ from the contract.
    """
    onnx = pytest.importorskip("onnx", reason="the toy model is put together with the onnx package")
    node, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    contract = contract or toy_contract()
    head = head or contract.head
    outputs = outputs or contract.output_channels
    low = head in ("logits", "probability")
    batch: Any = "batch" if "batch" in contract.dynamic else 1
    given: list[Any] = ["height", "width"] if "height" in contract.dynamic else list(size)
    answered = [f"{v}/4" if isinstance(v, str) else v // 4 for v in given] if low else given
    weight = np.zeros((outputs, 3, 1, 1), np.float32)
    if outputs == 1:
        weight[0] = 4 / 3
    else:
        weight[1:4, :, 0, 0] = np.eye(3)[: outputs - 1]
    pool = node("AveragePool", ["image"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4])
    nodes = [*([pool] if low else []), node("Conv", ["pooled" if low else "image", "weight"], ["logits"])]
    name, shape = "logits", [batch, outputs, *answered]
    if head == "probability":
        name = "probability"
        softmax = node("Softmax", ["logits"], [name], axis=1)
        nodes.append(node("Sigmoid", ["logits"], [name]) if outputs == 1 else softmax)
    if head == "classmap":
        name, shape = "labels", [batch, *answered]
        if outputs == 1:
            nodes.append(node("GreaterOrEqual", ["logits", "zero"], ["planes"]))
            nodes.append(node("Squeeze", ["planes", "one"], ["ids"]))
        else:
            nodes.append(node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0))
        nodes.append(node("Cast", ["ids"], [name], to=onnx.TensorProto.UINT8))
    info = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.UINT8 if head == "classmap" else onnx.TensorProto.FLOAT
    constants = {"weight": weight, "zero": np.zeros(1, np.float32), "one": np.ones(1, np.int64)}
    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [info("image", onnx.TensorProto.FLOAT, [batch, 3, *given])],
        [info(name, kind, shape)],
        [constant(value, key) for key, value in constants.items()],
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()} if metadata is None else metadata)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


# -- a real network, small and random ------------------------------------------------------------


@cache
def nano_checkpoint(folder: Path) -> Path:
    """A checkpoint of the ``nano`` variant, random but with the activations of a trained network.

    The batch norms are set on real pictures and the logits spread around 0, so that masks have contours.
    """
    torch = pytest.importorskip("torch", reason="the small network is made with PyTorch")
    from edge_deeplab import imaging
    from edge_deeplab.export.verify import sample_views
    from edge_deeplab.models.checkpoint import save_checkpoint

    contract = toy_contract(name="random nano", variant="nano", metrics={"nothing iou": 0.5})
    model: Any = random_nano(contract)
    tensors = [imaging.preprocess(read()[0], contract) for _, read in sample_views()]
    images = torch.from_numpy(np.concatenate(tensors))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)  # dropout
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(images)
        # A random network amplifies rounding from layer to layer. With little of its deep end in the answer,
        # INT8 leaves most labels as they are.
        model.aspp.project[1].weight *= 0.05
        logits = model.eval()(images)
        factor = 3 / float(logits.std())
        model.classifier.weight *= factor
        model.classifier.bias.copy_(-logits.mean() * factor)
        # Noise is nearly everywhere near the threshold: rounding to 16 bits must not move it.
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
    path = folder / "nano.safetensors"
    save_checkpoint(path, model, contract)
    return path


def random_nano(contract: InputContract) -> DeepLabV3Plus:
    """The untrained network, the same every time."""
    import torch

    from edge_deeplab.models.deeplab import DeepLabV3Plus
    from edge_deeplab.models.variants import variant

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return DeepLabV3Plus(variant("nano").architecture, contract.output_channels).eval()


@cache
def nano_onnx(folder: Path, head: Head = "logits", dynamic: tuple[str, ...] = ()) -> Path:
    """The same network exported, and verified, once a session for every head and set of dynamic axes."""
    checkpoint = nano_checkpoint(folder)
    for module in ("onnx", "onnxsim", "onnxscript"):
        pytest.importorskip(module, reason="needed to export")
    from edge_deeplab.export import Options, export_model

    path = folder / "-".join(["nano", head, *dynamic, "x.onnx"])
    export_model(str(checkpoint), "onnx", path, Options(head=head, dynamic=dynamic))
    return path


@cache
def nano_tflite(folder: Path, precision: str = "fp32", input_dtype: InputDType = "float32") -> Path:
    """The same network as a TFLite file, once a session for every precision and input type."""
    checkpoint = nano_checkpoint(folder)
    for module in ("litert_torch", "ai_edge_quantizer"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'edge-deeplab[export-tflite]'")
    from edge_deeplab.export import to_tflite
    from edge_deeplab.export.base import Options
    from edge_deeplab.export.calibration import packaged
    from edge_deeplab.models.checkpoint import load_checkpoint

    model, contract = load_checkpoint(checkpoint)
    path = folder / f"nano-{precision}-{input_dtype}.tflite"
    options = Options(
        precision=precision, input_dtype=input_dtype, calibration=packaged(16), scratch=scratch(folder)
    )
    to_tflite.write(model, contract.replace(precision=precision), options, path)
    return path


def scratch(folder: Path) -> Path:
    """Where conversions are kept that several artefacts start from."""
    path = folder / "scratch"
    path.mkdir(exist_ok=True)
    return path


@cache
def nano_engine(folder: Path, dynamic: tuple[str, ...] = ()) -> Path:
    """The same network as a TensorRT engine for this machine's GPU."""
    checkpoint = nano_checkpoint(folder)
    from edge_deeplab.export import Options, export_model

    path = folder / "-".join(["nano", *dynamic, "x.engine"])
    export_model(str(checkpoint), "trt", path, Options(dynamic=dynamic))
    return path


MAKERS: dict[str, dict[str, Callable[[Path], Path]]] = {
    ".safetensors": {"checkpoint": nano_checkpoint},
    ".onnx": {
        "fixed": nano_onnx,
        "dynamic": lambda folder: nano_onnx(folder, dynamic=("batch", "size")),
    },
    ".tflite": {
        "fp32": nano_tflite,
        "fp16": lambda folder: nano_tflite(folder, "fp16"),
        "int8 dynamic": lambda folder: nano_tflite(folder, "int8-dynamic"),
        "int8": lambda folder: nano_tflite(folder, "int8", "uint8"),
    },
    ".engine": {
        "fixed": nano_engine,
        "dynamic": lambda folder: nano_engine(folder, dynamic=("batch",)),
    },
}
"""Suffix -> artefacts that ``test_contract.py`` opens. A new runtime's suffix goes here."""
