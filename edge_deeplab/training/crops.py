"""The DeepLab papers' augmentation: random scale, padding with the mean, random crop, flip, colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from edge_deeplab.metrics import IGNORE
from edge_deeplab.spec import ClassInfo, Resize
from edge_deeplab.training.augment import Mirror, fit, shrunk, uniform
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.sample import Read, Recipe, Sample

MEAN = (128.0, 128.0, 128.0)
"""The contract's mean: zero to the network."""


class ScaleCrop(v2.Transform):
    """Bring a picture to the input size times a random scale and cut a crop out of it, in one resampling.

    Where the scaled picture is smaller than the crop it lies at a random place in it; the rest is the
    mean colour, and 255 (ignored) in the label (DeepLab, section 4.1; "Rethinking …", section 4).

    Args:
        size: Input height and width of the network: scale 1 is what it sees when it runs.
        crop: Height and width of the result.
        scale: Range of scales, drawn uniformly.
        label_aware: Share of crops that are placed to hold a pixel of a class drawn uniformly from those in
            the picture, so that rare classes are seen more often.
        fill: Colour of the padding, in the channel order of the pictures.
        resize: How inference brings pictures to ``size``.
    """

    def __init__(
        self,
        size: tuple[int, int],
        crop: tuple[int, int],
        *,
        scale: tuple[float, float],
        label_aware: float,
        fill: tuple[float, float, float],
        resize: Resize = "stretch",
    ) -> None:
        super().__init__()
        self.size, self.crop, self.scale = size, crop, scale
        self.label_aware, self.fill = label_aware, fill
        self.resize: Resize = resize

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw a scale and a place; the same for picture and label."""
        height, width = flat_inputs[0].shape[-2:]
        factor = uniform(*self.scale)
        fitted = fit(self.size, self.resize, height, width)
        steps = (fitted.down * factor, fitted.across * factor)
        scaled = (steps[0] * height, steps[1] * width)
        spare = [have - want for have, want in zip(scaled, self.crop, strict=True)]
        corner = [uniform(min(0.0, room), max(0.0, room)) for room in spare]
        if uniform(0, 1) < self.label_aware:
            label = next(x for x in flat_inputs if isinstance(x, tv_tensors.Mask)).numpy()
            wanted = _pixel_of_any_class(label)
            if wanted is not None:
                # Any place of the crop that holds the pixel, as far as the picture reaches.
                centers = ((at + 0.5) * step for at, step in zip(wanted, steps, strict=True))
                corner = [
                    min(max(center - uniform(0, side), min(0.0, room)), max(0.0, room))
                    for center, side, room in zip(centers, self.crop, spare, strict=True)
                ]
        inside = [
            (max(0, math.ceil(-at - 0.5)), max(0, math.ceil(have - at - 0.5)))
            for at, have in zip(corner, scaled, strict=True)
        ]
        return {"steps": steps, "corner": corner, "inside": inside}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resample a picture bilinearly, halved first where it shrinks by 2; a label by nearest neighbour."""
        if isinstance(inpt, tv_tensors.Mask):
            label = self._cut(inpt.numpy(), params["steps"], params, cv2.INTER_NEAREST, IGNORE)
            return tv_tensors.Mask(torch.from_numpy(label))
        pixels = np.ascontiguousarray(inpt.permute(1, 2, 0).numpy())
        pixels, (down, across) = shrunk(pixels, params["steps"])
        steps = params["steps"][0] * down, params["steps"][1] * across
        pixels = self._cut(pixels, steps, params, cv2.INTER_LINEAR, self.fill)
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))

    def _cut(
        self, source: Any, steps: tuple[float, float], params: dict[str, Any], how: int, fill: Any
    ) -> Any:
        """Resample; then fill what lies outside, so that the picture's edge does not mix with the padding."""
        size = (self.crop[1], self.crop[0])
        matrix = _matrix(steps, params["corner"])
        result = cv2.warpAffine(source, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
        (top, bottom), (left, right) = params["inside"]
        for part in (result[:top], result[bottom:], result[:, :left], result[:, right:]):
            part[...] = fill
        return result


def _matrix(steps: tuple[float, float], corner: list[float]) -> Any:
    """Source pixel -> crop pixel; pixel centres lie at half-integers."""
    (sy, sx), (top, left) = steps, corner
    return np.array([[sx, 0, sx / 2 - 0.5 - left], [0, sy, sy / 2 - 0.5 - top]])


def _pixel_of_any_class(label: Any) -> tuple[int, int] | None:
    """Row and column of a random pixel of a random class of a label map (H, W); None if all is ignored."""
    present = [int(k) for k in np.flatnonzero(np.bincount(label.ravel(), minlength=256)) if k != IGNORE]
    if not present:
        return None
    pixels = np.flatnonzero(label == present[int(torch.randint(len(present), ()))])
    row, column = divmod(int(pixels[int(torch.randint(len(pixels), ()))]), label.shape[1])
    return row, column


def crops(config: TrainConfig, classes: Sequence[ClassInfo]) -> Recipe | None:
    """The recipe of ``--crop``: scale, crop, mirror every other one, change the colours; None without it."""
    if config.crop is None:
        return None
    cut = ScaleCrop(
        config.size,
        config.crop,
        scale=config.scale,
        label_aware=config.label_aware,
        fill=MEAN,
        resize=config.resize,
    )
    amount = config.jitter
    jitter = v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount)
    change = v2.Compose([cut, Mirror(classes), v2.RandomApply([jitter], 0.8)])

    def recipe(read: Read, _: int, index: int) -> Sample:
        image, label = read(index)
        # A third picture goes along, to tell where padding is after the mirror: colours change it too.
        image, label, outside = change(image, label, tv_tensors.Mask(torch.zeros_like(label)))
        image[:, outside == IGNORE] = torch.tensor(MEAN, dtype=image.dtype).unsqueeze(1)
        return image, label

    return recipe
