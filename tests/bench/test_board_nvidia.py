"""``nvidia-smi`` by a small program that prints what the real one's ``--format=csv,noheader`` prints.

No GPU was at hand: the form of the answers is that of NVIDIA's documentation (nvidia-smi(1), QUERY).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_deeplab.bench.board_nvidia import NvidiaSmi, ask
from edge_deeplab.bench.noise import run_marks
from edge_deeplab.bench.record import Machine, Snapshot
from tests.bench.conftest import make_result

ANSWERS = {
    "name": "NVIDIA GeForce RTX 3060",
    "memory.total": "12288 MiB",
    "driver_version": "550.54.14",
    "clocks.sm": "1777 MHz",
    "clocks.mem": "7501 MHz",
    "temperature.gpu": "61",
    "power.draw": "[N/A]",
    "utilization.gpu": "3 %",
    "pstate": "P2",
    "clocks_throttle_reasons.hw_thermal_slowdown": "Active",
    "clocks_throttle_reasons.sw_thermal_slowdown": "Not Active",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "[N/A]",
    "clocks_throttle_reasons.sw_power_cap": "Not Active",
}


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cases = "\n".join(f'    {key}) printf "%s%s" "$sep" "{value}";;' for key, value in ANSWERS.items())
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'fields=$(echo "$1" | sed "s/--query-gpu=//;s/,/ /g")\nsep=""\n'
        f'for f in $fields; do case "$f" in\n{cases}\n'
        '    *) echo "Field \\"$f\\" is not a valid field."; exit 2;;\n  esac; sep=", "; done\necho\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return program


def test_the_gpu_and_its_driver_are_named(smi: Path) -> None:
    assert NvidiaSmi.here()
    found = NvidiaSmi().machine(Machine("local", versions={"numpy": "2"}))
    assert found.gpu == "NVIDIA GeForce RTX 3060, 12288 MiB"
    assert found.versions == {"numpy": "2", "nvidia driver": "550.54.14"}


def test_its_state_and_throttling(smi: Path) -> None:
    found = NvidiaSmi().snapshot(Snapshot("now", temperatures={"cpu": 50.0}))
    assert found.temperatures == {"cpu": 50.0, "GPU": 61.0}
    assert found.extra["GPU clocks.sm"] == "1777 MHz"
    assert "GPU power.draw" not in found.extra
    assert found.throttled["GPU held back by heat (hardware) now"] == 1
    assert found.throttled["GPU at its power limit now"] == 0
    assert len(found.throttled) == 3
    conditions = make_result().conditions
    marks = run_marks(type(conditions)(**{**vars(conditions), "after": found}))
    assert [mark.kind for mark in marks] == ["throttled"]


def test_without_a_gpu(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("no.such.field") == ()
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate'\nexit 9\n")
    assert not NvidiaSmi.here()
    assert NvidiaSmi().snapshot(Snapshot("now")) == Snapshot("now")
    monkeypatch.setenv("PATH", str(smi.parent / "nowhere"))
    assert not NvidiaSmi.here()
