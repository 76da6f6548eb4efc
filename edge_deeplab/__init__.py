"""Train, export, run and measure DeepLabv3+ MobileNetV2 segmentation on edge devices."""

import os

from edge_deeplab.version import __version__

# ONNX Runtime's packages report their use to Microsoft from their import on (1.31 on Linux does).
# A camera's software stays silent unless its user wants otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["__version__"]
