"""Fixtures shared by all tests: pictures and data folders made on the spot, and a disk that fills up."""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_deeplab.spec import PERSON_CLASSES, ClassInfo, InputContract

# Before torch is imported: one thread per process, so that -n auto does not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
cv2.setNumThreads(1)

# A shell that starts tests in the background has them ignore Ctrl-C, and their children too.
signal.signal(signal.SIGINT, signal.default_int_handler)

WITH_TORCH = importlib.util.find_spec("torch") is not None
collect_ignore = [] if WITH_TORCH else ["models", "training"]


def pytest_report_header() -> str:
    return (
        "torch: installed"
        if WITH_TORCH
        else "torch is not installed: tests/models and tests/training left out"
    )


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Calibration ranges measured by tests stay out of the user's cache."""
    os.environ["EDGE_DEEPLAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def contract() -> InputContract:
    """A binary model with an input of 64x96 and logits at stride 4."""
    return InputContract("toy", "lite", height=64, width=96, classes=PERSON_CLASSES)


@pytest.fixture
def four_classes(contract: InputContract) -> InputContract:
    """The same with four classes."""
    colors = ((0, 0, 0), (255, 0, 0), (0, 200, 0), (10, 20, 30))
    return contract.replace(classes=tuple(ClassInfo(f"class {k}", c) for k, c in enumerate(colors)))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name only."""
    return np.random.default_rng(list(request.node.name.encode()))


FullDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def full_disk() -> FullDisk:
    """``with full_disk(1000):`` no file of this process can grow beyond 1000 bytes: real short writes."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


MakePeople = Callable[..., Path]


@pytest.fixture(scope="session")
def make_people() -> MakePeople:
    """``make_people(root)``: a folder data set of 48x64 pictures with bright ellipses, masks 0/255."""

    def make(root: Path, *, train: int = 12, val: int = 4, size: tuple[int, int] = (48, 64)) -> Path:
        random = np.random.default_rng(7)
        width = size[1]
        for split, count in (("train", train), ("val", val)):
            images, masks = root / split / "images", root / split / "masks"
            images.mkdir(parents=True)
            masks.mkdir()
            for index in range(count):
                center = (int(random.integers(width // 3, 2 * width // 3)), int(random.integers(16, 32)))
                axes = (int(random.integers(8, 16)), int(random.integers(8, 16)))
                mask = np.zeros(size, np.uint8)
                cv2.ellipse(mask, center, axes, 0, 0, 360, 255, -1)
                image = random.integers(0, 120, (*size, 3)).astype(np.uint8)
                image[mask > 0] += 100
                cv2.imwrite(str(images / f"{index:02d}.png"), image)
                cv2.imwrite(str(masks / f"{index:02d}.png"), mask)
        return root

    return make
