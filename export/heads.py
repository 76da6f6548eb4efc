"""What is appended to the network so that its output is what the contract's ``head`` says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.layers import bilinear
from edge_deeplab.spec import InputContract


class Headed(nn.Module):
    """(N, 3, H, W) float -> the head's output.

    ``logits`` (N, K, H/s, W/s); ``logits-full`` (N, K, H, W); ``probability`` (N, K, H/s, W/s);
    ``classmap`` uint8 (N, H, W).
    """

    def __init__(self, model: DeepLabV3Plus, contract: InputContract) -> None:
        super().__init__()
        self.model, self.contract = model, contract

    def forward(self, image: Tensor) -> Tensor:
        """The network, then the head."""
        logits: Tensor = self.model(image)
        head, binary = self.contract.head, self.contract.binary
        if head == "logits":
            return logits
        if head == "probability":
            return torch.sigmoid(logits) if binary else torch.softmax(logits, dim=1)
        logits = bilinear(logits, (image.shape[2], image.shape[3]))
        if head == "logits-full":
            return logits
        if binary:
            # argmax over a single logit would call everything background.
            return (logits[:, 0] >= self.contract.logit_threshold).to(torch.uint8)
        return logits.argmax(dim=1).to(torch.uint8)


def with_head(model: DeepLabV3Plus, contract: InputContract) -> tuple[nn.Module, InputContract]:
    """The network to export and its contract with the head's stride filled in."""
    stride = model.head_stride if contract.head in ("logits", "probability") else 1
    return Headed(model, contract).eval(), contract.replace(head_stride=stride)
