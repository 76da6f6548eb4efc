"""A checkpoint with random weights, for measuring what does not depend on weights: time, memory, size.

Batch norm is set on real pictures and the logits are spread around 0, so that all activations have the
ranges of a trained network and all classes occur. Rounding is amplified by such a network from layer to
layer: its INT8 accuracy means nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measuring import exit_status
from torch import nn

from edge_deeplab.cli.arguments import positive, size
from edge_deeplab.export.sample import views
from edge_deeplab.imaging import preprocess
from edge_deeplab.models.checkpoint import save_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.pretrained import initialise
from edge_deeplab.models.variants import VARIANTS, variant
from edge_deeplab.spec import PERSON_CLASSES, ClassInfo, InputContract

SPREAD = 3.0
"""Standard deviation of the logits."""


def random_model(contract: InputContract, init: Path | None = None) -> DeepLabV3Plus:
    """The network of ``contract.variant``, always the same, in evaluation mode.

    Args:
        contract: Classes and input.
        init: Weights to start from, as in training; what they do not fill stays random.
    """
    torch.manual_seed(0)
    model = DeepLabV3Plus(variant(contract.variant).architecture, contract.output_channels)
    images = torch.from_numpy(np.concatenate([preprocess(view, contract) for _, view in views()[:4]]))
    if init is not None:
        initialise(model, str(init), images)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
        logits = model.eval()(images)
        factor = SPREAD / logits.std()
        model.classifier.weight *= factor
        if model.classifier.bias is not None:
            model.classifier.bias.copy_(-logits.mean((0, 2, 3)) * factor)
    return model


def write(
    variant_name: str, classes: int, size: tuple[int, int], path: Path, init: Path | None = None
) -> None:
    """Make and write it."""
    colors = np.random.default_rng(0).integers(0, 256, (classes, 3)).tolist()
    named = tuple(ClassInfo(f"class {k}", (r, g, b)) for k, (r, g, b) in enumerate(colors))
    contract = InputContract(
        f"random {variant_name}",
        variant_name,
        *size,
        classes=PERSON_CLASSES if classes == 2 else named,
    )
    save_checkpoint(path, random_model(contract, init), contract)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("variant", choices=list(VARIANTS))
    parser.add_argument("--classes", type=positive, default=21, metavar="N", help="default: %(default)s")
    parser.add_argument("--size", type=size, default=(513, 513), metavar="HxW", help="default: 513x513")
    parser.add_argument("--output", type=Path, default=Path("random.safetensors"), metavar="PATH")
    parser.add_argument("--init", type=Path, metavar="FILE", help="weights to start from, as in training")
    args = parser.parse_args(argv)
    return exit_status("random_checkpoint", lambda: write(args.variant, args.classes, args.size, args.output))


if __name__ == "__main__":
    raise SystemExit(main())
