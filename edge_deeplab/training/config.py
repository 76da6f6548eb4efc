"""Every setting of a training run, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field


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
        epochs: Passes over the mixed train splits.
        batch: Pictures per step.
        lr: Peak learning rate of the head (AdamW).
        backbone_lr: Factor on `lr` for the pretrained backbone.
        weight_decay: AdamW weight decay; none on depthwise filters, norms and biases.
        warmup: Steps over which the rate rises linearly.
        power: Exponent of the poly schedule.
        ema: Decay of the averaged weights that are scored and kept; it rises to this from zero.
        boundary_weight: Factor on the loss in the band around the contours.
        boundary_width: Width of that band in input pixels.
        dice: Weight of the Dice loss beside cross-entropy (binary models).
        strong: Share of pictures that get the wide geometry, new backgrounds and pasted people.
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
    epochs: int = 30
    batch: int = 16
    lr: float = 2e-3
    backbone_lr: float = 0.2
    weight_decay: float = 1e-2
    warmup: int = 100
    power: float = 0.9
    ema: float = 0.998
    boundary_weight: float = 5.0
    boundary_width: int = 9
    dice: float = 0.5
    strong: float = 0.4
    backdrop: float = 0.1
    mild_tail: float = 0.2
    precision: str = "bf16"
    val_every: int = 2
    checkpoint_every: int = 100
    workers: int = 1
    threads: int = 0
    device: str = "auto"
    seed: int = 0
    license: str = field(default="as the training data allows")
