"""trtexec of TensorRT 8.4, 8.6, 10 and 11."""

from __future__ import annotations

import json

import pytest

from edge_deeplab.bench.tools.trtexec import Settings, flags, parse, parse_times, parse_version
from edge_deeplab.errors import UserError
from tests.bench.recorded import recordings

RUNS = recordings("trtexec")


@pytest.mark.parametrize(
    ("title", "version", "comparable", "queries", "throughput", "p90", "compute"),
    [
        ("8.4.0, Jetson AGX Xavier", (8, 4, 0), False, None, 41087.7, None, 0.388443),
        ("8.6.0, RTX 3090", (8, 6, 0), True, 63030, 21009.2, 0.0532227, 0.0439453),
        ("10.9.0, desktop GPU", (10, 9, 0), False, None, 691.435, 1.45624, 1.39775),
        ("10.16.0, RTX 6000 Ada", (10, 16, 0), True, 37743, None, 0.0797119, 0.0529785),
        ("11.0.0, B200, its own defaults", (11, 0, 0), False, 69647, 23215.0, 0.0404663, 0.0402832),
    ],
)
def test_runs(
    title: str,
    version: tuple[int, ...],
    comparable: bool,
    queries: int | None,
    throughput: float | None,
    p90: float | None,
    compute: float,
) -> None:
    found = parse(RUNS[title])
    assert (found.version, found.queries, found.throughput) == (version, queries, throughput)
    assert found.figures["latency"].percentiles.get(90) == p90
    assert found.figures["compute"].median == compute
    assert found.passed and not found.errors
    assert found.settings.comparable is comparable


def test_all_figures_of_a_line() -> None:
    found = parse(RUNS["8.6.0, RTX 3090"])
    latency = found.figures["latency"]
    assert (latency.minimum, latency.maximum, latency.mean, latency.median) == (
        0.0490112, 0.617065, 0.0533242, 0.0517578,
    )  # fmt: skip
    assert latency.percentiles == {90: 0.0532227, 95: 0.053772, 99: 0.0630798}
    assert set(found.figures) == {"latency", "enqueue", "h2d", "compute", "d2h"}
    assert (found.seconds, found.warmup, found.device) == (3.00012, 4141, "NVIDIA GeForce RTX 3090")


def test_latency_of_11_leaves_the_copies_out_by_default() -> None:
    """The trap: 8.6's and 11's "Latency" are two different things unless the defaults are set back."""
    old, new = parse(RUNS["8.6.0, RTX 3090"]), parse(RUNS["11.0.0, B200, its own defaults"])
    assert old.settings == Settings(transfers=True, spin=False, graph=False)
    assert new.settings == Settings(transfers=False, spin=True, graph=True)
    assert old.figures["latency"].median > old.figures["compute"].median
    assert new.figures["latency"] == new.figures["compute"]
    assert new.figures["h2d"].maximum == 0


def test_flags_set_back_what_11_changed() -> None:
    assert flags((8, 6, 0)) == flags((10, 16, 0)) == ()
    assert flags((11, 0, 0)) == ("--includeDataTransfers", "--noSpinWait", "--noCudaGraph")
    # They are flags that 11's own help knows.
    assert all(flag in RUNS["11.0.0, help"] for flag in flags((11, 4, 1)))


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("8001", (8, 0, 1)),
        ("8602", (8, 6, 2)),
        ("100300", (10, 3, 0)),
        ("101303", (10, 13, 3)),
        ("110201", (11, 2, 1)),
        ("11.1.0.106", (11, 1, 0, 106)),
    ],
)
def test_versions(banner: str, version: tuple[int, ...]) -> None:
    assert parse_version(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{banner}] # trtexec") == version


def test_help_tells_the_version() -> None:
    assert parse_version(RUNS["11.0.0, help"]) == (11, 0, 0)
    assert parse_version("bash: trtexec: command not found") == ()


def test_warnings_without_the_advice() -> None:
    assert parse(RUNS["10.16.0, RTX 6000 Ada"]).warnings == (
        "Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized.",
        "GPU compute time is unstable, with coefficient of variance = 49.0136%.",
    )


def test_a_graph_it_refuses() -> None:
    found = parse(RUNS["11.2.1, a graph it refuses"])
    assert not found.passed and not found.figures
    assert found.version == (11, 2, 1)
    assert found.errors[0].startswith("[TRT] ITensor::getDimensions: Error Code 4")


def test_a_run_that_was_cut() -> None:
    found = parse("\n".join(RUNS["8.6.0, RTX 3090"].splitlines()[:9]))
    assert (found.passed, found.figures, found.queries) == (False, {}, 63030)


def test_recorded_times() -> None:
    # Keys as samples/common/sampleReporting.cpp of TensorRT 8.6 to 11 writes them.
    query = {
        "startEnqMs": 1.0, "endEnqMs": 1.1, "startH2dMs": 1.0, "endH2dMs": 1.2, "startComputeMs": 1.2,
        "endComputeMs": 2.2, "startD2hMs": 2.2, "endD2hMs": 2.3, "h2dMs": 0.2, "computeMs": 1.0,
        "d2hMs": 0.1, "latencyMs": 1.3,
    }  # fmt: skip
    text = json.dumps([query, {**query, "computeMs": 2, "latencyMs": 2.5}])
    assert parse_times(text) == {"latency": (1.3, 2.5), "compute": (1.0, 2.0)}
    for damaged in ("", "[", "1", '[{"latencyMs": 1}]'):
        with pytest.raises(UserError, match="exportTimes is damaged"):
            parse_times(damaged)
