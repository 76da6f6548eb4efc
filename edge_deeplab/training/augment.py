"""Augmentation with torchvision transforms v2; geometry in one warp, so that pixels are sampled once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from edge_deeplab.imaging import halved
from edge_deeplab.metrics import IGNORE
from edge_deeplab.spec import ClassInfo, Resize, mirrored_ids


def uniform(low: float, high: float) -> float:
    """A number from [low, high), from torch's generator: the one source of randomness here."""
    return low + (high - low) * float(torch.rand(()))


@dataclass(frozen=True)
class Geometry:
    """How far :class:`Warp` may go. Scale and aspect are drawn log-uniformly.

    Attributes:
        scale: Zoom on top of filling the input.
        aspect: Width over height, on top of the stretch to the input size.
        degrees: Rotation either way.
        shift: Largest shift, as a share of the input, beyond what the zoom leaves free.
    """

    scale: tuple[float, float]
    aspect: tuple[float, float]
    degrees: float
    shift: float


MILD = Geometry(scale=(0.85, 1.35), aspect=(0.85, 1.18), degrees=7, shift=0.05)
# A webcam's 640x480 squeezed into a square shows people at 0.56 of the width that a 3:4 portrait
# stretched into it does; the range of aspects reaches there.
WIDE = Geometry(scale=(0.45, 2.6), aspect=(0.5, 1.3), degrees=15, shift=0.15)


class Fit(NamedTuple):
    """How inference lays a picture into the input: input pixels per picture pixel, upper left corner."""

    down: float
    across: float
    top: float
    left: float


def fit(size: tuple[int, int], resize: Resize, height: int, width: int) -> Fit:
    """As :func:`edge_deeplab.imaging.placement`, without its rounding to whole pixels."""
    down, across = size[0] / height, size[1] / width
    if resize == "letterbox":
        down = across = min(down, across)
    return Fit(down, across, (size[0] - down * height) / 2, (size[1] - across * width) / 2)


def shrunk(pixels: Any, steps: tuple[float, float]) -> tuple[Any, tuple[float, float]]:
    """Halve a picture whose sides are both about to shrink by 2 or more, as inference does.

    Args:
        pixels: uint8 (H, W, 3).
        steps: Target pixels per picture pixel, down and across.

    Returns:
        The picture, smaller or as it was, and how many of its old pixels a new one is, down and across.
    """
    height, width = pixels.shape[:2]
    # As inference has it, the thinnest picture is a pixel wide.
    pixels = halved(pixels, max(1.0, height * steps[0]), max(1.0, width * steps[1]))
    return pixels, (height / pixels.shape[0], width / pixels.shape[1])


class Warp(v2.Transform):
    """Stretch or letterbox to ``size``, then zoom, change of aspect, rotation and shift, as one affine map.

    What lies outside the picture is mirrored, in the label too, or (with chance ``fill``) a flat colour
    labelled ``outside``.
    """

    def __init__(
        self,
        size: tuple[int, int],
        geometry: Geometry,
        *,
        fill: float = 0.0,
        outside: int = IGNORE,
        resize: Resize = "stretch",
    ) -> None:
        super().__init__()
        self.size, self.geometry, self.fill, self.outside = size, geometry, fill, outside
        self.resize: Resize = resize

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw one affine map (output pixel <- input pixel) for picture and label alike."""
        height, width = flat_inputs[0].shape[-2:]
        out_h, out_w = self.size
        g = self.geometry
        scale = math.exp(uniform(math.log(g.scale[0]), math.log(g.scale[1])))
        ratio = math.sqrt(math.exp(uniform(math.log(g.aspect[0]), math.log(g.aspect[1]))))
        angle = math.radians(uniform(-g.degrees, g.degrees))
        sx, sy = scale * ratio, scale / ratio
        room_x, room_y = abs(sx - 1) / 2 + g.shift, abs(sy - 1) / 2 + g.shift
        tx, ty = uniform(-room_x, room_x) * out_w, uniform(-room_y, room_y) * out_h
        fitted = fit(self.size, self.resize, height, width)
        stretch = np.array([[fitted.across, 0, fitted.left], [0, fitted.down, fitted.top], [0, 0, 1]])
        cos, sin = math.cos(angle), math.sin(angle)
        to_center = np.array([[1, 0, -out_w / 2], [0, 1, -out_h / 2], [0, 0, 1]])
        turn = np.array(
            [[sx * cos, -sy * sin, out_w / 2 + tx], [sx * sin, sy * cos, out_h / 2 + ty], [0, 0, 1]]
        )
        # Pixel centres lie at half-integers: shift before and after.
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = np.linalg.inv(half) @ turn @ to_center @ stretch @ half
        # How many output pixels a step across and a step down in the picture is.
        across, down = np.hypot(matrix[0, :2], matrix[1, :2]).tolist()
        flat = uniform(0, 1) < self.fill
        color = [uniform(0, 255) for _ in range(3)]
        return {"matrix": matrix, "steps": (down, across), "flat": flat, "color": color}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Warp a picture bilinearly, or a label map by nearest neighbour."""
        size = (self.size[1], self.size[0])
        border = cv2.BORDER_CONSTANT if params["flat"] else cv2.BORDER_REFLECT_101
        if isinstance(inpt, tv_tensors.Mask):
            label = cv2.warpAffine(
                inpt.numpy(),
                params["matrix"][:2],
                size,
                flags=cv2.INTER_NEAREST,
                borderMode=border,
                borderValue=self.outside,
            )
            return tv_tensors.Mask(torch.from_numpy(label))
        pixels = np.ascontiguousarray(inpt.permute(1, 2, 0).numpy())
        pixels, (down, across) = shrunk(pixels, params["steps"])
        to_full = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
        pixels = cv2.warpAffine(
            pixels,
            (params["matrix"] @ to_full)[:2],
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=border,
            borderValue=params["color"],
        )
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))


class Mirror(v2.RandomHorizontalFlip):
    """Mirrors every other picture; in its labels, classes of the left and the right change places.

    Args:
        classes: By whose names :func:`~edge_deeplab.spec.mirrored_ids` tells which.
    """

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        super().__init__(0.5)
        ids = mirrored_ids(classes)
        self.table: Tensor | None = None
        if ids != tuple(range(len(ids))):
            self.table = torch.arange(256, dtype=torch.uint8)
            self.table[: len(ids)] = torch.tensor(ids, dtype=torch.uint8)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Mirror a picture, or a label map and its ids."""
        mirrored = super().transform(inpt, params)
        if self.table is None or not isinstance(inpt, tv_tensors.Mask):
            return mirrored
        return tv_tensors.Mask(self.table[mirrored.as_subclass(Tensor).long()])


def photometric(classes: Sequence[ClassInfo]) -> v2.Transform:
    """What cameras and codecs do to a picture; each with a chance, on uint8."""
    return v2.Compose(
        [
            Mirror(classes),
            v2.RandomApply([v2.ColorJitter(brightness=0.35, contrast=0.3, saturation=0.35)], 0.7),
            v2.RandomApply([v2.ColorJitter(hue=0.03)], 0.1),
            Gain(0.4),
            v2.RandomGrayscale(0.05),
            v2.RandomApply([v2.GaussianBlur(5, (0.4, 1.6))], 0.1),
            v2.RandomApply([Compression(35, 90)], 0.15),
        ]
    )


class Compression(v2.Transform):
    """JPEG at a quality drawn from [low, high]; torchvision's own JPEG is deprecated since 0.29."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the quality."""
        return {"quality": int(uniform(self.low, self.high + 1))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Encode and decode a picture; labels pass through."""
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        pixels = np.ascontiguousarray(inpt.permute(1, 2, 0).numpy()[..., ::-1])  # OpenCV encodes BGR
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, params["quality"]])
        decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1].copy()
        return tv_tensors.Image(torch.from_numpy(decoded).permute(2, 0, 1))


class Gain(v2.Transform):
    """With a chance: a colour cast and a gamma, as another lamp or camera would give; then noise."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw gains, gamma and noise for one picture."""
        return {
            "on": uniform(0, 1) < self.chance,
            "gain": [uniform(0.85, 1.15) for _ in range(3)],
            "gamma": math.exp(uniform(-0.4, 0.4)),
            "noise": uniform(0, 10) if uniform(0, 1) < 0.4 else 0.0,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Look the pixels up in three tables; labels pass through."""
        if isinstance(inpt, tv_tensors.Mask) or not params["on"]:
            return inpt
        ramp = (np.arange(256) / 255.0) ** params["gamma"] * 255
        table = np.stack([np.clip(ramp * gain, 0, 255) for gain in params["gain"]], axis=-1).astype(np.uint8)
        pixels = cv2.LUT(np.ascontiguousarray(inpt.permute(1, 2, 0).numpy()), table[None])
        if params["noise"]:
            grain = torch.randn(pixels.shape).numpy() * params["noise"]
            pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))


def paste(image: Tensor, label: Tensor, onto: Tensor, onto_label: Tensor) -> tuple[Tensor, Tensor]:
    """Put the people of one picture into another: a new background, or company (Ghiasi et al., CVPR 2021).

    Args:
        image, onto: uint8 (3, H, W).
        label, onto_label: uint8 (H, W), 1 = person; both people count in the result.
    """
    alpha = cv2.GaussianBlur((label == 1).numpy().astype(np.float32), (3, 3), 0)
    mix = torch.from_numpy(alpha)
    mixed = (image * mix + onto * (1 - mix)).round().to(torch.uint8)
    return mixed, torch.where(label == 1, label, onto_label)


def painted_background(image: Tensor, label: Tensor) -> Tensor:
    """Replace what is not a person by a painted backdrop, so that colour and clutter alone mean nothing.

    Half of them are smooth walls, half "dead leaves": overlapping shapes of random size and colour,
    whose edges are distributed like a photo's (Baradad et al., NeurIPS 2021).

    Args:
        image: uint8 (3, H, W).
        label: uint8 (H, W), 1 = person.
    """
    _, height, width = image.shape
    corners = torch.rand(1, 3, 2, 2) * 255
    wall = torch.nn.functional.interpolate(corners, size=(height, width), mode="bilinear", align_corners=True)
    canvas = np.ascontiguousarray(wall[0].permute(1, 2, 0).numpy())
    if uniform(0, 1) < 0.5:
        for _ in range(int(uniform(20, 90))):
            radius = 4 * (max(height, width) / 10) ** uniform(0, 1)  # log-uniform, 4 px to 0.4 of the picture
            center = (int(uniform(0, width)), int(uniform(0, height)))
            color = [uniform(0, 255) for _ in range(3)]
            axes = (max(1, int(radius * uniform(0.3, 1))), max(1, int(radius)))
            angle = uniform(0, 180)
            if uniform(0, 1) < 0.5:
                cv2.ellipse(canvas, center, axes, angle, 0, 360, color, -1, cv2.LINE_8)
            else:
                corners_xy = cv2.boxPoints((center, (2.0 * axes[0], 2.0 * axes[1]), angle))
                cv2.fillConvexPoly(canvas, corners_xy.astype(np.int32), color)
    if uniform(0, 1) < 0.6:
        canvas = cv2.GaussianBlur(canvas, (0, 0), uniform(0.5, 6))
    backdrop = torch.from_numpy(canvas).permute(2, 0, 1)
    backdrop = (backdrop + torch.randn(3, height, width) * uniform(0, 8)).clamp(0, 255)
    alpha = torch.from_numpy(cv2.GaussianBlur((label == 1).numpy().astype(np.float32), (3, 3), 0))
    return (image * alpha + backdrop * (1 - alpha)).round().to(torch.uint8)


def contour_band(
    label: np.ndarray[Any, np.dtype[np.uint8]], width: int
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """1 within a band of ``width`` pixels centred on the contours of a label map (H, W), else 0.

    A contour lies between two classes; where a class ends at ignored pixels or at padding there is none.
    """
    kernel = np.ones((width, width), np.uint8)
    # Ignored pixels set neither extreme: 255 is never the lowest, nor, turned into 0, the highest.
    lowest = cv2.erode(label, kernel)
    highest = cv2.dilate(np.where(label == IGNORE, 0, label).astype(np.uint8), kernel)
    return (highest > lowest).astype(np.uint8)
