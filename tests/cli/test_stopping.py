"""SIGTERM and SIGHUP end a command as Ctrl-C does."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_deeplab.cli.stopping import Stop, stopped_by_signals

SIGNALS = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def nobody_handles_them() -> Iterator[None]:
    """As in a terminal; whoever started these tests may have used ``nohup``, which processes inherit."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


STOPPED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from edge_deeplab.cli import main

def stop(*_):
    for _ in range(2):  # as `timeout` does
        os.kill(os.getpid(), signal.{name})

Path.replace = stop
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_nothing_half_written_is_left(toy: Path, photo: Path, tmp_path: Path, number: signal.Signals) -> None:
    code = STOPPED_WHILE_WRITING.format(name=number.name)
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", toy, photo, "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (128 + number, "stopped\n")
    assert not (tmp_path / "out").exists()


def test_an_export_leaves_nothing_in_either_folder(checkpoint: Path, tmp_path: Path) -> None:
    """Neither beside the output nor where temporary files are."""
    for module in ("onnx", "onnxsim", "onnxscript"):
        pytest.importorskip(module)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = """
import os, signal, sys
from edge_deeplab.cli import main
from edge_deeplab.export import onnx_graph
onnx_graph.finish = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(sys.argv[1:]))
"""
    output = tmp_path / "out" / "x.onnx"
    done = subprocess.run(
        [sys.executable, "-c", code, "export", checkpoint, "--target", "onnx", "--output", output],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (143, "stopped\n")
    assert not output.parent.exists()
    assert not list(scratch.glob("edge-deeplab-*"))  # what else is there is torch's


def test_a_terminal_that_closes(toy: Path, photo: Path, tmp_path: Path) -> None:
    """There is nowhere left to say so: still the status of SIGHUP, and nothing left behind."""
    ours, theirs = pty.openpty()
    code = STOPPED_WHILE_WRITING.format(name="SIGHUP").replace("os.kill(", "os.read(0, 1); os.kill(")
    with subprocess.Popen(
        [sys.executable, "-c", code, "predict", toy, photo, "--output", tmp_path / "out"],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        while not list(tmp_path.glob("out/.part-*")) and process.poll() is None:
            pass
        os.close(ours)
        process.communicate(b"go")
    assert process.returncode == 129
    assert not (tmp_path / "out").exists()


# -- whose signals -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_what_was_there_before_is_there_after(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = Stop()
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(stop):
        assert signal.getsignal(number) != before
        signal.raise_signal(number)
    assert signal.getsignal(number) == before
    assert stop.status == 128 + number


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "somebody else's"])
def test_handled_signals_are_left_alone(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        stop = Stop()
        with stopped_by_signals(stop):
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is handler
        assert signal.getsignal(signal.SIGHUP) is handler
        assert stop.status == 130
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_worker_ends_by_the_signal() -> None:
    """It has nothing to clear away, and must not run what its parent has."""
    with stopped_by_signals(Stop()):
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_other_threads_install_nothing() -> None:
    """Python lets only the main thread."""
    seen: list[object] = []

    def enter() -> None:
        with stopped_by_signals(Stop()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
