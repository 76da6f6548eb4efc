"""The DeepLab papers' augmentation: random scale, padding with the mean, random crop, flip, colour."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from edge_deeplab.imaging import AREA_FROM
from edge_deeplab.metrics import IGNORE
from edge_deeplab.training.augment import uniform
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
    """

    def __init__(
        self,
        size: tuple[int, int],
        crop: tuple[int, int],
        *,
        scale: tuple[float, float],
        label_aware: float,
        fill: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.size, self.crop, self.scale = size, crop, scale
        self.label_aware, self.fill = label_aware, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw a scale and a place; the same for picture and label."""
        height, width = flat_inputs[0].shape[-2:]
        factor = uniform(*self.scale)
        scaled = [max(1.0, side * factor) for side in self.size]
        steps = (scaled[0] / height, scaled[1] / width)
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
        return {"steps": steps, "corner": corner}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resample a picture bilinearly (by area from a shrink of 2 on), or a label by nearest neighbour."""
        steps, corner = params["steps"], params["corner"]
        size = (self.crop[1], self.crop[0])
        if isinstance(inpt, tv_tensors.Mask):
            label = cv2.warpAffine(
                inpt.numpy(),
                _matrix(steps, corner),
                size,
                flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=IGNORE,
            )
            return tv_tensors.Mask(torch.from_numpy(label))
        pixels = np.ascontiguousarray(inpt.permute(1, 2, 0).numpy())
        pixels, steps = shrunk(pixels, steps)
        pixels = cv2.warpAffine(
            pixels,
            _matrix(steps, corner),
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=self.fill,
        )
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))


def _matrix(steps: tuple[float, float], corner: list[float]) -> Any:
    """Source pixel -> crop pixel; pixel centres lie at half-integers."""
    (sy, sx), (top, left) = steps, corner
    return np.array([[sx, 0, sx / 2 - 0.5 - left], [0, sy, sy / 2 - 0.5 - top]])


def shrunk(pixels: Any, steps: tuple[float, float]) -> tuple[Any, tuple[float, float]]:
    """Area-average a picture that is about to shrink by 2 or more, as inference does.

    Args:
        pixels: uint8 (H, W, 3).
        steps: Target pixels per source pixel, down and across.

    Returns:
        The picture, smaller or as it was, and the steps that are left.
    """
    if min(steps) * AREA_FROM > 1:
        return pixels, steps
    height, width = pixels.shape[:2]
    small = [max(1, round(side * min(1.0, step))) for side, step in zip((height, width), steps, strict=True)]
    pixels = cv2.resize(pixels, (small[1], small[0]), interpolation=cv2.INTER_AREA)
    return pixels, (steps[0] * height / small[0], steps[1] * width / small[1])


def _pixel_of_any_class(label: Any) -> tuple[int, int] | None:
    """Row and column of a random pixel of a random class of a label map (H, W); None if all is ignored."""
    present = [int(k) for k in np.flatnonzero(np.bincount(label.ravel(), minlength=256)) if k != IGNORE]
    if not present:
        return None
    pixels = np.flatnonzero(label == present[int(torch.randint(len(present), ()))])
    row, column = divmod(int(pixels[int(torch.randint(len(pixels), ()))]), label.shape[1])
    return row, column


def crops(config: TrainConfig) -> Recipe | None:
    """The recipe of ``--crop``: scale, crop, mirror every other one, change the colours; None without it."""
    if config.crop is None:
        return None
    cut = ScaleCrop(config.size, config.crop, scale=config.scale, label_aware=config.label_aware, fill=MEAN)
    amount = config.jitter
    jitter = v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount)
    change = v2.Compose([cut, v2.RandomHorizontalFlip(0.5), v2.RandomApply([jitter], 0.8)])

    def recipe(read: Read, _: int, index: int) -> Sample:
        changed: Sample = change(*read(index))
        return changed

    return recipe
