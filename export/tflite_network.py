"""The network as TFLite wants it: channels last from input to output, the head included."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_deeplab.errors import needs
from edge_deeplab.models.deeplab import ASPP, DeepLabV3Plus
from edge_deeplab.models.layers import bilinear
from edge_deeplab.spec import InputContract


class _ResizedPooling(nn.Module):
    """An ASPP whose image-level features are spread by a resize instead of ``expand``.

    The same numbers, but litert-torch turns ``expand`` into a BROADCAST_TO whose shape no interpreter
    accepts once the layout is channels last, and XNNPACK runs resizes, also quantised.
    """

    def __init__(self, aspp: ASPP) -> None:
        super().__init__()
        self.aspp = aspp

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.aspp.pooling(x.mean((2, 3), keepdim=True))
        branches = [self.aspp.pointwise(x), *(branch(x) for branch in self.aspp.atrous)]
        spread = bilinear(pooled, (x.shape[2], x.shape[3]))
        y: Tensor = self.aspp.project(torch.cat([*branches, spread], dim=1))
        return y


class ChannelsLast(nn.Module):
    """(1, H, W, 3) -> the head's output, channels last.

    ``logits`` and ``probability`` (1, h, w, K), ``logits-full`` (1, H, W, K), ``classmap`` uint8
    (1, H, W). The heads are those of :class:`edge_deeplab.export.heads.Headed`.
    """

    def __init__(self, model: DeepLabV3Plus, contract: InputContract) -> None:
        super().__init__()
        self.model, self.contract = model, contract

    def forward(self, image: Tensor) -> Tensor:
        """The network, then the head."""
        logits: Tensor = self.model(image.permute(0, 3, 1, 2))
        head, contract = self.contract.head, self.contract
        if head in ("logits-full", "classmap"):
            logits = bilinear(logits, (contract.height, contract.width))
        logits = logits.permute(0, 2, 3, 1)
        if head in ("logits", "logits-full"):
            return logits
        if head == "probability":
            return torch.sigmoid(logits) if contract.binary else torch.softmax(logits, dim=-1)
        if contract.binary:
            return (logits[..., 0] >= contract.logit_threshold).to(torch.uint8)
        return logits.argmax(dim=-1).to(torch.uint8)


def convert(model: DeepLabV3Plus, contract: InputContract, path: Path) -> None:
    """Write the network with its head as a float32 TFLite file.

    Args:
        model: In evaluation mode; left as it is.
        contract: Size, head and classes.
        path: File to write.
    """
    with needs("export-tflite"), quiet():
        import litert_torch
    litert_torch.config.show_progress = False
    aspp = model.aspp
    try:
        model.aspp = _ResizedPooling(aspp)  # type: ignore[assignment]  # the same function
        network = ChannelsLast(model, contract).eval()
        example = torch.zeros(1, contract.height, contract.width, 3)
        with quiet(), torch.no_grad():
            litert_torch.convert(network, (example,)).export(str(path))
    finally:
        model.aspp = aspp


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the converter's chatter off the terminal: Python's and that of its C++ parts.

    What was held back is shown when the block fails, and only then.
    """
    level = logging.root.manager.disable
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        terminal = os.dup(2)
        try:
            os.dup2(held.fileno(), 2)
            logging.disable(logging.ERROR)
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except Exception:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            logging.disable(level)
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
