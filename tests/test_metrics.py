"""Metrics against examples worked out by hand and against slow definitions."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_deeplab import metrics
from edge_deeplab.data import Split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation import as_record, check_classes, evaluate
from edge_deeplab.imaging import Labels
from edge_deeplab.metrics import Evaluator, boundary, confidence_interval, confusion
from edge_deeplab.spec import InputContract

Array = NDArray[Any]


def ids(*rows: list[int]) -> Labels:
    return np.array(rows, np.uint8)


def blobs(rng: np.random.Generator, shape: tuple[int, int], classes: int) -> Labels:
    """A random label map with areas of some size."""
    coarse = rng.random((classes, 4, 5)).astype(np.float32)
    planes = [cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_CUBIC) for plane in coarse]
    return np.argmax(planes, axis=0).astype(np.uint8)


# -- by hand -------------------------------------------------------------------------------------


def test_confusion_has_the_truth_in_rows() -> None:
    matrix = confusion(ids([0, 1, 1, 2]), ids([0, 0, 1, 255]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_two_classes_by_hand() -> None:
    evaluator = Evaluator(2)
    own = evaluator.add(ids([1, 1, 0, 0]), ids([1, 0, 1, 0]))
    scores = evaluator.scores()
    assert scores.images == 1
    assert scores.iou == (1 / 3, 1 / 3)  # one hit of three for both
    assert scores.miou == 1 / 3
    assert scores.pixel_accuracy == 0.5
    assert own == scores.image_iou == 1 / 3
    assert scores.foreground_iou == 1 / 3


def test_three_classes_by_hand_with_one_that_never_occurs() -> None:
    evaluator = Evaluator(4)
    evaluator.add(ids([0, 0, 1], [1, 2, 2]), ids([0, 1, 1], [1, 2, 0]))
    scores = evaluator.scores()
    assert scores.iou[:3] == (1 / 3, 2 / 3, 1 / 2)
    assert math.isnan(scores.iou[3])
    assert scores.miou == scores.foreground_iou == scores.image_iou == pytest.approx(1 / 2)
    assert scores.pixel_accuracy == 4 / 6
    assert math.isnan(scores.boundary_iou[3])


def test_pooled_iou_weighs_pixels_and_image_iou_weighs_pictures() -> None:
    evaluator = Evaluator(2)
    big = np.ones((10, 10), np.uint8)
    assert evaluator.add(big, big) == 1.0
    one = np.zeros((10, 10), np.uint8)
    one[5, 5] = 1
    assert evaluator.add(np.zeros_like(one), one) == 0.0
    scores = evaluator.scores()
    assert scores.iou == (99 / 100, 100 / 101)
    assert scores.image_iou == 0.5
    assert scores.pixel_accuracy == 199 / 200


def test_an_empty_picture_left_empty_is_right() -> None:
    evaluator = Evaluator(2)
    empty = np.zeros((4, 4), np.uint8)
    assert evaluator.add(empty, empty) == 1.0
    scores = evaluator.scores()
    assert scores.iou[0] == 1.0
    assert math.isnan(scores.iou[1])
    assert scores.image_iou == 1.0
    assert scores.miou == 1.0  # over the classes that occur


def test_an_empty_picture_with_a_false_alarm_is_wrong() -> None:
    evaluator = Evaluator(2)
    alarm = np.zeros((4, 4), np.uint8)
    alarm[0, 0] = 1
    assert evaluator.add(alarm, np.zeros((4, 4), np.uint8)) == 0.0


def test_255_counts_nowhere(rng: np.random.Generator) -> None:
    truth = blobs(rng, (30, 40), 3)
    labels = blobs(rng, (30, 40), 3)
    hidden = rng.random(truth.shape) < 0.3
    truth[hidden] = 255
    evaluator = Evaluator(3)
    evaluator.add(labels, truth)
    # Whatever stands there, 255 included, changes nothing.
    scores = evaluator.scores()
    for value in (0, 2, 255):
        other = Evaluator(3)
        other.add(np.where(hidden, np.uint8(value), labels), truth)
        np.testing.assert_equal(other.scores(), scores)
    seen = labels[~hidden]
    for k in range(3):
        a, b = seen == k, truth[~hidden] == k
        assert scores.iou[k] == (a & b).sum() / (a | b).sum()
    assert scores.pixel_accuracy == np.mean(seen == truth[~hidden])


def test_nothing_known_or_nothing_added() -> None:
    nothing = Evaluator(2).scores()
    assert nothing.images == 0
    assert math.isnan(nothing.miou)
    assert math.isnan(nothing.image_iou)
    assert math.isnan(nothing.pixel_accuracy)
    evaluator = Evaluator(2)
    assert math.isnan(evaluator.add(ids([0, 1]), ids([255, 255])))
    scores = evaluator.scores()
    assert scores.images == 1
    assert math.isnan(scores.image_iou)
    assert all(math.isnan(v) for v in (*scores.iou, *scores.boundary_iou, scores.miou, scores.pixel_accuracy))


def test_a_picture_that_is_all_ignored_does_not_lift_the_mean() -> None:
    evaluator = Evaluator(2)
    evaluator.add(ids([1, 0]), ids([255, 255]))
    evaluator.add(ids([1, 1]), ids([1, 0]))
    assert evaluator.scores().image_iou == 0.5


def test_evaluators_of_parts_merge_exactly(rng: np.random.Generator) -> None:
    pictures = [(blobs(rng, (30, 40), 3), blobs(rng, (30, 40), 3)) for _ in range(5)]
    whole, merged = Evaluator(3), Evaluator(3)
    for index, (labels, truth) in enumerate(pictures):
        whole.add(labels, truth, index)
    for first in (1, 0):
        part = Evaluator(3)
        for index in range(first, 5, 2):
            part.add(*pictures[index], index)
        merged.merge(part)
    assert merged.scores() == whole.scores()
    assert list(merged.tallies) == [0, 1, 2, 3, 4]


def test_the_interval_holds_the_figure_and_narrows_with_more_pictures(rng: np.random.Generator) -> None:
    def interval(count: int) -> tuple[float, float, float]:
        evaluator = Evaluator(2, boundary=False)
        for _ in range(count):
            truth = blobs(rng, (20, 20), 2)
            flip = rng.random(truth.shape) < rng.uniform(0, 0.3)
            evaluator.add(np.where(flip, 1 - truth, truth).astype(np.uint8), truth)
        low, high = confidence_interval(list(evaluator.tallies.values()))
        return low, evaluator.scores().foreground_iou, high

    widths = []
    for count in (10, 40, 160):
        low, value, high = interval(count)
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < 0.8 * widths[0]
    assert widths[2] < 0.8 * widths[1]


def test_the_interval_is_that_of_resampled_pictures(rng: np.random.Generator) -> None:
    """Against resampling whole pictures, one draw after the other."""
    tallies = []
    for _ in range(12):
        truth, labels = blobs(rng, (16, 16), 3), blobs(rng, (16, 16), 3)
        evaluator = Evaluator(3, boundary=False)
        evaluator.add(labels, truth)
        tallies += evaluator.tallies.values()
    draws = []
    for _ in range(3000):
        chosen = sum(tallies[int(i)] for i in rng.integers(0, 12, 12))
        hits, true, predicted = np.asarray(chosen).astype(float)
        draws.append(np.nanmean(hits / (true + predicted - hits)))
    wanted = np.quantile(draws, [0.025, 0.975])
    found = confidence_interval(tallies, resamples=3000)
    np.testing.assert_allclose(found, wanted, atol=0.012)
    assert confidence_interval(tallies) == confidence_interval(tallies)  # seeded


def test_the_interval_is_the_same_in_small_pieces(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held in memory at once changes nothing: draws come in the same order."""
    tallies = [rng.integers(1, 100, (3, 4)) + np.array([[0], [100], [100]]) for _ in range(50)]
    whole = confidence_interval(tallies)
    monkeypatch.setattr(metrics, "DRAWN_AT_ONCE", 50 * 7)
    assert confidence_interval(tallies) == whole
    monkeypatch.setattr(metrics, "DRAWN_AT_ONCE", 1)
    assert confidence_interval(tallies) == whole


def test_no_interval_without_pictures_that_count() -> None:
    evaluator = Evaluator(2)
    evaluator.add(ids([1, 0]), ids([255, 255]))
    assert all(math.isnan(end) for end in confidence_interval(list(evaluator.tallies.values())))
    assert all(math.isnan(end) for end in confidence_interval([]))
    empty = Evaluator(2)
    empty.add(ids([0, 0]), ids([0, 0]))
    assert all(math.isnan(end) for end in confidence_interval(list(empty.tallies.values())))


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) and truth \(1, 3\) differ in size"):
        Evaluator(2).add(ids([0, 1]), ids([0, 1, 0]))


@pytest.mark.parametrize(
    ("labels", "truth"), [([0, 2], [0, 1]), ([2, 0], [0, 0]), ([0, 255], [0, 0]), ([0, 1], [0, 2])]
)
def test_ids_out_of_range_are_not_counted_as_others(labels: list[int], truth: list[int]) -> None:
    with pytest.raises(ValueError, match="class"):
        confusion(ids(labels), ids(truth), 2)


def test_agreement() -> None:
    assert metrics.agreement(ids([0, 1, 2, 3]), ids([0, 1, 2, 0])) == 0.75


# -- against definitions ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_scores_equal_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 6))
    pictures = []
    for _ in range(int(rng.integers(1, 5))):
        shape = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
        truth, labels = blobs(rng, shape, classes), blobs(rng, shape, classes)
        truth[rng.random(shape) < 0.1] = 255
        pictures.append((labels, truth))
    evaluator = Evaluator(classes)
    for labels, truth in pictures:
        evaluator.add(labels, truth)
    scores = evaluator.scores()

    def overlap(chosen: list[tuple[Labels, Labels]], k: int) -> float:
        hits = union = 0
        for labels, truth in chosen:
            a, b = (labels == k) & (truth != 255), truth == k
            hits += (a & b).sum()
            union += (a | b).sum()
        return float(hits / union) if union else math.nan

    wanted = [overlap(pictures, k) for k in range(classes)]
    np.testing.assert_allclose(scores.iou, wanted)
    np.testing.assert_allclose(scores.miou, np.nanmean(wanted))
    means = []
    for picture in pictures:
        own = [overlap([picture], k) for k in (range(classes) if classes > 2 else [1])]
        own = [v for v in own if not math.isnan(v)]
        means.append(np.mean(own) if own else 1.0)
    np.testing.assert_allclose(scores.image_iou, np.mean(means))
    right = sum(int((labels == truth).sum()) for labels, truth in pictures)
    known = sum(int((truth != 255).sum()) for _, truth in pictures)
    np.testing.assert_allclose(scores.pixel_accuracy, right / known)


@pytest.mark.parametrize("seed", range(5))
def test_invariants(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    truth, labels = blobs(rng, (50, 70), 3), blobs(rng, (50, 70), 3)

    def scored(*pictures: tuple[Labels, Labels]) -> Any:
        evaluator = Evaluator(3)
        for a, b in pictures:
            evaluator.add(a, b)
        return evaluator.scores()

    perfect = scored((truth, truth))
    assert perfect.miou == perfect.pixel_accuracy == perfect.image_iou == 1.0
    assert set(perfect.boundary_iou) <= {1.0}
    there, back = scored((labels, truth)), scored((truth, labels))
    assert there.iou == back.iou
    assert there.boundary_iou == back.boundary_iou
    mirrored = scored((labels[:, ::-1], truth[:, ::-1]))
    np.testing.assert_equal(mirrored, there)
    turned = scored((labels.T, truth.T))
    np.testing.assert_equal(turned, there)
    renamed = scored(((2 - labels).astype(np.uint8), (2 - truth).astype(np.uint8)))
    assert renamed.iou == there.iou[::-1]
    assert renamed.boundary_iou == there.boundary_iou[::-1]
    twice = scored((labels, truth), (labels, truth))
    assert twice.iou == there.iou
    assert twice.boundary_iou == there.boundary_iou
    assert all(0 <= v <= 1 for v in (*there.iou, *there.boundary_iou))


# -- boundary IoU ----------------------------------------------------------------------------------


def eroded_once(mask: Array) -> Array:
    """A pixel stays where its whole 3x3 neighbourhood is set; outside the picture nothing is."""
    padded = np.pad(mask, 1)
    stays = np.ones_like(mask)
    for dy in range(3):
        for dx in range(3):
            stays &= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    return stays


def slow_boundary(mask: Array, ratio: float) -> Array:
    distance = max(1, round(ratio * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))
    inner = mask
    for _ in range(distance):
        inner = eroded_once(inner)
    return mask & ~inner


@pytest.mark.parametrize("ratio", [0.02, 0.1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 5), (60, 80), (33, 200)])
def test_the_boundary_equals_repeated_erosion(
    rng: np.random.Generator, shape: tuple[int, int], ratio: float
) -> None:
    for mask in (
        blobs(rng, shape, 2) > 0,
        rng.random(shape) < 0.9,
        np.ones(shape, bool),
        np.zeros(shape, bool),
    ):
        band = boundary(mask, ratio=ratio)
        assert band.dtype == bool
        np.testing.assert_array_equal(band, slow_boundary(mask, ratio))


def test_the_boundary_is_two_percent_of_the_diagonal() -> None:
    mask = np.zeros((300, 400), bool)  # diagonal 500: 10 pixels
    mask[100:200, 100:300] = True
    band = boundary(mask)
    assert not band[~mask].any()
    inside = np.zeros_like(mask)
    inside[110:190, 110:290] = True
    np.testing.assert_array_equal(band, mask & ~inside)
    np.testing.assert_array_equal(band, boundary(mask, ratio=0.02))


def test_the_edge_of_the_picture_is_a_contour() -> None:
    band = boundary(np.ones((300, 400), bool))
    assert band[:10].all()
    assert band[:, -10:].all()
    assert not band[10:-10, 10:-10].any()


def test_boundary_iou_by_hand() -> None:
    truth = np.zeros((30, 40), np.uint8)  # diagonal 50: 1 pixel
    truth[10:20, 10:20] = 1
    labels = np.zeros_like(truth)
    labels[10:20, 11:21] = 1  # one to the right
    evaluator = Evaluator(2)
    evaluator.add(labels, truth)
    # Rings of 36 pixels. They share the top and bottom rows where both are: 2 x 9 pixels.
    assert evaluator.scores().boundary_iou[1] == 18 / (36 + 36 - 18)


def test_boundary_iou_is_pooled_and_can_be_left_out(rng: np.random.Generator) -> None:
    pictures = [(blobs(rng, (40, 60), 2), blobs(rng, (40, 60), 2)) for _ in range(4)]
    evaluator, without = Evaluator(2), Evaluator(2, boundary=False)
    for labels, truth in pictures:
        evaluator.add(labels, truth)
        without.add(labels, truth)
    for k in range(2):
        bands = [(slow_boundary(a == k, 0.02), slow_boundary(b == k, 0.02)) for a, b in pictures]
        hits, union = sum((a & b).sum() for a, b in bands), sum((a | b).sum() for a, b in bands)
        assert evaluator.scores().boundary_iou[k] == hits / union
    assert all(math.isnan(v) for v in without.scores().boundary_iou)
    assert without.scores().iou == evaluator.scores().iou


def test_boundary_iou_sees_what_iou_does_not() -> None:
    truth = np.zeros((200, 200), np.uint8)
    cv2.circle(truth, (100, 100), 80, 1, -1)
    labels = np.zeros_like(truth)
    cv2.circle(labels, (100, 100), 76, 1, -1)
    evaluator = Evaluator(2)
    evaluator.add(labels, truth)
    scores = evaluator.scores()
    assert scores.iou[1] > 0.9
    assert scores.boundary_iou[1] < 0.4


# -- evaluation --------------------------------------------------------------------------------------


def test_evaluate_scores_every_picture_of_a_split_at_its_own_size(tmp_path: Any, make_people: Any) -> None:
    from edge_deeplab.data import open_split

    split = open_split(f"folder:{make_people(tmp_path / 'people', train=1, val=3)}", "val")
    seen: list[int] = []

    def progress(indices: Any) -> Any:
        for index in indices:
            seen.append(index)
            yield index

    scores = evaluate(lambda frame: (frame.min(2) > 110).astype(np.uint8), split, progress=progress)
    assert seen == [0, 1, 2]
    assert scores.images == 3
    assert scores.iou[1] < 1
    truths = [split.read(index)[1] for index in range(3)]
    answers = iter(truths)
    perfect = evaluate(lambda _: next(answers), split)
    assert perfect.iou == perfect.boundary_iou == (1.0, 1.0)
    record = as_record(perfect, split)
    assert record["data"] == "people/val"
    assert record["iou"] == record["boundary_iou"] == {"background": 1.0, "person": 1.0}
    assert record["foreground_iou"] == record["mean_image_iou"] == record["miou"] == 1.0


def test_models_are_scored_on_data_with_their_classes_only(
    contract: InputContract, four_classes: InputContract
) -> None:
    split = Split("toys/val", (), four_classes.classes)
    check_classes(four_classes, split)
    with pytest.raises(
        UserError, match="toy has 2 classes, toys/val has 4; evaluate it on data with the same"
    ):
        check_classes(contract, split)


def test_classes_in_another_order_are_refused(four_classes: InputContract) -> None:
    """The numbers would agree and every IoU be wrong."""
    a, b, *others = four_classes.classes
    with pytest.raises(
        UserError, match=rf"class {a.name} has id 0 in .*, 1 in toys/val; .* the classes in the same order"
    ):
        check_classes(four_classes, Split("toys/val", (), (b, a, *others)))
    renamed = tuple(dataclasses.replace(info, name=f"my {info.name}") for info in four_classes.classes)
    check_classes(four_classes, Split("toys/val", (), renamed))
