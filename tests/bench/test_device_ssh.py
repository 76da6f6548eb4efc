"""The ssh device against a real sshd, and everything that goes wrong on a real network."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.bench.connection import BOOT
from edge_deeplab.bench.device import Progress
from edge_deeplab.bench.device_ssh import COMMAND, SshDevice
from edge_deeplab.bench.far_side import PREFIX
from edge_deeplab.bench.frames import encode
from edge_deeplab.bench.record import Contender, Job, Plan, Result
from edge_deeplab.cli import main
from edge_deeplab.errors import UserError
from tests.bench.loopback_ssh import (
    MISSING,
    WHY,
    Loopback,
    client,
    device_at,
    free_port,
    key,
    loopback_ssh,
    processes,
)
from tests.bench.refused import ignore, refusal
from tests.runtimes.artefacts import toy_onnx

pytestmark = pytest.mark.skipif(bool(MISSING), reason=WHY)

QUICK = Plan(min_queries=2, min_seconds=0.0, rounds=2, loads=1, lead_in=0)
FRAME = encode(np.full((48, 64, 3), 90, np.uint8))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with loopback_ssh(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job((Contender("toy", str(toy_onnx(tmp_path / "toy.onnx"))),), QUICK, (FRAME,))


@pytest.fixture
def device(sshd: Loopback, there: Path, monkeypatch: pytest.MonkeyPatch) -> SshDevice:
    return device_at(sshd, there, monkeypatch)


@pytest.fixture(autouse=True)
def nothing_left_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The near side keeps neither a process nor a temporary file, whatever goes wrong."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    clients = [line for line in processes("ppid=,args=") if f" {tmp_path}" in line and "ssh " in line]
    mine = [line for line in processes("ppid=,comm=") if line.split() == [str(os.getpid()), "ssh"]]
    assert (clients, mine, list(temporary.iterdir())) == ([], [], [])


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def nothing_left(there: Path) -> bool:
    """No file, and no process that works in the folder."""
    return eventually(lambda: not list(there.iterdir()) and not working_in(there))


def serving(sshd: Loopback) -> list[int]:
    """This server's far sides' serving processes: each is the child of another that outlives it.

    Only this server's: other tests measure at the same time.
    """
    lines = [line.split(None, 2) for line in processes("pid=,ppid=,args=")]
    parents = {int(pid): int(parent) for pid, parent, _ in lines}
    far = {int(pid) for pid, _, command in lines if BOOT[:40] in command}

    def ours(pid: int) -> bool:
        return pid == sshd.process.pid or (pid in parents and ours(parents[pid]))

    return [pid for pid in far if parents[pid] in far and ours(pid)]


def working_in(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append(int(process.name))
        except OSError:
            pass
    return found


# -- it works --------------------------------------------------------------------------------------


def test_end_to_end(device: SshDevice, job: Job, there: Path) -> None:
    seen: list[Progress] = []
    result = device.measure(job, seen.append)
    assert result.machine.device == "ssh"
    (entry,) = result.entries
    assert entry.error is None and entry.file == "toy.onnx"
    assert entry.stages["pipeline"].count >= 2
    assert entry.samples["pipeline"]
    assert seen[0].phase == "connect"
    assert {"copy", "load", "measure"} <= {progress.phase for progress in seen}
    assert nothing_left(there)


def test_the_worker_needs_no_installation(device: SshDevice, job: Job, tmp_path: Path) -> None:
    """A bare Python with numpy, OpenCV and ONNX Runtime, without edge-deeplab."""
    python = bare_python(tmp_path / "bare")
    done = subprocess.run([python, "-I", "-c", "import edge_deeplab"], capture_output=True, check=False)
    assert done.returncode != 0
    device.python = str(python)
    result = device.measure(job, ignore)
    assert result.entries[0].error is None
    assert "onnxruntime" in result.entries[0].versions


def test_several_models_share_one_connection(device: SshDevice, job: Job, sshd: Loopback) -> None:
    two = dataclasses.replace(
        job, contenders=(*job.contenders, dataclasses.replace(job.contenders[0], name="again", threads=2))
    )
    logins = (sshd.folder / "log").read_text().count("Accepted publickey")
    result = device.measure(two, ignore)
    assert [entry.name for entry in result.entries] == ["toy", "again"]
    assert result.entries[1].ratio is not None
    assert (sshd.folder / "log").read_text().count("Accepted publickey") == logins + 1


def test_a_model_that_fails_there_is_one_entry(device: SshDevice, job: Job, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    two = dataclasses.replace(job, contenders=(*job.contenders, Contender("broken", str(broken))))
    good, bad = device.measure(two, ignore).entries
    assert good.error is None
    assert bad.error is not None and "damaged or no ONNX model" in bad.error


def test_the_record_of_an_engine_travels_with_it(device: SshDevice, job: Job, tmp_path: Path) -> None:
    (tmp_path / "toy.onnx.json").write_text("{}")
    seen: list[Progress] = []
    device.measure(job, seen.append)
    assert {"toy.onnx", "toy.onnx.json"} <= {p.text for p in seen if p.phase == "copy"}


def test_the_command(
    sshd: Loopback,
    job: Job,
    there: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(COMMAND, sshd.command)
    written = tmp_path / "result.json"
    words = ["bench", job.contenders[0].path, "--device", sshd.address, "--remote-dir", str(there)]
    quick = ["--min-queries", "2", "--min-seconds", "0.01", "--rounds", "2", "--loads", "1"]
    assert main([*words, "--remote-python", sys.executable, *quick, "--json", str(written)]) == 0
    assert "toy.onnx" in capsys.readouterr().out
    result = Result.load(written)
    assert result.machine.device == "ssh" and result.entries[0].error is None
    assert nothing_left(there)
    assert main([*words, "--remote-python", "no-such-python"]) == 2
    assert "127.0.0.1 has no no-such-python" in capsys.readouterr().err


# -- it does not -----------------------------------------------------------------------------------


def test_wrong_key(
    device: SshDevice, job: Job, sshd: Loopback, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = key(tmp_path / "stranger")
    monkeypatch.setenv(
        COMMAND, client(tmp_path, identity=stranger, host_key=sshd.folder / "host_key", port=sshd.port)
    )
    line = refusal(device, job)
    assert line.startswith("127.0.0.1 refuses the login of 127.0.0.1") and "ssh-copy-id" in line
    assert nothing_left(there)


def test_unknown_host_key(
    device: SshDevice, job: Job, sshd: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = sshd.folder / "user_key"
    monkeypatch.setenv(COMMAND, client(tmp_path, identity=identity, host_key=None, port=sshd.port))
    assert "the host key of 127.0.0.1 is unknown or has changed" in refusal(device, job)


def test_host_down(device: SshDevice, job: Job) -> None:
    device.port = free_port()
    assert refusal(device, job).startswith("127.0.0.1 refuses the connection; is sshd running there")


def test_host_that_never_answers(
    device: SshDevice, job: Job, sshd: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Switched on but hung: it takes the connection and says nothing. The user's own patience comes first."""
    monkeypatch.setenv(COMMAND, f"{sshd.command} -o ConnectTimeout=1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        device.port = silent.getsockname()[1]
        line = refusal(device, job)
    assert line.startswith("127.0.0.1 cannot be reached (") and line.endswith("in this network?")


def test_a_refusal_writes_no_report(
    sshd: Loopback,
    job: Job,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(COMMAND, sshd.command)
    out, written = tmp_path / "out", tmp_path / "result.json"
    words = ["bench", job.contenders[0].path, "--device", f"ssh://127.0.0.1:{free_port()}"]
    assert main([*words, "--output", str(out), "--json", str(written)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert not out.exists() and not written.exists()


def test_host_that_does_not_exist(device: SshDevice, job: Job) -> None:
    device.target = device.host = "no-such-machine.invalid"
    assert refusal(device, job).startswith("no machine is called no-such-machine.invalid")


def test_python_missing(device: SshDevice, job: Job, there: Path) -> None:
    device.python = "python-that-is-not-there"
    line = refusal(device, job)
    assert line.startswith("127.0.0.1 has no python-that-is-not-there; cure: install Python there")
    assert nothing_left(there)


def test_python_too_old(device: SshDevice, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_deeplab.bench.device_ssh.OLDEST_PYTHON", (99, 0))
    assert "edge-deeplab needs 99.0; name a newer one with --remote-python" in refusal(device, job)


def test_numpy_missing(device: SshDevice, job: Job, tmp_path: Path, there: Path) -> None:
    device.python = str(bare_python(tmp_path / "bare", packages=()))
    line = refusal(device, job)
    assert "no numpy, cv2; cure, there:" in line
    assert line.endswith("-m pip install numpy opencv-python-headless")
    assert nothing_left(there)


def test_connection_cut_in_the_middle(device: SshDevice, job: Job, sshd: Loopback, there: Path) -> None:
    endless = dataclasses.replace(job, plan=dataclasses.replace(QUICK, min_seconds=600.0))
    cutter = threading.Thread(target=sshd.cut)

    def cut_while_measuring(progress: Progress) -> None:
        if progress.phase == "measure" and not cutter.ident:
            assert working_in(there)
            cutter.start()

    assert "the connection to 127.0.0.1 was cut" in refusal(device, endless, cut_while_measuring)
    cutter.join()
    assert nothing_left(there)


def test_near_side_killed_in_the_middle(sshd: Loopback, job: Job, there: Path, tmp_path: Path) -> None:
    """Power cut at the desk: the far side notices and cleans up."""
    endless = dataclasses.replace(job, plan=dataclasses.replace(QUICK, min_seconds=600.0))
    (tmp_path / "job.json").write_text(endless.to_json())
    script = (
        "import sys; from edge_deeplab.bench.device import open_device; "
        "from edge_deeplab.bench.record import Job; d = open_device(sys.argv[1]); "
        "d.python, d.parent = sys.executable, sys.argv[3]; "
        "d.measure(Job.from_json(open(sys.argv[2]).read()), lambda p: print(p.phase, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, sshd.address, str(tmp_path / "job.json"), str(there)],
        env={**os.environ, COMMAND: sshd.command},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("measure"):
            break
    assert working_in(there)
    process.kill()
    process.wait()
    process.stdout.close()
    assert nothing_left(there)


def test_far_side_killed_in_the_middle(sshd: Loopback, device: SshDevice, job: Job, there: Path) -> None:
    """Not even the process that cleans up is needed for that."""
    endless = dataclasses.replace(job, plan=dataclasses.replace(QUICK, min_seconds=600.0))

    def kill(progress: Progress) -> None:
        if progress.phase == "measure":
            for pid in serving(sshd):
                os.kill(pid, 9)

    assert "the connection to 127.0.0.1 was cut" in refusal(device, endless, kill)
    assert nothing_left(there)


def test_ctrl_c_cleans_up(device: SshDevice, job: Job, there: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == "measure":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.measure(job, stop)
    assert nothing_left(there)


def test_disk_full_there(device: SshDevice, job: Job, there: Path) -> None:
    """A real file system of 64 KiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(there)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        big = Path(job.contenders[0].path).with_name("big.onnx")
        big.write_bytes(bytes(1 << 20))
        line = refusal(device, dataclasses.replace(job, contenders=(Contender("big", str(big)),)))
        assert line == (
            "127.0.0.1: the disk is full; free some of it, or name another folder with --remote-dir"
        )
        assert nothing_left(there)
    finally:
        subprocess.run(["umount", str(there)], check=True)


def test_folder_there_does_not_exist(device: SshDevice, job: Job, there: Path) -> None:
    device.parent = str(there / "nowhere")
    line = refusal(device, job)
    assert line.startswith(f"127.0.0.1: {there}/nowhere/{PREFIX}") and line.endswith(
        "no such file or directory"
    )


def test_no_ssh_client(device: SshDevice, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND, "/nowhere/ssh")
    assert "/nowhere/ssh is not installed; cure: install the OpenSSH client" in refusal(device, job)


def test_an_empty_ssh_command_is_none(device: SshDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND, "")
    assert device.command()[0] == "ssh"


def test_a_talkative_login(tmp_path: Path, job: Job, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that prints before anything else, as many shells' start files do."""
    said = tmp_path / "ssh"
    said.mkdir()
    script = tmp_path / "talk"
    script.write_text(
        '#!/bin/sh\necho "Welcome! {\\"id\\": 1}"\necho 17\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    script.chmod(0o755)
    with loopback_ssh(said, f"ForceCommand {script}") as talkative:
        monkeypatch.setenv(COMMAND, talkative.command)
        device = SshDevice(talkative.address)
        device.python, device.parent = sys.executable, str(there)
        assert device.measure(job, ignore).entries[0].error is None


@pytest.mark.parametrize(
    ("address", "target", "port"),
    [
        ("ssh://jetson", "jetson", None),
        ("ssh://me@jetson.lan:2222", "me@jetson.lan", 2222),
        ("ssh://me@[::1]:22", "me@::1", 22),
    ],
)
def test_addresses(address: str, target: str, port: int | None) -> None:
    device = SshDevice(address)
    assert (device.target, device.port) == (target, port)


@pytest.mark.parametrize(
    "address", ["ssh:", "ssh://", "ssh://-oProxyCommand=evil", "ssh://a b", "ssh://me@", "ssh://h:x"]
)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(UserError, match="is no ssh address"):
        SshDevice(address)


def bare_python(folder: Path, packages: tuple[str, ...] = ("numpy", "cv2", "onnxruntime")) -> Path:
    """A virtual environment that sees only the named packages of ours, by links."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in packages:
        source = Path(__import__(name).__file__).parent
        (site / name).symlink_to(source)
        libraries = source.with_name(f"{name}.libs")
        if libraries.is_dir():
            (site / libraries.name).symlink_to(libraries)
    return folder / "bin" / "python"
