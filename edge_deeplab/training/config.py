"""Every setting of a training run, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run; `edge-deeplab train --help` shows the same words.

    Attributes:
        data: Data sets, ``KIND:PATH`` each; their train splits are mixed, their val splits scored apart.
        name: Name of the model, for its contract.
        variant: Architecture, a name from `edge-deeplab models`.
        init: Starting weights: torchvision, a shipped model, or a .npz, .pth or .safetensors file; empty:
            random.
        size: Input height and width in pixels.
        output_stride: Input pixels per pixel of the deepest features: 8, 16 or 32; 0: the variant's own.
        crop: Train on crops of this height and width, as the DeepLab papers do: pictures are brought to
            `size`, scaled by `scale`, padded with the mean (ignored by the loss) and cropped. Without it
            whole pictures are stretched to `size` and warped a little.
        scale: Range that the scale of a crop is drawn from, uniformly.
        label_aware: Share of crops placed to hold a pixel of a class drawn from those in the picture.
        jitter: Largest relative change of a crop's brightness, contrast and saturation.
        epochs: Passes over the mixed train splits.
        batch: Pictures per step.
        optimizer: `adamw`, or `sgd` with momentum, as in the papers.
        lr: Peak learning rate of the head.
        backbone_lr: Factor on `lr` for the pretrained backbone.
        momentum: Of SGD.
        weight_decay: Weight decay; none on depthwise filters, norms and biases.
        warmup: Steps over which the rate rises linearly.
        power: Exponent of the poly schedule.
        norm: Batch norm: `batch` learns its statistics, `frozen` keeps those of `init` (small batches).
        ema: Decay of the averaged weights that are scored and kept; it rises to this from zero.
        class_weights: Weight of a class in the loss by its share of the training pixels: `none`, `median`
            (median share over its share; SegNet) or `log` (1 / ln(1.02 + share); ENet).
        ohem: Share of a batch's pixels, those with the highest loss, that count (online hard example
            mining); 1: all.
        boundary_weight: Factor on the loss in the band around the contours.
        boundary_width: Width of that band in input pixels.
        dice: Weight of the Dice loss beside cross-entropy (binary models).
        strong: Share of pictures that get the wide geometry, new backgrounds and pasted people (not crops).
        backdrop: Share of those whose background is painted anew; at most 0.6, pasting takes 0.4.
        mild_tail: Last share of the run with half as much of it.
        precision: `bf16` or `fp32`.
        val_every: Epochs between evaluations.
        checkpoint_every: Steps between checkpoints.
        workers: Processes that read and augment pictures.
        threads: CPU threads of the training step; 0: all.
        device: `cpu`, `cuda` or `auto`.
        seed: Everything random follows from it.
        license: What the trained weights may be used for.
    """

    data: tuple[str, ...]
    name: str = "model"
    variant: str = "lite"
    init: str = ""
    size: tuple[int, int] = (256, 256)
    output_stride: Literal[0, 8, 16, 32] = 0
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    label_aware: float = 0.0
    jitter: float = 0.3
    epochs: int = 30
    batch: int = 16
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-3
    backbone_lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 1e-2
    warmup: int = 100
    power: float = 0.9
    norm: Literal["batch", "frozen"] = "batch"
    ema: float = 0.998
    class_weights: Literal["none", "median", "log"] = "none"
    ohem: float = 1.0
    boundary_weight: float = 5.0
    boundary_width: int = 9
    dice: float = 0.5
    strong: float = 0.4
    backdrop: float = 0.1
    mild_tail: float = 0.2
    precision: Literal["bf16", "fp32"] = "bf16"
    val_every: int = 2
    checkpoint_every: int = 100
    workers: int = 1
    threads: int = 0
    device: str = "auto"
    seed: int = 0
    license: str = "as the training data allows"
