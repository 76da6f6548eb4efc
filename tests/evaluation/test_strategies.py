"""Several looks at a picture, averaged: against the slow definition, for checkpoints and artefacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_deeplab.data import Pair, Split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation import tally
from edge_deeplab.evaluation.strategies import (
    PAPER_SCALES,
    PAPER_STRATEGIES,
    Strategy,
    View,
    check_strategy,
    compare,
    look,
    scaled_size,
    segment,
)
from edge_deeplab.imaging import postprocess, preprocess, write_image
from edge_deeplab.spec import ClassInfo, InputContract, mirrored_ids
from tests.runtimes.artefacts import picture

Array = NDArray[Any]


class Network:
    """Four planes of a blurred picture at stride 4, lopsided, so that mirroring matters."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, tensor: Array) -> Array:
        self.sizes.append(tensor.shape[2:])
        small = tensor[0, :, ::4, ::4]
        shifted = np.roll(small, 1, axis=2)
        planes = [3 * small[0], 3 * shifted[1], 2 * small[2] + shifted[0], small.mean(0)][: self.outputs]
        return np.stack(planes)[None].astype(np.float32)


@pytest.fixture
def dynamic(four_classes: InputContract) -> InputContract:
    return four_classes.replace(dynamic=("height", "width"))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def test_views() -> None:
    assert Strategy().views == (View(1.0, False),)
    assert Strategy((0.5, 1.0), flip=True).views == (
        View(0.5, False),
        View(0.5, True),
        View(1.0, False),
        View(1.0, True),
    )
    assert [len(strategy.views) for strategy in PAPER_STRATEGIES] == [1, 2, 6, 12]


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_the_mean_of_all_looks_by_its_definition(dynamic: InputContract, resize: Any) -> None:
    contract = dynamic.replace(resize=resize)
    frame = picture(70, 90)
    total: Array = np.zeros((4, 70, 90))
    for scale in (0.5, 1.0, 1.5):
        for mirrored in (False, True):
            scaled = contract.replace(height=round(64 * scale), width=round(96 * scale))
            seen = np.ascontiguousarray(frame[:, ::-1]) if mirrored else frame
            output = Network(4)(preprocess(seen, scaled))[0]
            if resize == "stretch":
                planes = np.stack([cv2.resize(plane, (90, 70)) for plane in output])
            else:  # through the shared processing of a binary model, plane by plane
                one = scaled.replace(classes=scaled.classes[:2])
                scores = [postprocess(plane[None], one, 70, 90)[1] for plane in output]
                planes = np.stack([plane for plane in scores if plane is not None])
            probabilities = softmax(planes.astype(np.float64))
            total += probabilities[..., ::-1] if mirrored else probabilities
    labels = segment(Network(4), contract, frame, Strategy((0.5, 1.0, 1.5), flip=True))
    wanted = total.argmax(0)
    best_two = np.sort(total, axis=0)[-2:]
    clear = best_two[1] - best_two[0] > 1e-4
    assert clear.mean() > 0.95
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[clear], wanted[clear])


def test_one_look_is_plain_segmentation(dynamic: InputContract, contract: InputContract) -> None:
    for each, outputs in ((dynamic, 4), (contract, 1)):
        frame = picture(50, 61, seed=4)
        plain, _ = postprocess(Network(outputs)(preprocess(frame, each))[0], each, 50, 61)
        np.testing.assert_array_equal(segment(Network(outputs), each, frame, Strategy()), plain)


def test_flipping_makes_the_answer_symmetric(dynamic: InputContract) -> None:
    frame = picture(64, 96)
    mirrored = np.ascontiguousarray(frame[:, ::-1])
    plain = [segment(Network(4), dynamic, f, Strategy()) for f in (frame, mirrored)]
    flipped = [segment(Network(4), dynamic, f, Strategy(flip=True)) for f in (frame, mirrored)]
    assert (plain[0] != plain[1][:, ::-1]).mean() > 0.01
    assert (flipped[0] != flipped[1][:, ::-1]).mean() < 0.001


def test_a_binary_model_averages_probabilities_and_keeps_its_threshold(contract: InputContract) -> None:
    contract = contract.replace(dynamic=("height", "width"), threshold=0.7)
    frame = picture(64, 96)
    views = [look(Network(1), contract, frame, View(1.0, mirrored)) for mirrored in (False, True)]
    assert views[0].shape == (1, 64, 96)
    wanted = (views[0][0] + views[1][0]) / 2 >= 0.7
    np.testing.assert_array_equal(segment(Network(1), contract, frame, Strategy(flip=True)), wanted)


def test_probability_heads_are_not_squashed_again(contract: InputContract) -> None:
    probability = contract.replace(head="probability")
    frame = picture(64, 96)

    def infer(tensor: Array) -> Array:
        return np.full((1, 1, 16, 24), 0.3, np.float32)

    assert look(infer, probability, frame, View(1.0, False)) == pytest.approx(0.3)


def split_of(path: Path, contract: InputContract) -> Split:
    pairs = []
    random = np.random.default_rng(0)
    for index, (height, width) in enumerate([(64, 96), (40, 50), (90, 60)]):
        write_image(path / f"{index}.png", picture(height, width, seed=index))
        mask = random.integers(0, len(contract.classes), (height, width)).astype(np.uint8)
        mask[:5] = 255
        write_image(path / f"{index}-mask.png", mask)
        pairs.append(Pair(path / f"{index}.png", path / f"{index}-mask.png"))
    return Split("toy/val", tuple(pairs), contract.classes)


def test_comparing_is_scoring_each_and_looks_are_shared(tmp_path: Path, dynamic: InputContract) -> None:
    split = split_of(tmp_path, dynamic)
    strategies = (*PAPER_STRATEGIES, Strategy((0.5,)))
    network = Network(4)
    found = compare(network, dynamic, split, strategies)
    assert len(network.sizes) == 12 * len(split)
    for strategy, seen in zip(strategies, found, strict=True):
        alone = tally(lambda f, s=strategy: segment(Network(4), dynamic, f, s), split, boundary=False)  # type: ignore[misc]
        np.testing.assert_array_equal(seen.confusion, alone.confusion)
        assert seen.tallies.keys() == alone.tallies.keys()


def test_multiply_adds_are_those_of_all_looks(dynamic: InputContract) -> None:
    def count(height: int, width: int) -> int:
        return height * width

    one = 64 * 96
    assert Strategy().multiply_adds(dynamic, count) == one
    assert Strategy(flip=True).multiply_adds(dynamic, count) == 2 * one
    sizes = [scaled_size(dynamic, scale) for scale in PAPER_SCALES]
    assert sizes == [(32, 48), (48, 72), (64, 96), (80, 120), (96, 144), (112, 168)]
    assert Strategy(PAPER_SCALES, flip=True).multiply_adds(dynamic, count) == 2 * sum(h * w for h, w in sizes)


def test_what_a_model_cannot_do_is_said(four_classes: InputContract, contract: InputContract) -> None:
    check_strategy(four_classes, Strategy(flip=True))
    with pytest.raises(UserError, match="takes 64x96 only; score its checkpoint at several scales"):
        check_strategy(four_classes, Strategy((0.5, 1.0)))
    classmap = four_classes.replace(head="classmap", dynamic=("height", "width"))
    check_strategy(classmap, Strategy())
    with pytest.raises(UserError, match="gives class ids only"):
        check_strategy(classmap, Strategy(flip=True))
    with pytest.raises(UserError, match="gives class ids only"):
        segment(Network(4), classmap, picture(64, 96), Strategy(flip=True))


def test_a_mirrored_answers_left_is_the_right() -> None:
    """A model that tells left from right by the side alone: both looks agree, and neither class is lost."""
    classes = tuple(ClassInfo(name, (0, 0, 0)) for name in ("nothing", "left eye", "RIGHT eye"))
    contract = InputContract("eyes", "toy", 64, 96, classes, head="logits-full", head_stride=1)

    def infer(tensor: NDArray[Any]) -> NDArray[Any]:
        logits = np.zeros((1, 3, 64, 96), np.float32)
        logits[:, 1, :, :30] = logits[:, 2, :, 66:] = 9
        return logits

    frame = picture(64, 96)
    labels = segment(infer, contract, frame, Strategy(flip=True))
    assert [int(labels[32, column]) for column in (10, 48, 86)] == [1, 0, 2]
    assert np.array_equal(labels, segment(infer, contract, frame, Strategy()))


def test_sides_by_names() -> None:
    def ids(*names: str) -> tuple[int, ...]:
        return mirrored_ids([ClassInfo(name, (0, 0, 0)) for name in names])

    assert ids("background", "person") == (0, 1)
    assert ids("none", "Left-arm", "right_arm", "right-arm") == (0, 3, 2, 1)
    assert ids("bright light", "copyright", "leftover") == (0, 1, 2)
    assert ids("nothing", "left lane") == (0, 1)  # there is no right one
    assert ids("left", "right") == (1, 0)
