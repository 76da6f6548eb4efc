"""A measurement on an Android phone: copy, run the tool in turns, read it and the conditions, clean up.

All that is copied lies in one folder, which is removed at the end, and by the phone itself when it was
unplugged.
"""

from __future__ import annotations

import dataclasses
import random
import secrets
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_deeplab.bench import noise, remote_state
from edge_deeplab.bench.adb import Gone, Phone, open_phone
from edge_deeplab.bench.device import Progress, Report
from edge_deeplab.bench.frames import decode
from edge_deeplab.bench.phone_run import Runs, command, mask, share
from edge_deeplab.bench.record import Conditions, Contender, Entry, Job, Machine, Mark, Result, Snapshot
from edge_deeplab.bench.tools import android
from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes, sha256

FOLDER = "/data/local/tmp"
"""The one place where a shell on a phone may start programs."""

TURNS = 5
"""Runs of the tool a contender gets, at most: each one loads the model anew."""

GUARD = (
    # Waits for the run to end; when nothing of ours has run for two minutes, the computer is gone.
    'idle=0; while [ -d "{folder}" ]; do sleep 5; busy=; '
    "for p in /proc/[0-9]*; do "
    'case "$(readlink "$p/exe" "$p/cwd" 2>/dev/null)" in *"{folder}"*) busy=$p;; esac; done; '
    'if [ -n "$busy" ]; then idle=0; else idle=$((idle+1)); fi; '
    'if [ "$idle" -ge {patience} ]; then rm -rf "{folder}"; fi; done'
)

PATIENCE = 24
"""Looks, five seconds apart, that the guard takes."""


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What the user chose besides the job.

    Attributes:
        tool: The ``benchmark_model`` to copy; None where it was not given.
        cores: Which cluster to run on, where the job names no cores: ``all``, ``big`` or ``little``.
        arguments: Further arguments of the tool.
    """

    tool: str | None
    cores: str
    arguments: tuple[str, ...]


def measure(serial: str, wishes: Wishes, job: Job, report: Report) -> Result:
    """Run a job on the phone with this serial number, or on the only one.

    Raises:
        UserError: No phone, no tool, or it went away: one line.
    """
    if job.plan.scenario != "single":
        raise UserError(
            f"benchmark_model runs one inference after the other, no {job.plan.scenario} scenario"
        )
    tool = _tool(wishes)
    phone = open_phone(serial)
    properties = android.parse_properties(phone.shell("getprop"))
    _check_abi(tool, properties, phone)
    folder = f"{FOLDER}/edge-deeplab-{secrets.token_hex(4)}"
    phase = "copying"
    try:
        try:
            _copy(phone, folder, tool, job, report)
            phase = "measuring"
            before, files = _snapshot(phone)
            allowed = _allowed(wishes, job, before)
            runs, seconds = _take_turns(phone, folder, wishes, allowed, job, report)
            after, _ = _snapshot(phone)
        finally:
            phone.remove(folder)
    except Gone as gone:
        raise UserError(
            f"{phone.name} went away while {phase} ({gone}); plug it in and measure again, what was "
            "copied there is removed by itself"
        ) from gone
    conditions = Conditions(
        before,
        after,
        affinity=allowed or tuple(core.index for core in before.cores),
        pinned=bool(allowed),
        seconds=seconds,
    )
    frame = decode(job.frames[:1])[0].shape
    return Result(
        machine=_machine(properties, files, phone, tool),
        conditions=conditions,
        plan=job.plan,
        frame=(frame[0], frame[1]),
        entries=_entries(runs),
        marks=(*noise.run_marks(conditions), *_throttled_before(before)),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


# -- before ----------------------------------------------------------------------------------------


def _tool(wishes: Wishes) -> Path:
    if wishes.tool is None:
        raise UserError(
            "a phone needs --benchmark-model PATH, TFLite's benchmark_model built for it; "
            "docs/benchmarking-devices.md tells where to get it"
        )
    path = Path(wishes.tool)
    read_bytes(path)  # missing, empty or unreadable: said before the phone is touched
    return path


def _check_abi(tool: Path, properties: dict[str, str], phone: Phone) -> None:
    """Refuse a program for another processor before anything is copied."""
    with tool.open("rb") as file:
        head = file.read(20)
    if head.startswith(b"#!"):
        return  # a script around the tool
    abi = android.elf_abi(head)
    known = [name for name in properties.get("ro.product.cpu.abilist", "").split(",") if name]
    if abi is None:
        raise UserError(f"{tool} is no program; --benchmark-model takes benchmark_model itself")
    if known and abi not in known:
        raise UserError(
            f"{tool.name} is built for {abi}, {phone.name} runs {', '.join(known)}; get the {known[0]} one"
        )


def _copy(phone: Phone, folder: str, tool: Path, job: Job, report: Report) -> None:
    """Make our folder, have the phone guard it, and fill it."""
    phone.shell(f"mkdir {folder}")
    guard = GUARD.format(folder=folder, patience=PATIENCE)
    quoted = guard.replace("'", "'\\''")
    phone.shell(f"(setsid sh -c '{quoted}' </dev/null >/dev/null 2>&1 &)")
    total = 1 + len(job.contenders)
    report(Progress("copy", 0, total, tool.name))
    phone.push(tool, f"{folder}/tool")
    phone.shell(f"chmod 755 {folder}/tool")
    for k, contender in enumerate(job.contenders):
        path = Path(contender.path)
        report(Progress("copy", 1 + k, total, path.name))
        phone.shell(f"mkdir {folder}/{k}")
        phone.push(path, f"{folder}/{k}/{path.name}")


def _allowed(wishes: Wishes, job: Job, before: Snapshot) -> tuple[int, ...]:
    """Cores to run on; empty leaves it to the phone."""
    if job.cpus is not None:
        absent = sorted(set(job.cpus) - {core.index for core in before.cores})
        if absent and before.cores:
            raise UserError(
                f"the phone has no core {', '.join(map(str, absent))}; online are "
                f"{', '.join(str(core.index) for core in before.cores)}"
            )
        return job.cpus
    if wishes.cores == "all":
        return ()
    groups = remote_state.clusters(before.cores)
    if len(groups) < 2:
        raise UserError(
            f"--cores {wishes.cores}: the phone does not tell big from little cores; name them with --cpus"
        )
    return groups[-1] if wishes.cores == "big" else groups[0]


# -- the runs --------------------------------------------------------------------------------------


def _take_turns(
    phone: Phone, folder: str, wishes: Wishes, allowed: Sequence[int], job: Job, report: Report
) -> tuple[list[Runs], float]:
    """Every contender's runs, and the seconds they took together."""
    runs = [Runs(contender, _refuse(contender)) for contender in job.contenders]
    turns = min(TURNS, max(1, job.plan.rounds))
    part, cores = share(job.plan, turns), mask(allowed)
    order = random.Random(job.plan.seed)
    begin = time.monotonic()
    for turn in range(turns):
        for k in order.sample(range(len(runs)), len(runs)):
            if runs[k].error is None:
                contender = runs[k].contender
                report(Progress("measure", turn, turns, contender.name))
                model = f"{folder}/{k}/{Path(contender.path).name}"
                line = command(f"{folder}/tool", model, contender, part, cores, wishes.arguments)
                runs[k].add(*phone.run(f"cd {folder} && {line}"))
    if all(run.error is not None for run in runs):
        reasons = "; ".join(f"{run.contender.name}: {run.error}" for run in runs)
        raise UserError(f"nothing could be measured on {phone.name}: {reasons}")
    return runs, round(time.monotonic() - begin, 3)


def _refuse(contender: Contender) -> str | None:
    """Why a contender cannot be measured here at all."""
    suffix = Path(contender.path).suffix
    if suffix != ".tflite":
        return f"benchmark_model runs .tflite files, not {suffix}; export it with --target tflite"
    if "size" in contender.options:
        return "benchmark_model runs a file at its own size; export one with --size"
    return None


# -- what it ran on --------------------------------------------------------------------------------


def _snapshot(phone: Phone) -> tuple[Snapshot, dict[str, str]]:
    files = android.parse_files(phone.shell(remote_state.script()))
    found = remote_state.snapshot(files)
    thermal = android.parse_thermal(phone.shell("dumpsys thermalservice 2>/dev/null"))
    battery = android.parse_battery(phone.shell("dumpsys battery 2>/dev/null"))
    warm = {} if battery is None or battery.temperature is None else {"battery": battery.temperature}
    level = {} if thermal.status is None else {"thermal status": thermal.status}
    return dataclasses.replace(
        found,
        temperatures={**found.temperatures, **thermal.temperatures, **warm},
        throttled={**found.throttled, **level},
        power=str(battery) if battery else None,
        extra={} if thermal.status is None else {"thermal status": _level(thermal.status)},
    ), files


def _throttled_before(before: Snapshot) -> tuple[Mark, ...]:
    status = before.throttled.get("thermal status", 0)
    if status == 0:
        return ()
    return (
        Mark("throttled", f"the phone held itself back before it began: thermal status {_level(status)}"),
    )


def _level(status: int) -> str:
    names = android.THERMAL_STATUS
    return names[status] if status < len(names) else str(status)


def _machine(properties: dict[str, str], files: dict[str, str], phone: Phone, tool: Path) -> Machine:
    def first(*names: str) -> str:
        return next((properties[name] for name in names if properties.get(name)), "")

    return Machine(
        device="adb",
        board=" ".join(filter(None, (first("ro.product.manufacturer"), first("ro.product.model")))),
        soc=" ".join(
            filter(
                None,
                (first("ro.soc.manufacturer"), first("ro.soc.model", "ro.board.platform", "ro.hardware")),
            )
        ),
        cpu=remote_state.cpu_name(files),
        cores=len(remote_state.online(files)) or None,
        memory=remote_state.memory(files, "MemTotal"),
        system=f"Android {first('ro.build.version.release')}, {phone.shell('uname -rm').strip()}",
        versions={
            "adb": phone.version,
            "build": first("ro.build.id", "ro.build.display.id"),
            "benchmark_model": f"sha256 {sha256(tool)[:16]}",
        },
    )


def _entries(runs: list[Runs]) -> tuple[Entry, ...]:
    base: Any = next((run for run in runs if run.error is None), None)
    return tuple(run.entry(None if run is base else base) for run in runs)
