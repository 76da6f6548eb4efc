"""Every setting of a training run, in one place."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from edge_deeplab.errors import UserError


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
        resize: How pictures of another shape become `size`: `stretch`, or `letterbox`, which keeps the aspect
            ratio and pads with the mean.
        output_stride: Input pixels per pixel of the deepest features: 8, 16 or 32; 0: the variant's own.
        crop: Train on crops of this height and width, as the DeepLab papers do: pictures are brought to
            `size`, scaled by `scale`, padded with the mean (ignored by the loss) and cropped. Without it
            whole pictures are brought to `size` and warped a little.
        scale: Range that the scale of a crop is drawn from, uniformly.
        label_aware: Share of crops placed to hold a pixel of a class drawn from those in the picture.
        jitter: Largest relative change of a crop's brightness, contrast and saturation.
        epochs: Passes over the mixed train splits.
        batch: Pictures per step, over all processes and parts.
        accumulate: Parts that a batch is computed in, one after the other, to save memory; batch norm sees
            one part at a time.
        optimizer: `adamw`, or `sgd` with momentum, as in the papers.
        lr: Peak learning rate of the head.
        backbone_lr: Factor on `lr` for the pretrained backbone.
        momentum: Of SGD.
        weight_decay: Weight decay; none on depthwise filters, norms and biases.
        warmup: Steps over which the rate rises linearly.
        power: Exponent of the poly schedule.
        norm: Batch norm: `batch` learns statistics from each process's own pictures, `sync` from those of all
            (CUDA), `frozen` keeps those of `init` (small batches).
        ema: Decay of the averaged weights that are scored and kept; it rises to this from zero.
        class_weights: Weight of a class in the loss by its share of the training pixels: `none`, `median`
            (median share over its share, of the pictures that hold it; SegNet) or `log`
            (1 / ln(1.02 + share); ENet).
        ohem: Share of a batch's pixels, those with the highest loss, that count (online hard example
            mining); 1: all.
        boundary_weight: Factor on the loss in the band around the contours.
        boundary_width: Width of that band in input pixels.
        dice: Weight of the Dice loss beside cross-entropy (binary models).
        teacher: Model to distil: a shipped name, a checkpoint, or torchvision:NAME (torchvision:NAME=FILE.pth
            without a download), e.g. torchvision:deeplabv3_resnet101.
        distill_kl: Weight of the KL divergence between the teacher's and the model's class probabilities,
            pixel by pixel (Hinton et al. 2015).
        distill_cwd: Weight of channel-wise distillation: KL divergence between the places where each class
            is seen (Shu et al., ICCV 2021).
        temperature: Of both distillation losses.
        qat: Quantisation-aware fine-tuning: batch norm folded and frozen, weights and activations rounded
            as INT8 exports round them; start from a trained `init`.
        strong: Share of pictures that get the wide geometry, new backgrounds and pasted people (not crops).
        backdrop: Share of those whose background is painted anew; at most 0.6, pasting takes 0.4.
        mild_tail: Last share of the run with half as much of it.
        precision: `bf16` or `fp16` where autocast takes them, or `fp32`.
        channels_last: Memory format of pictures and weights.
        compile: Compile the network with torch.compile.
        val_every: Epochs between evaluations.
        checkpoint_every: Steps between checkpoints.
        workers: Processes that read and augment pictures, per training process.
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
    resize: Literal["stretch", "letterbox"] = "stretch"
    output_stride: Literal[0, 8, 16, 32] = 0
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    label_aware: float = 0.0
    jitter: float = 0.3
    epochs: int = 30
    batch: int = 16
    accumulate: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-3
    backbone_lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 1e-2
    warmup: int = 100
    power: float = 0.9
    norm: Literal["batch", "sync", "frozen"] = "batch"
    ema: float = 0.998
    class_weights: Literal["none", "median", "log"] = "none"
    ohem: float = 1.0
    boundary_weight: float = 5.0
    boundary_width: int = 9
    dice: float = 0.5
    teacher: str = ""
    distill_kl: float = 1.0
    distill_cwd: float = 0.0
    temperature: float = 4.0
    qat: bool = False
    strong: float = 0.4
    backdrop: float = 0.1
    mild_tail: float = 0.2
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    channels_last: bool = True
    compile: bool = False
    val_every: int = 2
    checkpoint_every: int = 100
    workers: int = 1
    threads: int = 0
    device: str = "auto"
    seed: int = 0
    license: str = "as the training data allows"

    def check(self) -> None:
        """Refuse what cannot work before anything is read.

        Raises:
            UserError: A setting out of its range, or two that exclude each other.
        """
        least = {"epochs": 1, "accumulate": 1, "val_every": 1, "checkpoint_every": 1, "boundary_width": 1}
        least |= {"workers": 0, "warmup": 0, "threads": 0, "seed": 0}
        shares = ("label_aware", "jitter", "strong", "backdrop", "mild_tail")
        amounts = (
            "weight_decay",
            "boundary_weight",
            "dice",
            "distill_kl",
            "distill_cwd",
            "backbone_lr",
            "power",
        )
        problems = [
            ("--data: give at least one data set, KIND:PATH", not self.data),
            *((f"{_flag(k)} must be at least {low}", getattr(self, k) < low) for k, low in least.items()),
            *((f"{_flag(k)} must lie between 0 and 1", not 0 <= getattr(self, k) <= 1) for k in shares),
            *(
                (f"{_flag(k)} must be a number of at least 0", not 0 <= getattr(self, k) < math.inf)
                for k in amounts
            ),
            ("--batch must be at least 2: image pooling's batch norm needs two pictures", self.batch < 2),
            ("--batch must be a multiple of --accumulate", bool(self.batch % max(1, self.accumulate))),
            ("--lr must be a number above 0", not 0 < self.lr < math.inf),
            ("--temperature must be a number above 0", not 0 < self.temperature < math.inf),
            ("--ema must be at least 0 and below 1", not 0 <= self.ema < 1),
            ("--momentum must be at least 0 and below 1", not 0 <= self.momentum < 1),
            ("--ohem must be above 0 and at most 1", not 0 < self.ohem <= 1),
            (
                "--scale takes two numbers above 0, the lower first",
                not 0 < self.scale[0] <= self.scale[1] < math.inf,
            ),
            ("--backdrop can be at most 0.6", self.backdrop > 0.6),
            ("--qat fine-tunes trained weights; give them with --init", self.qat and not self.init),
            (
                "--teacher has no say with --distill-kl 0 and --distill-cwd 0; raise one",
                bool(self.teacher) and not (self.distill_kl or self.distill_cwd),
            ),
        ]
        for message, wrong in problems:
            if wrong:
                raise UserError(message)

    def check_heard(self, given: Collection[str], *, binary: bool) -> None:
        """Refuse settings that were asked for but have no say beside the others.

        Args:
            given: Names of the settings that somebody chose for this run.
            binary: Whether background and person are the only classes.

        Raises:
            UserError: One has no say; names what would give it one.
        """
        whole = self.crop is None
        needs = [
            (("scale", "label_aware", "jitter"), not whole, "with --crop"),
            (("strong", "backdrop", "mild_tail"), whole, "without --crop"),
            (("backdrop", "mild_tail"), self.strong > 0, "with --strong above 0"),
            (("backdrop", "dice"), binary, "with two classes"),
            (("momentum",), self.optimizer == "sgd", "with --optimizer sgd"),
            (("boundary_width",), self.boundary_weight != 1, "with a --boundary-weight other than 1"),
            (("distill_kl", "distill_cwd", "temperature"), bool(self.teacher), "with --teacher"),
            (("norm",), not self.qat or self.norm == "frozen", "without --qat, which freezes batch norm"),
            (("precision",), not self.qat or self.precision == "fp32", "without --qat, which takes fp32"),
        ]
        for names, heard, where in needs:
            for name in names:
                if name in given and not heard:
                    raise UserError(f"{_flag(name)} has no say here; it counts only {where}")


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")
