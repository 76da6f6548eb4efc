"""Calibration pictures: the same ones every time, doubted when odd; ranges cached under the right key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab import imaging
from edge_deeplab.errors import UserError
from edge_deeplab.export import calibration as calibration_module
from edge_deeplab.export.calibration import (
    MINIMUM,
    Calibration,
    choose,
    doubts,
    for_shipped,
    packaged,
    statistics,
)
from edge_deeplab.export.sample import augmented, views
from edge_deeplab.imaging import Frame, write_image
from edge_deeplab.spec import InputContract
from tests.runtimes.artefacts import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty pictures of different sizes."""
    path = tmp_path / "pictures"
    path.mkdir()
    for number in range(20):
        write_image(path / f"{number:02d}.png", picture(20 + number, 30, seed=number))
    return path


def names(calibration: Calibration) -> list[str]:
    return [entry.name for entry in calibration.pictures]


# -- choosing ------------------------------------------------------------------------------------


def test_the_same_seed_chooses_the_same_pictures(folder: Path) -> None:
    first, again, other = (choose(str(folder), 16, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.sha256 == again.sha256
    assert names(first) == sorted(names(first))
    assert len(set(names(first))) == 16
    assert names(other) != names(first)
    assert other.sha256 != first.sha256


def test_the_hash_sees_names_contents_and_order(folder: Path) -> None:
    before = choose(str(folder), 20)
    assert len(before.pictures) == 20
    swapped = dataclasses.replace(before, pictures=before.pictures[::-1])
    assert swapped.sha256 != before.sha256
    write_image(folder / "07.png", picture(27, 30, seed=99))
    changed = choose(str(folder), 20)
    assert names(changed) == names(before)
    assert changed.sha256 != before.sha256
    (folder / "07.png").rename(folder / "07b.png")
    assert choose(str(folder), 20).sha256 != changed.sha256


def test_a_data_set_gives_its_train_split(tmp_path: Path, make_people: Callable[..., Path]) -> None:
    root = make_people(tmp_path / "people", train=18, val=4)
    chosen = choose(f"folder:{root}", 16)
    assert chosen.source == "people/train"
    assert set(names(chosen)) <= {file.name for file in (root / "train" / "images").iterdir()}


def test_tensors_are_those_the_runtime_makes_and_come_again(folder: Path, contract: InputContract) -> None:
    tensors = choose(str(folder), 16).tensors(contract)
    first, second = list(tensors), list(tensors)
    assert len(tensors) == len(first) == 16
    for a, b, entry in zip(first, second, tensors.pictures, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, imaging.preprocess(entry.read(), contract))
    assert first[0].shape == (1, 3, 64, 96)


@pytest.mark.parametrize("count", [1, MINIMUM - 1])
def test_too_few_asked_for(folder: Path, count: int) -> None:
    with pytest.raises(UserError, match=f"--calibration-count {count} is too few; take {MINIMUM} or more"):
        choose(str(folder), count)


def test_too_few_there(folder: Path) -> None:
    for number in range(10):
        (folder / f"{number:02d}.png").unlink()
    with pytest.raises(UserError, match="has 10 pictures; INT8 ranges need 16 or more"):
        choose(str(folder))


def test_fewer_than_asked_for_are_all_taken(folder: Path) -> None:
    assert len(choose(str(folder), 1000).pictures) == 20


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "cut short"])
def test_an_unreadable_picture_is_named(folder: Path, content: bytes | None) -> None:
    broken = folder / "05.png"
    broken.write_bytes(broken.read_bytes()[:-20] if content is None else content)
    with pytest.raises(UserError, match=r"cannot read .*05\.png"):
        choose(str(folder), 20)


@pytest.mark.parametrize(
    ("spec", "match"),
    [("nowhere", "cannot read nowhere"), ("kind:x", "must be KIND:PATH"), ("folder:nowhere", "nowhere")],
)
def test_no_pictures_there(spec: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        choose(spec)


def test_an_unknown_method(folder: Path) -> None:
    with pytest.raises(
        UserError, match="no calibration method 'guess'; there are: minmax, entropy, percentile"
    ):
        choose(str(folder), method="guess")  # type: ignore[arg-type]


def test_only_shipped_models_have_pictures_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = for_shipped("portrait", 20)
    assert len(chosen.pictures) == 20
    assert chosen.sha256 == for_shipped("portrait-open", 20).sha256
    monkeypatch.chdir(tmp_path)
    assert for_shipped("portrait.safetensors", 20).sha256 == chosen.sha256  # the file's name is its name too
    Path("portrait.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match="give --calibration DIR or KIND:PATH"):
        for_shipped("portrait.safetensors")


@pytest.mark.parametrize("count", [1, MINIMUM - 1])
def test_too_few_of_the_packaged_ones_asked_for(count: int) -> None:
    with pytest.raises(UserError, match=f"--calibration-count {count} is too few; take {MINIMUM} or more"):
        for_shipped("portrait", count)


def test_packaged_pictures_differ_and_stay(contract: InputContract) -> None:
    first = packaged(24)
    assert first.sha256 == packaged(24).sha256
    assert len({entry.sha256 for entry in first.pictures}) == 24
    levels = np.concatenate([frame.reshape(-1) for _, frame in augmented(24)])
    assert (levels.min(), levels.max()) == (0, 255)
    frame = first.pictures[0].read()
    frame[:] = 0  # the next reader gets it whole
    assert first.pictures[0].read().any()


def test_the_record_for_the_contract(folder: Path) -> None:
    chosen = choose(str(folder), 16, method="entropy")
    record = chosen.record("u8s8", ("classifier",))
    assert (record.pictures, record.method, record.sha256) == (16, "entropy", chosen.sha256)
    assert record.float_layers == ("classifier",)


# -- doubts --------------------------------------------------------------------------------------


def shown(folder: Path, make: Callable[[int], Frame]) -> Calibration:
    folder.mkdir()
    for number in range(16):
        write_image(folder / f"{number:02d}.png", make(number))
    return choose(str(folder), 16)


def half(frame: Frame) -> Any:
    """A float model that finds a person in the left half of everything."""
    labels = np.zeros(frame.shape[:2], np.uint8)
    labels[:, : frame.shape[1] // 2] = 1
    return labels


def test_real_pictures_raise_no_doubt(contract: InputContract) -> None:
    assert doubts(packaged(16), contract, half) == []


FLAT: Callable[[int], Frame] = lambda n: np.full((70, 90, 3), 5 * n, np.uint8)  # noqa: E731
NOISE: Callable[[int], Frame] = lambda n: np.random.default_rng(n).integers(0, 256, (70, 90, 3), np.uint8)  # noqa: E731


@pytest.mark.parametrize(
    ("make", "word"),
    [
        pytest.param(
            lambda n: np.full((70, 90, 3), 5 * n, np.uint8), "16 of 16 show hardly anything", id="flat"
        ),
        pytest.param(NOISE, "16 of 16 look like noise", id="noise"),
        pytest.param(lambda n: views()[n % 2][1], "14 are copies of others", id="copies"),
    ],
)
def test_garbage_is_doubted(
    tmp_path: Path, contract: InputContract, make: Callable[[int], Frame], word: str
) -> None:
    lines = doubts(shown(tmp_path / "garbage", make), contract.replace(height=70, width=90), half)
    assert any(word in line for line in lines), lines
    assert all("INT8 may lose accuracy" in line for line in lines)


def test_pictures_without_a_person_are_doubted(contract: InputContract) -> None:
    (line,) = doubts(packaged(16), contract, lambda frame: np.zeros(frame.shape[:2], np.uint8))
    assert "in 16 of 16 the float model does not find both classes" in line


# -- the cache -----------------------------------------------------------------------------------


class Counting:
    """Measures, and counts how often."""

    def __init__(self) -> None:
        self.times = 0
        self.notes: list[str] = []

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        return {"tensor": [-1.0, 0.1 + self.times]}

    def ask(self, calibration: Calibration, contract: InputContract, **changes: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"graph": "ab" * 32, "tools": {"tool": "1.0"}, **changes}
        return statistics(calibration, contract, compute=self, note=self.notes.append, **given)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_DEEPLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "calibration"


def test_the_same_question_is_answered_from_the_cache(
    folder: Path, contract: InputContract, cache: Path
) -> None:
    counting, calibration = Counting(), choose(str(folder), 16)
    first = counting.ask(calibration, contract)
    assert counting.ask(choose(str(folder), 16), contract) == first
    assert (counting.times, counting.notes) == (1, [])
    assert len(list(cache.iterdir())) == 1


def test_anything_else_is_another_question(folder: Path, contract: InputContract, cache: Path) -> None:
    counting, calibration = Counting(), choose(str(folder), 16)
    counting.ask(calibration, contract)
    counting.ask(calibration, contract, graph="cd" * 32)
    counting.ask(calibration, contract, tools={"tool": "1.1"})
    counting.ask(choose(str(folder), 17), contract)
    counting.ask(choose(str(folder), 16, method="entropy"), contract)
    for changes in ({"height": 32}, {"mean": (0.0, 0.0, 0.0)}, {"channels": "BGR"}, {"resize": "letterbox"}):
        counting.ask(calibration, contract.replace(**changes))
    assert counting.times == 9
    assert len(list(cache.iterdir())) == 9
    counting.ask(calibration, contract.replace(metrics={"x": 1.0}, name="other"))  # changes no range
    assert counting.times == 9


@pytest.mark.parametrize(
    ("module", "name"),
    [(cv2, "__version__"), (np, "__version__"), (calibration_module, "__version__")],
    ids=["opencv", "numpy", "edge-deeplab"],
)
def test_another_version_is_another_question(
    folder: Path,
    contract: InputContract,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
) -> None:
    """Also of what every target uses: it decodes, resizes and counts."""
    counting, calibration = Counting(), choose(str(folder), 16)
    counting.ask(calibration, contract)
    monkeypatch.setattr(module, name, "0.0.0")
    counting.ask(calibration, contract)
    assert counting.times == 2


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "text": lambda data: b"no json",
    "list": lambda data: b"[]",
    "changed answer": lambda data: data.replace(b"-1.0", b"-2.0"),
    "of another question": lambda data: data.replace(b"minmax", b"maxmin"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_measured_anew(
    folder: Path, contract: InputContract, cache: Path, damage: str
) -> None:
    counting, calibration = Counting(), choose(str(folder), 16)
    counting.ask(calibration, contract)
    (file,) = cache.iterdir()
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert counting.ask(calibration, contract) == {"tensor": [-1.0, 2.1]}
    assert counting.notes == [f"the calibration cache {file} is damaged; measured anew"]
    assert counting.ask(calibration, contract) == {"tensor": [-1.0, 2.1]}
    assert counting.times == 2
    json.loads(file.read_bytes())


def test_an_unwritable_cache_only_costs_time(folder: Path, contract: InputContract, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file in the way")
    counting, calibration = Counting(), choose(str(folder), 16)
    assert counting.ask(calibration, contract) == {"tensor": [-1.0, 1.1]}
    assert counting.notes[0].startswith("ranges were not cached: cannot write")
