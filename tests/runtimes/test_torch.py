"""What PyTorch can do beyond the contract of all runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from edge_deeplab.errors import UserError
from edge_deeplab.runtimes import open_model
from edge_deeplab.runtimes.on_torch import TorchRuntime
from edge_deeplab.spec import Head
from tests.runtimes.artefacts import nano_checkpoint, picture, random_nano, toy_contract


@pytest.fixture
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano_checkpoint(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_output_stride_can_be_switched(checkpoint: Path, output_stride: int) -> None:
    with open_model(checkpoint, output_stride=output_stride) as model, open_model(checkpoint) as usual:
        assert model.contract.head_stride == 4  # the decoder's
        ours, theirs = (m.segment(picture(64, 96)) for m in (model, usual))
    assert ours.labels.shape == (64, 96)
    assert np.array_equal(ours.labels, theirs.labels) == (output_stride == 16)


def test_other_output_strides_are_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="output stride must be 8, 16 or 32, not 7"):
        open_model(checkpoint, output_stride=7)


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there(checkpoint: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"device '{device}' cannot be used"):
        open_model(checkpoint, device=device)


@pytest.mark.parametrize("head", ["logits", "logits-full", "probability", "classmap"])
def test_every_head_runs_in_pytorch_too(head: Head) -> None:
    """Exports are verified against it."""
    from edge_deeplab.export.heads import with_head

    contract = toy_contract(head=head)
    model = TorchRuntime(*with_head(random_nano(contract), contract))
    result = model.segment(picture(37, 53))
    assert (result.labels.dtype, result.labels.shape) == (np.uint8, (37, 53))
    assert (result.probability is None) == (head == "classmap")


def test_the_meta_device_computes_nothing(tmp_path: Path) -> None:
    path = nano_checkpoint(tmp_path)
    with pytest.raises(UserError, match="device 'meta' cannot be used: it computes nothing"):
        open_model(path, device="meta")
