"""Learning rate over a run, parameter groups, and the two optimisers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.variants import variant
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.dataset import Batches, loader
from edge_deeplab.training.engine import Trainer
from edge_deeplab.training.optimizer import learning_rate, make_optimizer, parameter_groups

STEPS = 30


def test_learning_rate(config: TrainConfig) -> None:
    settings = dataclasses.replace(config, warmup=4, power=0.9)
    factors = [learning_rate(step, 14, settings) for step in range(14)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[9] == pytest.approx(0.5**0.9)
    assert factors[13] == pytest.approx(0.1**0.9)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    linear = dataclasses.replace(config, warmup=0, power=1.0)
    assert [learning_rate(step, 4, linear) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_learning_rate_of_a_run_shorter_than_its_warm_up(config: TrainConfig) -> None:
    settings = dataclasses.replace(config, warmup=100)
    factors = [learning_rate(step, 10, settings) for step in range(10)]
    assert factors == [(step + 1) / 100 for step in range(10)]


def test_parameter_groups(config: TrainConfig) -> None:
    settings = dataclasses.replace(config, lr=1.0, backbone_lr=0.25, weight_decay=0.5)
    model = DeepLabV3Plus(variant("lite").architecture, 3)
    groups = parameter_groups(model, settings)
    found = {id(p): group for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    modules = dict(model.named_modules())
    kinds = set()
    for name, parameter in model.named_parameters():
        owner = modules[name.rpartition(".")[0]]
        group = found[id(parameter)]
        in_backbone = name.startswith("backbone.")
        assert group["peak"] == (0.25 if in_backbone else 1.0), name
        pointwise = isinstance(owner, nn.Conv2d) and owner.groups == 1 and name.endswith("weight")
        assert group["weight_decay"] == (0.5 if pointwise else 0.0), name
        kinds.add((in_backbone, pointwise, type(owner).__name__))
    assert {(True, False, "BatchNorm2d"), (False, False, "BatchNorm2d"), (True, True, "Conv2d")} <= kinds
    assert found[id(model.classifier.bias)]["weight_decay"] == 0.0
    assert found[id(model.classifier.weight)]["weight_decay"] == 0.5
    depthwise = model.get_parameter("aspp.atrous.0.0.0.weight")
    assert depthwise.shape[1] == 1
    assert found[id(depthwise)]["weight_decay"] == 0.0


def test_the_optimiser_follows_the_schedule(tmp_path: Path, config: TrainConfig) -> None:
    trainer = Trainer(config, tmp_path / "run")
    batch = next(iter(loader(trainer.samples, config, Batches(12, config, 0, 1))))
    trainer._train_step(batch)
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    factor = learning_rate(0, STEPS, config)
    assert rates == {config.lr * factor, config.lr * config.backbone_lr * factor}


def test_sgd_has_momentum_and_the_same_groups(config: TrainConfig) -> None:
    model = DeepLabV3Plus(variant("nano").architecture, 3)
    settings = dataclasses.replace(config, optimizer="sgd", momentum=0.8)
    ours, theirs = make_optimizer(model, settings), make_optimizer(model, config)
    assert isinstance(ours, torch.optim.SGD)
    assert isinstance(theirs, torch.optim.AdamW)
    assert {group["momentum"] for group in ours.param_groups} == {0.8}
    for mine, its in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert [id(p) for p in mine["params"]] == [id(p) for p in its["params"]]
        assert (mine["peak"], mine["weight_decay"]) == (its["peak"], its["weight_decay"])
