"""One optimisation step: parts of a batch forward and back, then the optimiser."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edge_deeplab.spec import InputContract
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.dataset import mixed_seed
from edge_deeplab.training.distributed import World
from edge_deeplab.training.networks import Networks
from edge_deeplab.training.objective import Objective, Part

SCALE_LIMIT = 2.0**-20
"""Loss scale below which float16 gradients are not too large but no numbers at all; it starts at 2^16."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class NotFinite(ArithmeticError):
    """The loss or the gradient of a batch is no finite number; the words say which."""


class Step:
    """Takes this process's share of a batch; leaves the weights updated with the whole batch's gradient.

    Args:
        config: Precision, parts, norm, seed.
        world: The processes that share the batch.
        networks: Of which ``forward`` is called.
        optimizer: Over the model's weights.
        contract: How pictures are scaled.

    Attributes:
        objective: The loss; may be replaced before the first step.
        scaler: Keeps float16 gradients from vanishing; idle in other precisions.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        networks: Networks,
        optimizer: torch.optim.Optimizer,
        contract: InputContract,
    ) -> None:
        self.config, self.world, self.networks, self.optimizer = config, world, networks, optimizer
        self.objective = Objective(config)
        # Rounding to 8 bits is simulated in float32: bfloat16 would round a second time.
        self.dtype = torch.float32 if config.qat else DTYPES[config.precision]
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.dtype == torch.float16)
        shape = (1, 3, 1, 1)
        self.mean = torch.tensor(contract.mean, device=world.device).view(shape)
        self.std = torch.tensor(contract.std, device=world.device).view(shape)

    def __call__(self, batch: dict[str, Tensor], step: int) -> float:
        """Do step number ``step``.

        Args:
            batch: ``image`` uint8 (n, 3, H, W), ``label`` and ``band`` uint8 (n, H, W): the pictures of this
                process.
            step: Counts from 0.

        Returns:
            The batch's loss, over all processes.

        Raises:
            NotFinite: The loss or the gradient is no finite number, in every process alike. The weights are
                as they were.
        """
        config, world = self.config, self.world
        parts = self._parts(batch)
        total_weight = world.sum(torch.stack([part.weight.sum() for part in parts]).sum())
        self._mode()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=world.device)
        first = world.rank * len(batch["image"])
        for number, part in enumerate(parts):
            self.networks.dropout.seeds = [
                mixed_seed(config.seed, 1, step, first + place) for place in range(len(part.image))
            ]
            first += len(part.image)
            with self._without_exchange(last=number == len(parts) - 1):
                with torch.autocast(world.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    logits = self.networks.forward(part.image)
                share = self.objective(logits, part, total_weight, world.size * len(parts))
                # The gradients of the processes are averaged; their sum is wanted.
                torch.autograd.backward(self.scaler.scale(share * world.size))
            loss += share.detach()
        value = world.sum(loss).item()
        if not math.isfinite(value):
            raise NotFinite(f"the loss is {value}")
        self._check_gradient()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def _check_gradient(self) -> None:
        """A finite loss may still have a gradient that is not; it must not reach the weights."""
        if self.scaler.is_enabled():  # leaves such steps out itself, and lowers the scale
            if self.scaler.get_scale() < SCALE_LIMIT:
                raise NotFinite("the gradient is not finite at any loss scale")
            return
        gradients = [p.grad for p in self.networks.model.parameters() if p.grad is not None]
        if not math.isfinite(torch.nn.utils.get_total_norm(gradients, float("inf")).item()):
            raise NotFinite("the gradient is not finite")

    def _parts(self, batch: dict[str, Tensor]) -> list[Part]:
        pieces = (
            batch[key].to(self.world.device, non_blocking=True).chunk(self.config.accumulate)
            for key in ("image", "label", "band")
        )
        return [
            self.objective.part(self._scaled(image), label, band)
            for image, label, band in zip(*pieces, strict=True)
        ]

    def _scaled(self, image: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float, as :func:`edge_deeplab.imaging.pack` does for one frame."""
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return ((image - self.mean) / self.std).contiguous(memory_format=layout)

    def _mode(self) -> None:
        """Training mode, with batch norm's statistics kept where the settings say so."""
        self.networks.forward.train()
        if self.config.norm == "frozen" or self.config.qat:
            for module in self.networks.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _without_exchange(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged once a step, with its last part."""
        network = self.networks.forward
        if isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()
