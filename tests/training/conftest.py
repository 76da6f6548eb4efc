"""A dozen small pictures, settings for three seconds of training, and one run that nobody disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.engine import train
from edge_deeplab.training.run_folder import BEST


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory, make_people: Callable[..., Path]) -> Path:
    return make_people(tmp_path_factory.mktemp("data") / "people")


@pytest.fixture(scope="session")
def config(people: Path) -> TrainConfig:
    """Three steps an epoch, ten epochs, every kind of augmentation, about three seconds."""
    return TrainConfig(
        data=(f"folder:{people}",),
        name="toy",
        variant="nano",
        size=(64, 64),
        epochs=10,
        batch=4,
        lr=5e-3,
        warmup=5,
        strong=0.5,
        precision="fp32",
        val_every=5,
        checkpoint_every=2,
        workers=0,
        threads=1,
        device="cpu",
        seed=3,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> Path:
    """The folder of a run that nobody disturbed. Tests may not write into it."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    assert train(config, output) == output / BEST
    return output
