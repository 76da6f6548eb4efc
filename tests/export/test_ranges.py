"""Ranges from values: against numpy, and against cases whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_deeplab.errors import UserError
from edge_deeplab.export.ranges import BINS, entropy, histogram, measure, percentile

Floats = NDArray[np.float32]


def run_once(values: list[Floats], method: Any) -> list[float]:
    tensors = [np.float32(number) for number in range(len(values))]
    return measure(lambda tensor: {"x": values[int(tensor)]}, tensors, method)["x"]  # type: ignore[arg-type]


@pytest.fixture
def bell(rng: np.random.Generator) -> list[Floats]:
    """Four tensors of normal values."""
    return [rng.normal(0, 1, (1, 4, 50, 50)).astype(np.float32) for _ in range(4)]


def test_minmax_is_the_lowest_and_highest_of_all(bell: list[Floats]) -> None:
    low, high = run_once(bell, "minmax")
    assert (low, high) == (min(float(v.min()) for v in bell), max(float(v.max()) for v in bell))


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_zero_is_always_inside(method: str) -> None:
    low, high = run_once([np.linspace(3, 5, 1000, dtype=np.float32)], method)
    assert low == 0
    assert high == pytest.approx(5, abs=0.01)
    low, high = run_once([np.linspace(-5, -3, 1000, dtype=np.float32)], method)
    assert low == pytest.approx(-5, abs=0.01)
    assert high == 0


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_constant_tensor(method: str) -> None:
    assert run_once([np.zeros(100, np.float32)], method) == [0, 0]


def test_the_histogram_is_numpys(bell: list[Floats]) -> None:
    value = bell[0]
    low, high = float(value.min()), float(value.max())
    ours = histogram(value, low, high)
    theirs, _ = np.histogram(value, BINS, (low, high))
    assert ours.sum() == value.size
    # Bin edges round differently in float32 and float64; a value on an edge may go either way.
    assert np.abs(np.cumsum(ours) - np.cumsum(theirs)).max() <= 3


def test_percentile_is_numpys(rng: np.random.Generator) -> None:
    bell = [rng.normal(0, 1, (1, 4, 500, 500)).astype(np.float32) for _ in range(4)]
    low, high = run_once(bell, "percentile")
    values = np.concatenate([v.ravel() for v in bell])
    step = float(values.max() - values.min()) / BINS
    assert low == pytest.approx(np.quantile(values, 0.000005), abs=3 * step)
    assert high == pytest.approx(np.quantile(values, 0.999995), abs=3 * step)


def test_one_outlier_in_a_million_is_cut(rng: np.random.Generator) -> None:
    values = rng.uniform(-1, 1, 1_000_000).astype(np.float32)
    values[0] = 40
    low, high = run_once([values], "percentile")
    assert high < 1.1
    assert low == pytest.approx(-1, abs=0.05)
    assert run_once([values], "minmax")[1] == 40
    assert run_once([values], "entropy")[1] < 15


def test_entropy_keeps_what_is_spread_evenly(rng: np.random.Generator) -> None:
    low, high = run_once([rng.uniform(-1, 3, 100_000).astype(np.float32)], "entropy")
    assert low == pytest.approx(-1, abs=0.05)
    assert high == pytest.approx(3, abs=0.2)


def test_entropy_quantises_a_long_tail_better_than_minmax(rng: np.random.Generator) -> None:
    """What it is for: the information lost in 256 levels, here by mean squared error within 3 sigma."""
    values = np.abs(rng.laplace(0, 1, 500_000)).astype(np.float32)
    values[:5] *= 10

    def error(high: float) -> float:
        bulk = values[values < 3]
        scale = high / 255
        return float(np.square(np.minimum(np.rint(bulk / scale), 255) * scale - bulk).mean())

    assert error(run_once([values], "entropy")[1]) < 0.5 * error(run_once([values], "minmax")[1])


def test_entropy_keeps_the_range_of_a_relu6(rng: np.random.Generator) -> None:
    """Half of the values are 0 and some are 6: both are levels, and neither is a reason to cut."""
    values = np.clip(rng.normal(0, 3, 500_000), 0, 6).astype(np.float32)
    low, high = run_once([values], "entropy")
    assert low == 0
    assert high == pytest.approx(6, abs=0.3)


@pytest.mark.parametrize("cut", [percentile, entropy])
def test_cuts_stay_inside(cut: Any, rng: np.random.Generator) -> None:
    for _ in range(20):
        counts = rng.integers(0, 1000, BINS).astype(np.float64) * (rng.random(BINS) < rng.random())
        counts[-1] += 1
        low, high = sorted(rng.normal(0, 3, 2))
        low, high = min(low, 0.0), max(high, 0.0)
        first, last = cut(counts, low, high)
        assert low - 1e-9 <= first < last <= high + 1e-9


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_float_model_is_named(value: float) -> None:
    with pytest.raises(UserError, match="tensor x holds NaN or infinity"):
        run_once([np.array([1, value], np.float32)], "minmax")
