"""Quantisation-aware training: folding changes nothing, rounding is that of the exports, ranges settle."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edge_deeplab.models.checkpoint import load_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.layers import ConvBNAct
from edge_deeplab.models.variants import variant
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.engine import Trainer, train
from edge_deeplab.training.networks import measure_ranges
from edge_deeplab.training.quantisation import FakeQuant, Ranges, fold_norms, rounded_weight
from edge_deeplab.training.run_folder import BEST
from tests.training.support import assert_same_run, state_of


@pytest.fixture
def model() -> DeepLabV3Plus:
    """With batch norms that have something to fold."""
    torch.manual_seed(0)
    network = DeepLabV3Plus(variant("nano").architecture, 1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(0, 0.1)
            module.get_buffer("running_var").uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    nn.init.normal_(network.classifier.weight)
    return network.eval()


@pytest.mark.parametrize("name", ["nano", "lite", "v3"])
def test_folding_changes_nothing(name: str) -> None:
    torch.manual_seed(1)
    network = DeepLabV3Plus(variant(name).architecture, 3).eval()
    image = torch.randn(2, 3, 64, 64)
    before = network(image)
    fold_norms(network)
    torch.testing.assert_close(network(image), before, rtol=1e-4, atol=1e-5)
    for module in network.modules():
        if isinstance(module, ConvBNAct):
            norm = module[1]
            assert isinstance(norm, nn.BatchNorm2d)
            assert (norm.weight == 1).all()
            assert not norm.weight.requires_grad
            assert norm.bias.requires_grad
            assert not norm.get_buffer("running_mean").any()


def test_weights_are_rounded_per_channel_and_symmetric() -> None:
    weight = torch.randn(5, 4, 3, 3) * torch.tensor([0.01, 0.1, 1.0, 10.0, 0.0]).view(5, 1, 1, 1)
    rounded = rounded_weight(weight)
    for channel, original in zip(rounded, weight, strict=True):
        scale = float(original.abs().max()) / 127
        if scale:
            steps = channel / scale
            torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
            assert (channel - original).abs().max() <= scale / 2 * 1.001
            assert steps.abs().max() == pytest.approx(127, abs=1e-3)
        else:
            assert not channel.any()


def test_activations_have_256_levels_and_an_exact_zero() -> None:
    ranges = Ranges(2).eval()
    x = torch.linspace(-1, 3, 1001)
    ranges.see(1, x)
    rounded = ranges.round(1, x)
    assert 255 <= len(rounded.unique()) <= 256
    assert (rounded == 0).any()
    assert (rounded - x).abs().max() <= 4 / 255
    assert float(ranges.round(1, torch.tensor([99.0]))) == pytest.approx(3, abs=4 / 255)
    assert not ranges.low[0]  # another place, never seen
    # Positive values only: the range still holds 0.
    ranges.see(0, torch.tensor([2.0, 5.0]))
    assert (float(ranges.low[0]), float(ranges.high[0])) == (0, 5)


def test_gradients_pass_through_the_rounding(model: DeepLabV3Plus) -> None:
    fold_norms(model)
    quantised = FakeQuant(model).train()
    quantised.ranges.eval()
    quantised.observing = True
    quantised(torch.randn(2, 3, 64, 64))
    quantised(torch.randn(2, 3, 64, 64)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
        if parameter.grad is not None and name.endswith("weight"):
            assert parameter.grad.abs().sum() > 0, name


def test_the_rounded_network_is_close_to_the_float_one(model: DeepLabV3Plus) -> None:
    image = torch.randn(2, 3, 64, 64).clamp(-1, 1)
    wanted = model(image).detach()
    fold_norms(model)
    quantised = FakeQuant(model).eval()
    quantised.observing = True
    with torch.no_grad():
        quantised(image)
        quantised.observing = False
        answer = quantised(image)
    error = float((answer - wanted).norm() / (wanted - wanted.mean()).norm())
    assert 1e-4 < error < 0.25
    # Ranges of another picture's size do not move once nobody observes.
    before = copy.deepcopy(quantised.ranges.state_dict())
    quantised(100 * image)
    assert all(torch.equal(v, before[k]) for k, v in quantised.ranges.state_dict().items())


def test_every_stored_tensor_is_rounded(model: DeepLabV3Plus) -> None:
    """What goes into a convolution or an addition lies on at most 256 levels."""
    fold_norms(model)
    quantised = FakeQuant(model).eval()
    quantised.observing = True
    image = torch.randn(1, 3, 64, 64)
    levels: dict[str, int] = {}

    def count(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            levels[name] = len(inputs[0].unique())

        return hook

    with torch.no_grad():
        quantised(image)
        quantised.observing = False
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(count(name))  # type: ignore[arg-type]
        logits = quantised(image)
    assert len(levels) > 40
    assert max(levels.values()) <= 256, max(levels.items(), key=lambda item: item[1])
    assert len(logits.unique()) <= 256


# -- a run -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(config: TrainConfig, finished: Path) -> TrainConfig:
    return dataclasses.replace(
        config, init=str(finished / BEST), qat=True, lr=1e-4, epochs=2, val_every=1, warmup=0
    )


def test_a_run_gives_an_ordinary_checkpoint(tmp_path: Path, settings: TrainConfig, finished: Path) -> None:
    best = train(settings, tmp_path / "run")
    model, contract = load_checkpoint(best)
    assert contract.variant == "nano"
    start, _ = load_checkpoint(finished / BEST)
    assert model.state_dict().keys() == start.state_dict().keys()
    assert any((model.state_dict()[k] != v).any() for k, v in start.state_dict().items())
    tensors, _ = state_of(tmp_path / "run")
    assert {"ranges.low", "ranges.high"} < tensors.keys()
    assert (tensors["ranges.high"] > tensors["ranges.low"]).all()
    assert (tensors["ranges.high"] >= 0).all()
    assert (tensors["ranges.low"] <= 0).all()


def test_a_stopped_run_resumes_to_the_same_weights(
    tmp_path: Path, settings: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings, tmp_path / "whole")

    class Stopped(Exception):
        pass

    original = Trainer._train_step

    def stopping(self: Trainer, batch: dict[str, Tensor]) -> float:
        if self.progress.step == 4:
            raise Stopped
        return original(self, batch)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "_train_step", stopping)
        train(settings, tmp_path / "run")
    train(settings, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_ranges_start_from_real_pictures_and_settle(tmp_path: Path, settings: TrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(settings, epochs=1), tmp_path / "run")
    quantiser = trainer.networks.quantiser
    assert quantiser is not None
    measured = quantiser.ranges.high.clone()
    assert (measured > quantiser.ranges.low).all()
    measure_ranges(trainer.networks, trainer._first_pictures())
    assert torch.equal(quantiser.ranges.high, measured)  # nothing new in the same pictures
    seen = []
    original = trainer._train_step

    def spy(batch: dict[str, Tensor]) -> float:
        loss = original(batch)
        seen.append((quantiser.observing, quantiser.ranges.high.clone()))
        return loss

    trainer._train_step = spy  # type: ignore[method-assign]
    trainer.run()
    assert [observing for observing, _ in seen] == [True, True, False]
    assert not torch.equal(seen[0][1], measured)
    assert torch.equal(seen[2][1], seen[1][1])
