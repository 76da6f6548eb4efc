"""benchmark_model from 2019 to LiteRT."""

from __future__ import annotations

import pytest

from edge_deeplab.bench.tools.benchmark_model import Delegation, Statistics, parse
from tests.bench.recorded import recordings

RUNS = recordings("benchmark_model")


@pytest.mark.parametrize(
    ("title", "init", "first", "warmup", "inference"),
    [
        (
            "2019, arm64 phone",
            9.933,
            None,
            (7, 76.6059),
            Statistics(15, 66.7676, 0.039, 66.699, 66.838),
        ),
        (
            "2020, phone",
            0.855,
            49.06,
            (15, 34.8251),
            Statistics(50, 33.2094, 0.45, 32.641, 34.005),
        ),
        (
            "2024, x86, XNNPACK",
            12.75,
            14.744,
            (37, 13.7643),
            Statistics(74, 13.5202, 0.47, 13.105, 15.765),
        ),
        (
            "2025, slow board, one warm-up run",
            5.579,
            1357.602,
            (1, 1357.602),
            Statistics(50, 1240.27, 2.565, 1238.588, 1252.566, 1238.753, 1239.807, 1247.415),
        ),
        (
            "2025, phone, through logcat",
            92.318,
            187.533,
            (3, 211.669),
            Statistics(25, 145.528, 13.583, 140.071, 195.121, 140.545, 141.253, 187.533),
        ),
        (
            "LiteRT benchmark_model, CPU",
            5.76,
            2.12,
            (526, 0.949861),
            Statistics(1054, 0.947132, 0.023, 0.910, 1.102, 0.915, 0.942, 0.991),
        ),
        (
            "LiteRT benchmark_model, GPU, results only",
            23744.73,
            7441.04,
            (1, 7441.04),
            Statistics(10, 7430.20, 9.92, 7416.40, 7448.86),
        ),
        (
            "litert-benchmark of ai-edge-litert 2.3.0",
            159.73,
            5878.88,
            (5, 6903.87),
            Statistics(10, 4558.93, 2599.62, 1872.46, 8709.88, 1906.23, 4243.82, 8617.08),
        ),
    ],
)
def test_generations(
    title: str, init: float, first: float | None, warmup: tuple[int, float], inference: Statistics
) -> None:
    found = parse(RUNS[title])
    assert (found.init, found.first) == (init, first)
    assert found.warmup is not None
    assert (found.warmup.count, found.warmup.mean) == pytest.approx(warmup)
    assert found.inference is not None
    assert vars(found.inference) == pytest.approx(vars(inference))
    assert not found.errors


def test_every_recording_is_read() -> None:
    assert len(RUNS) == 8 and all(parse(text).inference for text in RUNS.values())


def test_all_times_the_same() -> None:
    # As the tool's Stat prints it when no time differs.
    found = parse("count=2 curr=5(all same)\ncount=50 curr=4(all same) p5=4 median=4 p95=4\n")
    assert found.inference == Statistics(50, 0.004, 0.0, 0.004, 0.004, 0.004, 0.004, 0.004)


def test_share_of_the_graph() -> None:
    assert parse(RUNS["2025, phone, through logcat"]).delegations == (
        Delegation("TfLiteXNNPackDelegate", 539, 548, 19),
    )


@pytest.mark.parametrize(
    ("title", "loaded", "steady", "peak"),
    [
        ("2019, arm64 phone", None, None, None),
        ("2020, phone", 0, 12.8672, None),
        ("2025, slow board, one warm-up run", 6.36328, 109.832, None),
        ("LiteRT benchmark_model, CPU", 4.06, 7.07, None),
    ],
)
def test_memory(title: str, loaded: float | None, steady: float | None, peak: float | None) -> None:
    def mib(value: float | None) -> int | None:
        return None if value is None else round(value * 2**20)

    found = parse(RUNS[title])
    assert (found.memory_loaded, found.memory_steady, found.memory_peak) == (
        mib(loaded), mib(steady), mib(peak),
    )  # fmt: skip


def test_peak_by_watching() -> None:
    found = parse("INFO: Overall peak memory footprint (MB) via periodic monitoring: 35.5\n")
    assert found.memory_peak == round(35.5 * 2**20)


def test_a_run_that_failed() -> None:
    found = parse("INFO: STARTING!\nERROR: Model provided has model identifier 'abcd', should be 'TFL3'\n")
    assert found.inference is None
    assert found.errors == ("Model provided has model identifier 'abcd', should be 'TFL3'",)


def test_only_one_phase_is_no_measurement() -> None:
    """The phone went away after the warm-up: what was printed must not pass for the result."""
    assert parse(RUNS["2020, phone"].partition("Running benchmark for at least 50")[0]).inference is None
