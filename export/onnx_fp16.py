"""FP16 ONNX: everything inside in 16 bits, input and output as they were."""

from __future__ import annotations

import warnings
from typing import Any

from edge_deeplab.errors import needs
from edge_deeplab.export.onnx_graph import path_unchanged


def to_half(graph: Any, keep_float: tuple[str, ...] = ()) -> Any:
    """The graph with float16 weights and activations; float32 input and output stay.

    Args:
        graph: Float; not changed.
        keep_float: Layers that stay in float32, with casts around them.

    ONNX Runtime's own converter does it.
    """
    with needs("export"), path_unchanged():
        from onnxruntime.transformers.float16 import convert_float_to_float16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one line per weight below the smallest float16
        return convert_float_to_float16(graph, keep_io_types=True, node_block_list=list(keep_float))
