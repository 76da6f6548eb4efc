"""Starting weights: torchvision's ImageNet MobileNetV2, TF-Slim arrays, or a checkpoint of ours."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_deeplab.errors import UserError, because, needs
from edge_deeplab.files import read_bytes
from edge_deeplab.models.checkpoint import load_tensors, read_safetensors
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.mobilenetv2 import MobileNetV2
from edge_deeplab.spec import METADATA_KEY, InputContract
from edge_deeplab.zoo import find, shipped

TORCHVISION = "torchvision"
"""``--init torchvision`` downloads the ImageNet weights; any other value is a file."""


TORCHVISION_EPS = 1e-5


def initialise(model: DeepLabV3Plus, source: str, images: Tensor, classes: Sequence[str] = ()) -> str:
    """Fill a model with starting weights.

    Args:
        model: Changed in place.
        source: ``torchvision``, a ``.npz`` of TF-Slim convolutions with batch norm folded in, a
            torchvision ``.pth`` state dict, one of our ``.safetensors`` checkpoints or a shipped model.
        images: (N, 3, H, W) scaled real pictures; needed to give folded weights a batch norm again.
        classes: Names of the model's classes, to find their rows in a checkpoint's classifier; empty: the
            checkpoint's own.

    Returns:
        One line that says what was loaded, for the log.

    Raises:
        UserError: Unreadable, of an unknown kind, or for another width.
    """
    if source in shipped():
        source = str(find(source, prefer=(".safetensors",)))
    if source == TORCHVISION:
        return _from_torchvision(model, _download_torchvision())
    suffix = Path(source).suffix
    if suffix == ".npz":
        return _from_folded(model, source, images)
    if suffix in (".pth", ".pt"):
        read_bytes(source)
        try:
            state = torch.load(source, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{source} is damaged or no plain state dict: {type(error).__name__}") from error
        return _from_torchvision(model, state)
    if suffix == ".safetensors":
        return _from_checkpoint(model, source, list(classes))
    raise UserError(
        f"--init {source}: give torchvision, a shipped name, or a .npz, .pth or .safetensors file"
    )


def _download_torchvision() -> dict[str, Tensor]:
    with needs("train"):
        from torchvision.models import MobileNet_V2_Weights
    weights = MobileNet_V2_Weights.IMAGENET1K_V2
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash differs
        reason = because(error) if isinstance(error, OSError) else str(error)
        raise UserError(
            f"cannot download {weights.url}: {reason}; fetch it elsewhere and give it as --init FILE"
        ) from error
    return state


def _from_torchvision(model: DeepLabV3Plus, state: Mapping[str, Tensor]) -> str:
    """torchvision counts the stem as features.0 and block k as features.k, layers in our order.

    Its batch norms have an epsilon of 1e-5, ours the 1e-3 of TF-Slim; the scale takes up the difference.
    """
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError("these weights are no state dict of tensors")
    source = [
        v
        for k, v in state.items()
        if k.startswith("features.")
        and not k.startswith("features.18.")
        and not k.endswith("num_batches_tracked")
    ]
    target = {k: v for k, v in model.backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    shapes = [tuple(v.shape) for v in target.values()]
    if [tuple(v.shape) for v in source] != shapes:
        raise UserError("these weights are not a torchvision mobilenet_v2 of this variant's width")
    model.backbone.load_state_dict(dict(zip(target, source, strict=True)), strict=False)
    for _, norm in _units(model.backbone):
        if norm.running_var is not None:
            norm.weight.data *= ((norm.running_var + norm.eps) / (norm.running_var + TORCHVISION_EPS)).sqrt()
    return f"backbone from torchvision's MobileNetV2, {len(source)} tensors"


def _from_checkpoint(model: DeepLabV3Plus, path: str, classes: list[str]) -> str:
    tensors, header = read_safetensors(path)
    if any(name.startswith("model.") for name in tensors):
        raise UserError(
            f"--init {path} is the state of a run; give its best.safetensors, or go on with --resume"
        )
    tensors = {k: v.float() for k, v in tensors.items()}
    theirs = _class_names(header, path) or classes
    classes = classes or theirs
    note = "" if theirs == classes else ", the classifier's rows in the order of the data's classes"
    own = model.state_dict()
    try:
        for name in [k for k in tensors if k.startswith("classifier.") and k in own]:
            rows = _in_order(tensors[name], theirs, classes)
            if rows is None or rows.shape != own[name].shape:  # other classes: the last layer starts anew
                rows, note = own[name], " but the classifier"
            tensors[name] = rows
        load_tensors(model, tensors)
    except (RuntimeError, IndexError) as error:
        raise UserError(f"{path} is a checkpoint of another variant; its tensors do not fit") from error
    return f"all of {path}{note}"


def _class_names(header: Mapping[str, str], path: str) -> list[str]:
    """Names of a checkpoint's classes; none if it has no contract."""
    if METADATA_KEY not in header:
        return []
    return [info.name for info in InputContract.from_json(header[METADATA_KEY], source=path).classes]


def _in_order(rows: Tensor, theirs: list[str], ours: list[str]) -> Tensor | None:
    """A classifier's rows, given in the order of ``theirs``, in that of ``ours``; None: other classes."""
    if theirs == ours:
        return rows
    if sorted(theirs) != sorted(ours):
        return None
    if len(rows) == 1:  # a binary model's log-odds of its second class
        return -rows
    return rows[[theirs.index(name) for name in ours]]


def _units(backbone: MobileNetV2) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Every convolution of the backbone with its batch norm, in forward order."""
    convolution = None
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            convolution = module
        elif isinstance(module, nn.BatchNorm2d) and convolution is not None:
            yield convolution, module


def _from_folded(model: DeepLabV3Plus, path: str, images: Tensor) -> str:
    """Weights with batch norm folded in: put the norm back so that the function is unchanged.

    Arrays come as ``NN|name|weight`` and ``NN|name|bias`` in forward order; the first 51 are the
    MobileNetV2 of TF-Slim, which at width 0.5 is narrower in places (see :func:`_goes_into`). Each norm
    gets the mean and variance that its convolution shows on real pictures, and the scale and shift that
    undo them.
    """
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
            arrays: dict[str, Any] = {key: archive[key] for key in archive.files}
    except (
        ValueError,
        OSError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f"{path} is damaged or no .npz file") from error
    weights = [v for k, v in sorted(arrays.items()) if k.endswith("|weight")]
    biases = [v for k, v in sorted(arrays.items()) if k.endswith("|bias")]
    units = list(_units(model.backbone))
    if len(biases) < len(units) or not all(map(_goes_into, units, weights, biases)):
        raise UserError(
            f"{path} does not hold a MobileNetV2 of this variant's width (51 convolutions, in order)"
        )
    hooks, wider = [], 0
    for (convolution, norm), weight, bias in zip(units, weights, biases, strict=False):
        wider += weight.shape != tuple(convolution.weight.shape)
        _fill_corner(convolution, torch.from_numpy(weight))
        hooks.append(norm.register_forward_pre_hook(_measure(torch.from_numpy(bias))))
    training = model.training
    with torch.no_grad():
        model.backbone.eval()(images)
    model.train(training)
    for hook in hooks:
        hook.remove()
    more = f", {wider} convolutions of it in wider ones" if wider else ""
    return f"backbone from {path}, batch norm measured on {len(images)} pictures{more}"


def _goes_into(unit: tuple[nn.Conv2d, nn.BatchNorm2d], weight: Any, bias: Any) -> bool:
    """Whether a convolution of the same kernel with as many channels or a few less is given.

    TF-Slim rounds 24 channels at width 0.5 to 12, ours are multiples of 8: 16.
    """
    own = tuple(unit[0].weight.shape)
    theirs = tuple(weight.shape)
    if len(theirs) != 4 or theirs[2:] != own[2:] or bias.shape != theirs[:1]:
        return False
    return all(0.7 * most <= channels <= most for channels, most in zip(theirs[:2], own[:2], strict=True))


def _fill_corner(convolution: nn.Conv2d, weight: Tensor) -> None:
    """Copy a narrower convolution into a wider one so that its outputs stay what they were.

    They take nothing from the further inputs at first; further outputs keep their random weights.
    """
    outputs, inputs = weight.shape[:2]
    own = convolution.weight.data
    own[:outputs] = 0
    own[:outputs, :inputs] = weight


def _measure(bias: Tensor) -> Any:
    def hook(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
            raise TypeError("batch norm without running statistics")
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        # Channels beyond those given keep the norm's own scale of 1 and shift of 0.
        given = len(bias)
        norm.weight.data[:given] = (variance + norm.eps).sqrt()[:given]
        norm.bias.data[:given] = mean[:given] + bias.to(mean)

    return hook
