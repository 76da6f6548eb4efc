"""Marks of doubt: on synthetic times and circumstances each appears when it should, and only then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_deeplab.bench.noise import entry_marks, run_marks
from edge_deeplab.bench.record import Conditions, Core, Snapshot, Warmup
from tests.bench.conftest import make_entry, make_result, quiet_turns

QUIET = make_result().conditions


def kinds(turns: Sequence[Sequence[float]], **changes: Any) -> list[str]:
    return [mark.kind for mark in entry_marks(make_entry("x", turns, **changes), "pipeline", QUIET)]


def test_a_quiet_run_has_no_marks(rng: np.random.Generator) -> None:
    assert kinds(quiet_turns(rng, 7.0)) == []
    assert run_marks(QUIET) == ()


def test_a_long_tail_is_marked(rng: np.random.Generator) -> None:
    turns = [[*turn[:8], 12.0, 13.0] for turn in quiet_turns(rng, 7.0)]
    assert kinds(turns) == ["variation"]


def test_levels_that_jump_from_turn_to_turn_are_marked(rng: np.random.Generator) -> None:
    """Half of the turns at 7 ms, half at 8: the median could be either."""
    turns = [list(np.full(10, level) * rng.lognormal(0, 0.005, 10)) for level in [7.0, 8.0] * 15]
    assert "variation" in kinds(turns)


def test_a_machine_that_slows_down_is_marked(rng: np.random.Generator) -> None:
    turns = quiet_turns(rng, 7.0, turns=20) + quiet_turns(rng, 7.4, turns=10)
    assert kinds(turns) == ["drift"]


def test_two_per_cent_are_let_pass(rng: np.random.Generator) -> None:
    turns = quiet_turns(rng, 7.0, turns=20) + quiet_turns(rng, 7.14, turns=10)
    assert kinds(turns) == []


def test_few_queries_and_an_unfinished_warm_up(rng: np.random.Generator) -> None:
    unsteady = Warmup(200, 10.1, False, "a rule")
    assert kinds(quiet_turns(rng, 7.0, turns=9), warmup=unsteady) == ["not-steady", "few-queries"]


def test_a_fallback_is_marked(rng: np.random.Generator) -> None:
    assert kinds(quiet_turns(rng, 7.0), used={"fallback": "CUDA got 3 of 90 nodes only"}) == ["fallback"]


def snapshot(**changes: Any) -> Snapshot:
    return replace(QUIET.after, **changes)


def conditions(**changes: Any) -> Conditions:
    return replace(QUIET, **changes)


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (conditions(others=0.3), "busy", "others took 30%"),
        (conditions(stolen=0.05), "busy", "hypervisor took 5%"),
        (conditions(after=snapshot(throttled={"cpu0": 3})), "throttled", "cpu0"),
        (conditions(after=snapshot(cores=(Core(0, 1500.0), Core(1, 1400.0)))), "clock", "2000 to 1500 MHz"),
        (
            conditions(
                before=snapshot(cores=(Core(0, 900.0, 2400.0), Core(1, 900.0, 2400.0))),
                after=snapshot(cores=(Core(0, 900.0, 2400.0), Core(1, 900.0, 1800.0))),
            ),
            "throttled",
            "core 1 is held at 1800 MHz, 2400 before",
        ),
        (
            conditions(
                before=snapshot(throttled={"GPU at its power limit now": 1}),
                after=snapshot(throttled={"GPU at its power limit now": 1}),
            ),
            "throttled",
            "power limit",
        ),
        (conditions(reference_ms=(1.0,) * 7 + (1.5,) * 3), "clock", "1.00 to 1.50 ms"),
        (conditions(after=snapshot(temperatures={"cpu": 91.0})), "hot", "cpu at 91"),
        (conditions(after=snapshot(power="battery 80 %, discharging")), "power", "on battery 80 %"),
    ],
)
def test_circumstances(found: Conditions, kind: str, words: str) -> None:
    (mark,) = run_marks(found)
    assert mark.kind == kind
    assert words in mark.text


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(conditions(others=None, stolen=None, reference_ms=()), id="nothing told"),
        pytest.param(
            conditions(
                before=snapshot(throttled={"cpu0": 3}),
                after=snapshot(throttled={"cpu0": 3}),
            ),
            id="throttled long ago",
        ),
        pytest.param(conditions(after=snapshot(power="battery 100 %, full")), id="on mains"),
        pytest.param(
            conditions(affinity=(1,), after=snapshot(cores=(Core(0, 900.0), Core(1, 2000.0)))),
            id="another core fell asleep",
        ),
        pytest.param(
            conditions(after=snapshot(cores=(Core(0, 2000.0), Core(1, 400.0)))),
            id="one of the cores had nothing to do",
        ),
        pytest.param(conditions(reference_ms=(1.0, 9.0, 1.0)), id="too few to tell"),
    ],
)
def test_what_is_no_reason_to_doubt(found: Conditions) -> None:
    assert run_marks(found) == ()
