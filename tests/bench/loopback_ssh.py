"""A real sshd on the loopback device, started by the tests, with keys and settings of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_deeplab.bench.device import open_device
from edge_deeplab.bench.device_ssh import COMMAND, SshDevice

SSHD = shutil.which("sshd") or (shutil.which("sshd", path="/usr/sbin:/usr/local/sbin"))
MISSING = [name for name, path in (("sshd", SSHD), ("ssh", shutil.which("ssh"))) if not path]
WHY = f"{', '.join(MISSING)} not installed: apt install openssh-server openssh-client"


@dataclass
class Loopback:
    """A running sshd.

    Attributes:
        folder: Keys and settings.
        port: Where it listens.
        process: sshd.
        command: The ssh command that gets in, for ``EDGE_DEEPLAB_SSH``.
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    command: str

    @property
    def address(self) -> str:
        return f"ssh://127.0.0.1:{self.port}"

    def sessions(self) -> list[int]:
        """The processes of its open connections."""
        found = []
        for line in processes():
            pid, parent, name = line.split(None, 2)
            if int(parent) == self.process.pid and "sshd" in name:
                found.append(int(pid))
        return found

    def cut(self) -> None:
        """End every connection as a crash or a pulled plug does: without a word."""
        for pid in self.sessions():
            for line in processes():  # the session is split into a privileged and an unprivileged process
                child, parent, name = line.split(None, 2)
                if int(parent) == pid and "sshd" in name:
                    os.kill(int(child), 9)
            os.kill(pid, 9)


def processes(columns: str = "pid=,ppid=,comm=") -> list[str]:
    return subprocess.run(
        ["ps", "-wweo", columns], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


def client(folder: Path, *, identity: Path, host_key: Path | None, port: int) -> str:
    """An ssh command that looks at nothing of the user's own."""
    known = folder / f"known-{port}-{bool(host_key)}"
    known.write_text(f"[127.0.0.1]:{port} {host_key.with_suffix('.pub').read_text()}" if host_key else "")
    config = folder / f"config-{identity.name}-{port}-{bool(host_key)}"
    config.write_text(
        f"Host *\n  IdentityFile {identity}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
    )
    return f"ssh -F {config}"


@contextmanager
def loopback_ssh(folder: Path, *settings: str, path: str = "/usr/bin:/bin") -> Iterator[Loopback]:
    """Start sshd.

    Args:
        folder: For keys, settings, and the home of who logs in.
        settings: Further lines of its configuration.
        path: Where programs are found over there.
    """
    host, user = key(folder / "host_key"), key(folder / "user_key")
    port = free_port()
    home = folder / "home"
    home.mkdir()
    (folder / "authorized").write_text(user.with_suffix(".pub").read_text())
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {host}",
        f"AuthorizedKeysFile {folder / 'authorized'}",
        f"PidFile {folder / 'sshd.pid'}",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        "PrintMotd no",
        f"SetEnv HOME={home} PATH={path}",  # the account's own .bashrc may take a minute, or print
        *settings,
    ]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)  # sshd refuses to start as root without it
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log
        )
    try:
        _wait(port, process, folder / "log")
        yield Loopback(folder, port, process, client(folder, identity=user, host_key=host, port=port))
    finally:
        process.terminate()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"sshd did not start: {log.read_text(errors='replace')}")


def device_at(sshd: Loopback, there: Path, monkeypatch: pytest.MonkeyPatch) -> SshDevice:
    """The device behind ``sshd``: this Python, its folders made in ``there``."""
    monkeypatch.setenv(COMMAND, sshd.command)
    found = open_device(sshd.address)
    assert isinstance(found, SshDevice)
    found.python, found.parent = sys.executable, str(there)
    return found
