"""The named architectures, each with its paper or its reason. No torch: `edge-deeplab models` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_deeplab.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the shape of a network except its number of classes.

    Attributes:
        width: Width multiplier of MobileNetV2.
        output_stride: Input pixels per pixel of the deepest features (8, 16 or 32).
        aspp_channels: Channels of every pyramid branch and of its projection.
        atrous: Whether the pyramid has its three atrous branches.
        low_level_channels: Channels the stride-4 features are reduced to.
        decoder_channels: Channels of the decoder's separable convolutions; empty: no decoder.
        dropout: Before the decoder (the papers keep 0.9).
        padding: Padding of stride-2 convolutions, see :mod:`edge_deeplab.models.layers`.
    """

    width: float = 1.0
    output_stride: int = 16
    aspp_channels: int = 256
    atrous: bool = True
    low_level_channels: int = 48
    decoder_channels: tuple[int, ...] = (256, 256)
    dropout: float = 0.1
    padding: Literal["symmetric", "same"] = "same"


@dataclass(frozen=True)
class Variant:
    """A named architecture and what it costs.

    Attributes:
        architecture: The network.
        reason: Its paper, or why it exists.
        params: Trainable parameters with 21 classes.
        macs_513: Multiply-adds at 513x513 with 21 classes.
        macs_256: Multiply-adds at 256x256 with one logit.
    """

    architecture: Architecture
    reason: str
    params: int
    macs_513: float
    macs_256: float


VARIANTS: dict[str, Variant] = {
    "v3plus": Variant(
        Architecture(),
        "DeepLabv3+ (Chen et al. 2018) on MobileNetV2, 24-channel low-level tap",
        2_720_000,
        5.80e9,
        1.38e9,
    ),
    "v3": Variant(
        Architecture(atrous=False, low_level_channels=0, decoder_channels=()),
        "Google's mobile model (Sandler et al. 2018, table 7): 1x1 and image pooling, no decoder",
        2_110_000,
        2.74e9,
        0.65e9,
    ),
    "lite": Variant(
        Architecture(aspp_channels=128, low_level_channels=32, decoder_channels=(128,)),
        "v3plus with half the head: the pyramid costs more than it gives on small inputs",
        2_140_000,
        3.20e9,
        0.75e9,
    ),
    "lite-half": Variant(
        Architecture(width=0.5, aspp_channels=128, low_level_channels=32, decoder_channels=(128,)),
        "lite on half the backbone's width: as INT8 about half the time of lite",
        697_000,
        1.32e9,
        0.31e9,
    ),
    "nano": Variant(
        Architecture(
            width=0.5, aspp_channels=128, atrous=False, low_level_channels=16, decoder_channels=(64,)
        ),
        "half the width, no atrous branches, a 64-channel decoder: for phones' little cores",
        567_000,
        0.98e9,
        0.23e9,
    ),
}


def variant(name: str) -> Variant:
    """Look a variant up.

    Raises:
        UserError: No such variant; the message lists those there are.
    """
    try:
        return VARIANTS[name]
    except KeyError:
        raise UserError(f"no variant {name!r}; there are: {', '.join(VARIANTS)}") from None
