"""What an augmentation recipe takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Sample = tuple[Any, Any]
"""A picture, RGB uint8 (3, H, W), and its class ids, uint8 (H, W), as torchvision's Image and Mask."""

Read = Callable[[int], Sample]
"""Reads the picture at an index, as it is on disk."""

Recipe = Callable[[Read, int, int], Sample]
"""(read, epoch, index) -> an augmented sample; all that is random comes from torch's generator."""
