"""Train, export, run and measure DeepLabv3+ MobileNetV2 segmentation on edge devices."""

from edge_deeplab.version import __version__

__all__ = ["__version__"]
