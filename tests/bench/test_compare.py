"""Comparison of two results: its verdicts know noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_deeplab.bench.compare import compare, verdict
from edge_deeplab.bench.record import Accuracy, Plan, Ratio, Result, Summary
from edge_deeplab.errors import UserError
from tests.bench.conftest import make_entry, make_result, quiet_turns

LIMIT = 0.05


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.06, 1.10, "slower"),
        (0.80, 0.94, "faster"),
        (0.96, 1.04, "same"),
        (1.01, 1.09, "undecided"),
        (0.50, 2.00, "undecided"),
    ],
)
def test_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(Ratio((low + high) / 2, low, high), LIMIT) == expected


def pair(rng: np.random.Generator, after: float, spread: float = 0.01) -> tuple[Result, Result]:
    """Runs at 10 ms and at ``after``."""
    return tuple(  # type: ignore[return-value]
        make_result(make_entry("m", quiet_turns(rng, level, spread=spread))) for level in (10.0, after)
    )


@pytest.mark.parametrize(
    ("after", "spread", "expected"),
    [
        pytest.param(10.0, 0.01, "same", id="repeated"),
        pytest.param(11.0, 0.01, "slower", id="10 % slower"),
        pytest.param(9.0, 0.01, "faster", id="10 % faster"),
        pytest.param(10.5, 0.02, "undecided", id="just at the limit"),
    ],
)
def test_quiet_runs(rng: np.random.Generator, after: float, spread: float, expected: str) -> None:
    (line,) = compare(*pair(rng, after, spread), limit=LIMIT).lines
    assert line.verdict == expected
    assert line.ratio.value == pytest.approx(after / 10, rel=0.02)
    assert line.ratio.low <= line.ratio.value <= line.ratio.high


def test_a_run_that_drifted_accuses_nobody(rng: np.random.Generator) -> None:
    """10 % slower, but the second run wandered by 30 % within itself."""
    before = make_result(make_entry("m", quiet_turns(rng, 10.0)))
    wandering = [t for level in (9.5, 11.0, 12.4) for t in quiet_turns(rng, level, turns=10)]
    (line,) = compare(before, make_result(make_entry("m", wandering)), limit=LIMIT).lines
    assert line.ratio.value > 1.05
    assert line.verdict == "undecided"


def test_even_a_noisy_run_shows_what_is_twice_as_slow(rng: np.random.Generator) -> None:
    before, after = pair(rng, 25.0, spread=0.2)
    found = compare(before, after, limit=LIMIT)
    assert found.lines[0].verdict == "slower"
    assert found.failed


def test_accuracy_and_files_are_compared_too(rng: np.random.Generator) -> None:
    def scored(iou: float, sha: str, version: str) -> Result:
        accuracy = (Accuracy("eg/val", 150, iou, None, None),)
        versions = {"onnxruntime": version}
        return make_result(
            make_entry("m", quiet_turns(rng, 10.0), accuracy=accuracy, sha256=sha, versions=versions)
        )

    (line,) = compare(scored(0.9672, "aa", "1.30"), scored(0.9600, "bb", "1.31")).lines
    assert line.iou == {"eg/val": pytest.approx(-0.0072)}
    assert {"another file", "onnxruntime: 1.30 -> 1.31"} <= set(line.notes)


def test_other_conditions_are_told(rng: np.random.Generator) -> None:
    before, after = pair(rng, 10.0)
    after = replace(
        after,
        machine=replace(after.machine, cpu="another", versions={"numpy": "3"}),
        conditions=replace(after.conditions, reference_ms=(1.4,) * 10),
        frame=(720, 1280),
    )
    found = compare(before, after).differences
    assert "cpu: CPU against another" in found
    assert "numpy: 2 against 3" in found
    assert "frame: 640x480 against 1280x720" in found
    assert any("1.000 ms against 1.400 ms" in text for text in found)


def test_only_what_both_have_is_compared(rng: np.random.Generator) -> None:
    both, other = make_entry("m", quiet_turns(rng, 10.0)), make_entry("n", quiet_turns(rng, 5.0))
    found = compare(make_result(both, other), make_result(both))
    assert [line.name for line in found.lines] == ["m"]
    assert (found.lost, found.added, found.failed) == (("n: not in it",), (), True)
    broken = replace(other, error="it is damaged", stages={}, samples={}, turns=())
    assert compare(make_result(both, other), make_result(both, broken)).lost == ("n: it is damaged",)
    found = compare(make_result(both), make_result(both, other))
    assert (found.lost, found.added, found.failed) == ((), ("n",), False)
    with pytest.raises(UserError, match="no model in common: n against m"):
        compare(make_result(other), make_result(both))


def test_other_scenarios_are_refused(rng: np.random.Generator) -> None:
    before, after = pair(rng, 10.0)
    with pytest.raises(UserError, match="scenario single, the other of stream"):
        compare(before, replace(after, plan=Plan("stream")))


def test_another_camera_and_other_batches_are_refused(rng: np.random.Generator) -> None:
    """Batches of twice the frames take twice the time, which makes nothing slower."""
    for plan, other, words in (
        (Plan("offline", batch=4), Plan("offline", batch=8), "with --batch 4, the other with 8"),
        (Plan("stream", fps=30.0), Plan("stream", fps=15.0), "with --fps 30, the other with 15"),
    ):
        before, after = (replace(make_result(), plan=p) for p in (plan, other))
        with pytest.raises(UserError, match=words):
            compare(before, after)


def test_other_settings_are_told(rng: np.random.Generator) -> None:
    def run(threads: int | None, pinned: bool, **changes: object) -> Result:
        found = make_result(make_entry("m", quiet_turns(rng, 10.0), threads=threads, **changes))
        return replace(found, conditions=replace(found.conditions, affinity=(2, 3), pinned=pinned))

    found = compare(
        run(1, False, used={"delegate": "XNNPACK", "threads": "1"}),
        run(None, True, used={"delegate": "none", "threads": "all"}, input=(32, 48)),
    )
    (line,) = found.lines
    assert {"threads: 1 -> all", "input: 64x96 -> 32x48", "delegate: XNNPACK -> none"} <= set(line.notes)
    assert "cores: not pinned against 2,3" in found.differences
    same = compare(run(1, True), run(1, True))
    assert (same.lines[0].notes, same.differences) == ((), ())


def test_the_same_figure_is_compared_on_both_sides() -> None:
    """Old versions of a tool tell a mean, newer ones percentiles too."""

    def told(**figures: float | None) -> Result:
        entry = make_entry("m", [[1.0]])
        stages = {"inference": Summary(50, 10.0, **figures)}
        return make_result(replace(entry, stages=stages, samples={}, turns=()))

    (line,) = compare(told(std=0.1), told(std=0.1, p50=7.0)).lines
    assert (line.before, line.after, line.ratio.value) == (10.0, 10.0, 1.0)
    assert "compared by the mean, which both have" in line.notes
    (line,) = compare(told(p50=7.0), told(p50=9.0)).lines
    assert line.verdict == "undecided"  # nobody told how much it varies


def test_summaries_of_a_tool_are_compared_with_their_spread() -> None:
    """As adb and trtexec give them: inference alone, no samples."""

    def summed(mean: float) -> Result:
        stages = {"inference": Summary(50, mean, 0.1, mean - 1, mean + 1, mean)}
        entry = make_entry("m", [[1.0]])
        return make_result(replace(entry, stages=stages, samples={}, turns=(), headline="inference p50"))

    assert compare(summed(10), summed(12)).lines[0].verdict == "slower"
    assert compare(summed(10), summed(10.1)).lines[0].verdict == "same"
    assert "inference only" in compare(summed(10), summed(10)).lines[0].notes
