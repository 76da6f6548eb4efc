"""The arithmetic, against numpy and against numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_deeplab.bench.stats import (
    Steadiness,
    interval,
    paired_ratio,
    parts_apart,
    percentile_draws,
    split_turns,
    summary,
)


def test_summary_is_numpys(rng: np.random.Generator) -> None:
    times = rng.lognormal(2, 0.5, 997)
    found = summary(times)
    assert found.count == 997
    assert found.mean == pytest.approx(np.mean(times))
    assert found.std == pytest.approx(np.std(times, ddof=1))
    assert (found.minimum, found.maximum) == (times.min(), times.max())
    expected = np.percentile(times, [50, 90, 95, 99])
    assert [found.p50, found.p90, found.p95, found.p99] == pytest.approx(list(expected))


def test_an_outlier_stays() -> None:
    found = summary([1.0] * 99 + [500.0])
    assert found.maximum == 500
    assert found.mean == pytest.approx(5.99)
    assert found.p50 == 1


def test_one_sample_has_no_deviation() -> None:
    assert summary([3.0]).std is None
    assert summary([3.0]).p99 == 3


# -- warm-up -----------------------------------------------------------------------------------


def fed(*medians: float, queries: int = 5) -> Steadiness:
    steadiness = Steadiness()
    for median in medians:
        steadiness.add([median] * queries)
    return steadiness


@pytest.mark.parametrize(
    ("medians", "steady"),
    [
        pytest.param([10, 10], False, id="too few windows"),
        pytest.param([10, 10, 10], True, id="steady at once"),
        pytest.param([10, 10.4, 10.49], True, id="within 5 %"),
        pytest.param([10, 10.2, 10.6], False, id="rising, as a machine that heats up"),
        pytest.param([30, 12, 10], False, id="still falling"),
        pytest.param([30, 12, 10, 10.1, 10.2], True, id="fallen, then steady"),
        pytest.param([10, 10, 10, 20], False, id="only the last three count"),
    ],
)
def test_the_warm_up_rule(medians: list[float], steady: bool) -> None:
    assert fed(*medians).steady is steady


def test_one_slow_query_does_not_unsettle_a_window() -> None:
    steadiness = fed(10, 10)
    steadiness.add([10, 10, 10, 10, 300])
    assert steadiness.steady


def test_warming_up_ends_without_steadiness_after_its_limit() -> None:
    steadiness = fed(*[100, 200] * 6)
    assert not steadiness.over
    while not steadiness.over:
        steadiness.add([100 if len(steadiness.medians) % 2 else 200] * 5)
    assert not steadiness.steady
    assert steadiness.seconds >= Steadiness.LIMIT_SECONDS
    assert steadiness.queries == 5 * len(steadiness.medians)


def test_even_a_very_slow_model_gets_three_windows() -> None:
    assert not fed(9000, 9000, queries=2).over
    assert fed(9000, 9000, 9000, queries=2).over


def test_turns_are_long_enough_for_both_minima() -> None:
    steadiness = fed(10, 10, 10)
    assert steadiness.queries_per_turn(min_queries=100, min_seconds=3, rounds=30) == 10  # 3 s of 10 ms
    assert steadiness.queries_per_turn(min_queries=1024, min_seconds=3, rounds=30) == 35
    assert steadiness.queries_per_turn(min_queries=1, min_seconds=0.001, rounds=30) == 1


# -- uncertainty -------------------------------------------------------------------------------


def noisy_pairs(rng: np.random.Generator, ratio: float, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Times whose quotient has the median ``ratio``, both slowed threefold from the middle on."""
    drift = np.where(np.arange(rounds) < rounds // 2, 1.0, 3.0)
    base = drift * rng.lognormal(0, 0.05, rounds)
    return ratio * drift * rng.lognormal(0, 0.05, rounds), base


def test_ratio_of_exact_pairs_is_exact() -> None:
    base = np.array([1.0, 5.0, 2.0, 9.0])
    found = paired_ratio(2.5 * base, base)
    assert (found.value, found.low, found.high) == (2.5, 2.5, 2.5)
    assert str(found) == "2.50 (2.50–2.50)"


def test_drift_common_to_a_round_cancels(rng: np.random.Generator) -> None:
    found = paired_ratio(*noisy_pairs(rng, 1.4, 200))
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(1.4, rel=0.03)
    assert found.high - found.low < 0.08


def test_interval_covers_the_truth_about_19_times_in_20(rng: np.random.Generator) -> None:
    intervals = [paired_ratio(*noisy_pairs(rng, 1.4, 60), resamples=400) for _ in range(300)]
    covered = np.mean([i.low <= 1.4 <= i.high for i in intervals])
    assert 0.90 <= covered <= 0.99


def test_percentile_interval_covers_the_truth_when_turns_differ(rng: np.random.Generator) -> None:
    """Queries of a turn share its level, so an interval over single queries would be far too narrow."""
    covered = []
    for k in range(150):
        turns = [10 * level * rng.lognormal(0, 0.01, 10) for level in rng.lognormal(0, 0.05, 30)]
        low, high = interval(percentile_draws(turns, 50, resamples=200, seed=k))
        covered.append(low <= 10 <= high)
    assert np.mean(covered) > 0.85


def test_samples_are_split_into_their_turns() -> None:
    turns = split_turns([1, 2, 3, 4, 5, 6], [2, 3, 1])
    assert [list(turn) for turn in turns] == [[1, 2], [3, 4, 5], [6]]


def test_thirds_of_a_run() -> None:
    steady = [np.full(5, 10.0)] * 9
    assert parts_apart(steady) == 0
    slower_at_last = [*steady[:6], *[np.full(5, 10.5)] * 3]
    assert parts_apart(slower_at_last) == pytest.approx(0.05)
    assert parts_apart(steady[:2]) == 0
