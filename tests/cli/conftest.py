"""Fixtures of the command line's tests: run a command in this process, on a toy model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.cli import main
from edge_deeplab.imaging import write_image
from tests.cli.support import Ran, Run
from tests.runtimes.artefacts import nano_checkpoint, picture, toy_onnx


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("info", path)``: as if typed, in this process."""

    def command(*arguments: object) -> Ran:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's own way out
            assert isinstance(stop.code, int)
            status = stop.code
        written = capsys.readouterr()
        return Ran(status, written.out, written.err)

    return command


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy model: bright is a person."""
    return toy_onnx(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small random network."""
    return nano_checkpoint(tmp_path_factory.getbasetemp())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A good picture, 50x70."""
    path = tmp_path / "photo.jpg"
    write_image(path, picture(50, 70))
    return path


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Two pictures, a bright square on black, that the toy model gets exactly right."""
    for index, split in enumerate(("train", "val", "val")):
        image = np.zeros((64, 96, 3), np.uint8)
        image[16:48, 16 + 16 * index : 64] = 255
        write_image(tmp_path / "people" / split / "images" / f"{index}.png", image)
        write_image(tmp_path / "people" / split / "masks" / f"{index}.png", image[..., 0])
    return tmp_path / "people"
