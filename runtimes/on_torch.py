"""PyTorch: checkpoints (``.safetensors``) run as they were trained; the reference for every artefact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from edge_deeplab.errors import UserError, needs
from edge_deeplab.runtimes.base import Runtime
from edge_deeplab.spec import InputContract

if TYPE_CHECKING:
    from torch import nn


class TorchRuntime(Runtime):
    """Runs a PyTorch model. Torch is imported on construction, not with this module.

    Args:
        model: Any module (N, 3, H, W) -> what the contract's ``head`` says, in evaluation mode.
        contract: Its input contract.
        device: ``cpu``, ``cuda`` …
        threads: Intra-op threads, for the whole process; None leaves torch's default.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".safetensors",)
    extra: ClassVar[str] = "train"
    title: ClassVar[str] = "PyTorch"
    reentrant: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        contract: InputContract,
        *,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        with needs(self.extra):
            import torch
        super().__init__(contract.replace(dynamic=("batch", "height", "width")))
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self.device = torch.device(device)
            if self.device.type == "meta":
                raise RuntimeError("it computes nothing")
            self.model = model.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
        self._torch = torch

    @classmethod
    def open(cls, path: str, **options: Any) -> TorchRuntime:
        """Load a checkpoint.

        Args:
            path: ``.safetensors`` with our contract inside.
            **options: ``device``, ``threads``, as for the constructor; ``output_stride`` 8, 16 or 32;
                ``size`` (height, width) other than the model's own.
        """
        with needs(cls.extra):
            from edge_deeplab.models.checkpoint import load_checkpoint
        model, contract = load_checkpoint(path)
        output_stride = options.pop("output_stride", None)
        if output_stride is not None:
            try:
                model.set_output_stride(output_stride)
            except ValueError as error:
                raise UserError(str(error)) from error
            contract = contract.replace(head_stride=model.head_stride)
        size = options.pop("size", None)
        if size is not None:
            contract = contract.replace(height=size[0], width=size[1])
        return cls(model, contract, **options)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Version of torch."""
        with needs(cls.extra):
            import torch
        return {"torch": torch.__version__}

    def describe(self) -> dict[str, str]:
        """Device, threads, and what it computes in: weights may be stored in less."""
        return {
            "device": str(self.device),
            "threads": str(self._torch.get_num_threads()),
            "computes in": str(next(self.model.parameters()).dtype).removeprefix("torch."),
        }

    def infer(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """(N, 3, H, W) float32 -> the head's output, float32 or (class map) uint8."""
        torch = self._torch
        with torch.inference_mode():
            y = self.model(torch.from_numpy(tensor).to(self.device)).cpu()
        output: NDArray[Any] = (y.float() if y.is_floating_point() else y).numpy()
        return output


RUNTIME = TorchRuntime
