"""The networks of a run: the one that learns, its average that is scored, and what wraps them."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.distributed import World
from edge_deeplab.training.dropout import SeededDropout
from edge_deeplab.training.quantisation import FakeQuant, fold_norms


@dataclass(frozen=True)
class Networks:
    """The model and its average, and the forms they run in.

    Attributes:
        model: Whose weights learn.
        average: Exponential moving average of them, batch norm's statistics included.
        forward: ``model`` as the training step calls it: rounded, parallel, compiled as the settings say.
        scored: ``average`` as validation calls it.
        dropout: The model's.
        ranges: Of the activations, when training is quantisation-aware.
    """

    model: DeepLabV3Plus
    average: DeepLabV3Plus
    forward: nn.Module
    scored: nn.Module
    dropout: SeededDropout
    quantiser: FakeQuant | None = None

    @property
    def stateful(self) -> dict[str, nn.Module]:
        """What a state file holds, by prefix."""
        kept: dict[str, nn.Module] = {"model": self.model, "average": self.average}
        return {**kept, "ranges": self.quantiser.ranges} if self.quantiser else kept

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average towards the model: average = decay * average + (1 - decay) * model."""
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            floats(self.average), floats(self.model), 1 - decay
        )


def assemble(model: DeepLabV3Plus, config: TrainConfig, world: World) -> Networks:
    """Everything around a model with its starting weights."""
    if config.qat:
        fold_norms(model)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(world.device).to(memory_format=layout)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    dropout = SeededDropout(model.aspp.dropout.p)
    model.aspp.dropout = dropout  # type: ignore[assignment]
    if config.norm == "sync" and world.size > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    quantiser = FakeQuant(model).to(world.device) if config.qat else None
    scored = FakeQuant(average, quantiser.ranges).eval() if quantiser else average
    forward: nn.Module = quantiser or model
    if world.size > 1:
        # A 1x1 filter has the same bytes in either memory format; torch warns that it was told the other.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        forward = DistributedDataParallel(
            forward, device_ids=[world.device] if world.device.type == "cuda" else None
        )
    if config.compile:
        forward.compile()
    return Networks(model, average, forward, scored, dropout, quantiser)


@torch.no_grad()
def measure_ranges(networks: Networks, pictures: Tensor) -> None:
    """Start activation ranges from what the averaged network does on pictures (N, 3, H, W), one by one."""
    if isinstance(networks.scored, FakeQuant):
        networks.scored.observing = True
        for picture in pictures.to(networks.scored.ranges.low.device):
            networks.scored(picture.unsqueeze(0))
        networks.scored.observing = False


def floats(module: nn.Module) -> list[Tensor]:
    """All floating-point tensors of a module, in a fixed order."""
    return [v for v in module.state_dict().values() if v.is_floating_point()]
