"""Real aarch64 runtimes at the far end, under qemu-user: over ssh the whole worker, over adb a tool.

``python benchmarks/aarch64.py --prepare`` fetches what this needs (docs/export.md); without it the tests are
skipped. Nothing here is about speed: qemu is about a hundred times slower than a board.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.bench.device import open_device
from edge_deeplab.bench.device_adb import AdbDevice
from edge_deeplab.bench.device_ssh import COMMAND, SshDevice
from edge_deeplab.bench.frames import encode
from edge_deeplab.bench.record import Contender, Job, Plan
from tests.bench.loopback_ssh import MISSING, WHY, loopback_ssh
from tests.bench.phone import ADB, Phone, adb_server, furnish
from tests.bench.phone import WHY as WHY_ADB
from tests.bench.test_device_adb import adb, eventually
from tests.runtimes.artefacts import toy_onnx
from tests.runtimes.tflite_toys import toy_tflite

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from aarch64 import CACHE, CPU, PYTHON  # isort: skip  (the line above makes it found)

GUEST = Path(os.environ.get("EDGE_DEEPLAB_AARCH64", CACHE))

pytestmark = pytest.mark.skipif(
    not (GUEST / "site").is_dir(),
    reason=f"no aarch64 Python in {GUEST}: python benchmarks/aarch64.py --prepare",
)

FRAME = encode(np.full((48, 64, 3), 90, np.uint8))
QUICK = Plan(min_queries=4, min_seconds=0.0, rounds=2, loads=1, lead_in=0)

TOOL = """\
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter

told = dict(word[2:].split("=", 1) for word in sys.argv[1:])
print("INFO: STARTING!")
print("INFO: Loaded model", told["graph"])
begin = time.perf_counter()
try:
    interpreter = Interpreter(told["graph"], num_threads=int(told["num_threads"]))
    interpreter.allocate_tensors()
except (ValueError, RuntimeError) as error:
    print("ERROR:", *str(error).split())
    sys.exit(1)
ready = time.perf_counter()
given = interpreter.get_input_details()[0]
interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
print("INFO: Initialized session in %.3fms." % (1e3 * (ready - begin)))


def phase(count):
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        interpreter.invoke()
        times.append(1e6 * (time.perf_counter() - begin))
    mean = sum(times) / count
    words = "INFO: count=%d first=%.0f curr=%.0f min=%.0f max=%.0f avg=%.1f std=%.0f"
    print(words % (count, times[0], times[-1], min(times), max(times), mean, np.std(times)))
    return times[0], mean


first, warm = phase(2)
_, mean = phase(int(told["num_runs"]))
print(
    "INFO: Inference timings in us: Init: %.0f, First inference: %.0f, "
    "Warmup (avg): %.1f, Inference (avg): %.1f"
    % (1e6 * (ready - begin), first, warm, mean)
)
"""
"""What ``benchmark_model`` does and prints, by LiteRT's own aarch64 library."""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An aarch64 Python that starts itself again when it is asked for its own name."""
    qemu = GUEST / "qemu/usr/bin/qemu-aarch64"
    emulator = str(qemu) if qemu.is_file() else "qemu-aarch64"
    system, site = GUEST / "system", GUEST / "site"
    path = tmp_path / "python-aarch64"
    path.write_text(
        "#!/bin/sh\n"
        f'case "$PYTHONPATH" in *{site}*) ;; *) PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{site}";; esac\n'
        f"export PYTHONPATH PYTHONHOME={system}/usr PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {emulator} -cpu {CPU} -L {system} -0 "$0" {system}/usr/bin/python{PYTHON} "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.skipif(bool(MISSING), reason=WHY)
def test_the_worker_on_a_board_that_is_no_pc(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The modules that are copied run there on the board's own numpy, OpenCV, LiteRT and ONNX Runtime."""
    there = tmp_path / "there"
    there.mkdir()
    files = [toy_onnx(tmp_path / "toy.onnx"), toy_tflite(tmp_path / "toy.tflite")]
    job = Job(tuple(Contender(file.name, str(file)) for file in files), QUICK, (FRAME,))
    with loopback_ssh(tmp_path) as sshd:
        monkeypatch.setenv(COMMAND, sshd.command)
        device = open_device(sshd.address)
        assert isinstance(device, SshDevice)
        device.python, device.parent = str(python), str(there)
        result = device.measure(job, lambda _: None)
    assert result.machine.device == "ssh" and result.machine.system.endswith("aarch64")
    for entry in result.entries:
        assert entry.error is None
        assert entry.stages["pipeline"].count >= 4 and entry.memory is not None
    assert result.entries[1].versions["ai-edge-litert"]
    assert not list(there.iterdir())


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    home = tmp_path / "home"
    home.mkdir()
    with adb_server(home) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        furnish(tmp_path / "phone", {})
        found = Phone(tmp_path / "phone")
        adb("connect", found.serial)
        assert eventually(lambda: f"{found.serial} device" in " ".join(adb("devices").split()))
        yield found
        found.unplug()


@pytest.mark.skipif(ADB is None, reason=WHY_ADB)
def test_a_tool_that_runs_what_is_pushed(phone: Phone, python: Path, tmp_path: Path) -> None:
    tool = tmp_path / "benchmark_model"
    tool.write_text(f'#!/bin/sh\nexec {python} -c {shlex.quote(TOOL)} "$@"\n')
    good, bad = toy_tflite(tmp_path / "toy.tflite"), tmp_path / "bad.tflite"
    bad.write_bytes(b"TFL3 and nothing that a TFLite library reads")
    device = open_device(f"adb:{phone.serial}")
    assert isinstance(device, AdbDevice)
    device.tool = str(tool)
    contenders = tuple(Contender(path.name, str(path)) for path in (good, bad))
    result = device.measure(Job(contenders, QUICK, (FRAME,)), lambda _: None)
    ran, refused = result.entries
    assert ran.error is None and ran.stages["inference"].mean
    assert refused.error is not None and refused.error.startswith("benchmark_model refuses it: ")
    assert not list((phone.root / "data/local/tmp").iterdir())
