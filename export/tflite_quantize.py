"""INT8 for TFLite files, by ai-edge-quantizer and with ranges that were measured by us."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edge_deeplab.errors import needs
from edge_deeplab.export.ranges import Ranges
from edge_deeplab.export.tflite_model import EXTRA
from edge_deeplab.export.tflite_network import quiet
from edge_deeplab.spec import InputDType

DYNAMIC = ("CONV_2D", "FULLY_CONNECTED")
"""What has dynamic kernels in XNNPACK. Its depthwise convolutions have none: quantised dynamically they
fall back to TFLite's own kernels, and the file is slower than float."""


def versions() -> dict[str, str]:
    """Of what decides how ranges and weights are rounded."""
    from importlib.metadata import version

    return {name: version(name) for name in ("ai-edge-quantizer", "ai-edge-litert", "litert-torch")}


def dynamic(path: Path) -> bytes:
    """Weights int8; activations float in memory and quantised as they are read."""
    quantizer, names = _load(path)
    for name in DYNAMIC:
        quantizer.add_dynamic_config(".*", names[name], num_bits=8)
    return _finish(quantizer, None)


def full(path: Path, ranges: Ranges, dtype: InputDType, float_layers: Iterable[str]) -> bytes:
    """Weights int8 per channel, activations int8 per tensor, biases int32.

    Args:
        path: Float32 file.
        ranges: Of every tensor.
        dtype: Of input and output: ``int8``, ``uint8``, or ``float32`` with conversions in the graph.
        float_layers: Names of output tensors whose layers stay in float.
    """
    with needs(EXTRA), quiet():
        from ai_edge_quantizer import recipe
        from ai_edge_quantizer.algorithm_manager import AlgorithmName
    quantizer, names = _load(path, recipe.static_wi8_ai8())
    for end in ("INPUT", "OUTPUT"):
        if dtype == "uint8":
            quantizer.update_quantization_recipe(".*", names[end], _uint8())
        elif dtype == "float32":
            quantizer.update_quantization_recipe(".*", names[end], algorithm_key=AlgorithmName.NO_QUANTIZE)
    for layer in float_layers:
        quantizer.update_quantization_recipe(
            f"^{re.escape(layer)};$", names["ALL_SUPPORTED"], algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    values = {
        name: {"min": np.full((1, 1, 1, 1), low, np.float32), "max": np.full((1, 1, 1, 1), high, np.float32)}
        for name, (low, high) in ranges.items()
    }
    return _finish(quantizer, values)


def _load(path: Path, recipe: Any = None) -> tuple[Any, Any]:
    with needs(EXTRA), quiet():
        from ai_edge_quantizer import qtyping, quantizer
    return quantizer.Quantizer(str(path), recipe), qtyping.TFLOperationName.__members__


def _finish(quantizer: Any, values: Any) -> bytes:
    with quiet():
        result = quantizer.quantize(values, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _uint8() -> Any:
    """Asymmetric uint8, one scale for the tensor."""
    with needs(EXTRA), quiet():
        from ai_edge_quantizer import qtyping as types
    activations = types.TensorQuantizationConfig(
        num_bits=8,
        symmetric=False,
        granularity=types.QuantGranularity.TENSORWISE,
        dtype=types.TensorDataType.UINT,
    )
    weights = types.TensorQuantizationConfig(
        num_bits=8, symmetric=True, granularity=types.QuantGranularity.CHANNELWISE
    )
    return types.OpQuantizationConfig(
        activation_tensor_config=activations,
        weight_tensor_config=weights,
        compute_precision=types.ComputePrecision.INTEGER,
        explicit_dequantize=False,
    )
