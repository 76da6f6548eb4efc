"""Measure what a user will get: whole pipeline, percentiles, conditions, accuracy beside speed.

``edge-deeplab bench`` is the command; ``docs/benchmarking.md`` defines every figure. Needs numpy,
OpenCV and the runtimes that are measured; never torch, unless a PyTorch model is.
"""

from __future__ import annotations

from edge_deeplab.bench.device import Device, devices, open_device
from edge_deeplab.bench.record import Contender, Job, PeerInput, Plan, Result

__all__ = ["Contender", "Device", "Job", "PeerInput", "Plan", "Result", "devices", "open_device"]
