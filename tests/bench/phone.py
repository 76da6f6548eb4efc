"""A phone that is not there: the device's end of adb's wire protocol, for the real adb client and server.

It answers over TCP as a phone with ``adb tcpip`` does and runs in a shell what it is told, in a folder that
stands for the phone's file system: ``/data``, ``/sys`` and ``/proc`` of a command are that folder's. Wire
format: AOSP's packages/modules/adb, docs/dev/protocol.md (transport), sync.md (files), shell_v2 (framing).
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

ADB = shutil.which("adb")
WHY = "adb not installed: apt install adb"

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION, MAX_PAYLOAD = 0x01000000, 256 * 1024
SHELL_STDOUT, SHELL_STDERR, SHELL_EXIT = 1, 2, 3
REDIRECTED = (
    "/data/",
    "/sys/",
    *(f"/proc/{name}" for name in ("loadavg", "meminfo", "cpuinfo", "device-tree/")),
)
"""What lies under the phone's folder; processes are this machine's, so a guard sees those it waits for."""

GETPROP = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 9 Pro",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor G4",
    "ro.product.cpu.abilist": "arm64-v8a",
    "ro.build.version.release": "16",
    "ro.build.id": "BP2A.250605.031",
}


class Phone:
    """A listening phone.

    Args:
        root: The folder that stands for its file system.
        allowed: Whether it has accepted the computer's key.
        space: Bytes a file may have before the storage is full.

    Attributes:
        serial: As adb knows it.
        commands: Shell lines it was given.
        on_command: Called with every shell line before it runs.
    """

    def __init__(self, root: Path, *, allowed: bool = True, space: int = 1 << 30) -> None:
        self.root, self.allowed, self.space = root, allowed, space
        self.commands: list[str] = []
        self.on_command: Callable[[str], None] = lambda line: None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._links: list[Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            link = Link(self, connection)
            self._links.append(link)
            threading.Thread(target=link.serve, daemon=True).start()

    def unplug(self) -> None:
        """The cable is pulled: no further word, and what runs in its shells is hung up on."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # also wakes the thread that waits for callers
        self._listener.close()
        for link in self._links:
            link.hang_up()


class Link:
    """One connection of adb's server."""

    def __init__(self, phone: Phone, connection: socket.socket) -> None:
        self.phone, self._socket = phone, connection
        self._writing = threading.Lock()
        self._streams: dict[int, queue.Queue[bytes | None]] = {}
        self._ready: dict[int, queue.Queue[None]] = {}
        self.processes: list[subprocess.Popen[bytes]] = []

    def serve(self) -> None:
        with suppress(OSError, struct.error):
            while True:
                self._take(*self._receive())

    def hang_up(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for process in self.processes:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGHUP)

    # -- messages ----------------------------------------------------------------------------------

    def _receive(self) -> tuple[int, int, int, bytes]:
        command, first, second, length, _, _ = struct.unpack("<6I", self._exactly(24))
        return command, first, second, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            block = self._socket.recv(count - len(data))
            if not block:
                raise OSError("closed")
            data += block
        return data

    def _send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack(
            "<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF
        )
        with self._writing:
            self._socket.sendall(head + data)

    def _take(self, command: int, first: int, second: int, data: bytes) -> None:
        if command in (CNXN, AUTH):
            self._greet(command)
        elif command == OPEN:
            self._open(first, data.rstrip(b"\0").decode())
        elif command == WRTE and second in self._streams:
            self._streams[second].put(data)
            self._send(OKAY, second, first)
        elif command == OKAY and second in self._ready:
            self._ready[second].put(None)
        elif command == CLSE and second in self._streams:
            self._streams.pop(second).put(None)

    def _greet(self, command: int) -> None:
        if self.phone.allowed:
            banner = "device::ro.product.name=caiman;ro.product.model=Pixel 9 Pro;ro.product.device=caiman;"
            self._send(CNXN, VERSION, MAX_PAYLOAD, (banner + "features=shell_v2,cmd").encode())
        elif command == CNXN:
            self._send(AUTH, 1, 0, bytes(range(20)))  # a token to sign; no answer will please
        else:
            self._send(AUTH, 1, 0, bytes(range(20, 40)))

    # -- services ----------------------------------------------------------------------------------

    def _open(self, theirs: int, service: str) -> None:
        ours = theirs + 1000
        self._streams[ours], self._ready[ours] = queue.Queue(), queue.Queue()
        kind, _, rest = service.partition(":")
        self._send(OKAY, ours, theirs)

        def write(data: bytes) -> None:
            for start in range(0, len(data), MAX_PAYLOAD):
                self._send(WRTE, ours, theirs, data[start : start + MAX_PAYLOAD])
                self._ready[ours].get(timeout=30)

        def work() -> None:
            with suppress(OSError, queue.Empty):
                if kind == "sync":
                    Sync(self.phone, self._streams[ours], write).serve()
                else:
                    self._shell(rest, write)
                self._send(CLSE, ours, theirs)

        threading.Thread(target=work, daemon=True).start()

    def _shell(self, line: str, write: Callable[[bytes], None]) -> None:
        line = line.removeprefix("raw:")
        self.phone.commands.append(line)
        self.phone.on_command(line)
        root = str(self.phone.root)
        for place in REDIRECTED:
            line = line.replace(place, f"{root}{place}")
        process = subprocess.Popen(
            ["sh", "-c", line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": f"{root}/system/bin:{os.environ['PATH']}", "PHONE": root},
            start_new_session=True,
        )
        self.processes.append(process)
        out, err = process.communicate()
        for kind, data in ((SHELL_STDOUT, out), (SHELL_STDERR, err)):
            text = data.replace(root.encode(), b"")
            if text:
                write(struct.pack("<BI", kind, len(text)) + text)
        write(struct.pack("<BIB", SHELL_EXIT, 1, process.returncode & 0xFF))


class Sync:
    """Files."""

    def __init__(
        self, phone: Phone, incoming: queue.Queue[bytes | None], write: Callable[[bytes], None]
    ) -> None:
        self._phone, self._incoming, self._write = phone, incoming, write
        self._data = b""

    def serve(self) -> None:
        while True:
            name, length = struct.unpack("<4sI", self._exactly(8))
            if name == b"QUIT":
                return
            path = self._exactly(length).decode()
            if name in (b"STAT", b"LSTA"):
                self._stat(name, path)
            elif name == b"SEND":
                self._store(path.rpartition(",")[0])

    def _stat(self, name: bytes, path: str) -> None:
        place = self._place(path)
        if not place.exists():
            self._write(struct.pack("<4sIII", name, 0, 0, 0))
        else:
            found = place.stat()
            self._write(struct.pack("<4sIII", name, found.st_mode, found.st_size, int(found.st_mtime)))

    def _store(self, path: str) -> None:
        data = b""
        while True:
            name, length = struct.unpack("<4sI", self._exactly(8))
            if name == b"DONE":
                break
            data += self._exactly(length)
        if len(data) > self._phone.space:
            message = b"write failed: No space left on device"
            self._write(struct.pack("<4sI", b"FAIL", len(message)) + message)
            return
        self._place(path).write_bytes(data)
        self._write(struct.pack("<4sI", b"OKAY", 0))

    def _place(self, path: str) -> Path:
        return self._phone.root / path.lstrip("/")

    def _exactly(self, count: int) -> bytes:
        while len(self._data) < count:
            block = self._incoming.get(timeout=60)
            if block is None:
                raise OSError("closed")
            self._data += block
        taken, self._data = self._data[:count], self._data[count:]
        return taken


# -- the phone's inside ----------------------------------------------------------------------------


def furnish(root: Path, programs: Mapping[str, str]) -> None:
    """Fill a phone's file system: eight cores in two clusters, heat, and a few programs.

    ``programs``: name -> shell script in ``/system/bin``.
    """
    cpu, thermal, proc = root / "sys/devices/system/cpu", root / "sys/class/thermal", root / "proc"
    for index in range(8):
        big = index >= 4
        write(cpu / f"cpu{index}/cpu_capacity", "1024" if big else "250")
        write(cpu / f"cpu{index}/cpufreq/scaling_cur_freq", "1401000" if big else "820000")
        write(cpu / f"cpu{index}/cpufreq/scaling_max_freq", "3105000" if big else "1950000")
        write(cpu / f"cpu{index}/cpufreq/scaling_governor", "sched_pixel")
    write(cpu / "online", "0-7")
    for number, (kind, temperature) in enumerate(
        (("BIG", "41500"), ("LITTLE", "38200"), ("G3D", "36900"), ("unused", "0"))
    ):
        write(thermal / f"thermal_zone{number}/type", kind)
        write(thermal / f"thermal_zone{number}/temp", temperature)
    write(thermal / "cooling_device0/type", "thermal-cpufreq-1")
    write(thermal / "cooling_device0/cur_state", "0")
    write(proc / "loadavg", "1.52 1.40 1.31 2/3001 12345")
    write(proc / "meminfo", "MemTotal:       15888204 kB\nMemFree:  812 kB\nMemAvailable:    9437184 kB")
    write(proc / "cpuinfo", "".join(f"processor : {k}\nCPU part\t: 0xd80\n\n" for k in range(4)))
    (root / "data/local/tmp").mkdir(parents=True)
    properties = "\n".join(f"[{name}]: [{value}]" for name, value in GETPROP.items())
    standard = {
        "getprop": f"cat <<'E'\n{properties}\nE",
        # The phone's cores are not this machine's.
        "taskset": 'echo "$1" >> "$PHONE/masks"; shift; exec "$@"',
        "uname": "echo 6.1.99-android14-11 aarch64",
    }
    for name, script in {**standard, **programs}.items():
        write(root / "system/bin" / name, f"#!/bin/sh\n{script}")
        (root / "system/bin" / name).chmod(0o755)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@contextmanager
def adb_server(home: Path) -> Iterator[dict[str, str]]:
    """A private adb server; gives the environment that leads to it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ANDROID_USER_HOME": str(home),
        "ADB_MDNS": "0",
        "HOME": str(home),
    }
    everything = {**os.environ, **environment}
    subprocess.run([str(ADB), "start-server"], env=everything, capture_output=True, check=True)
    try:
        yield environment
    finally:
        subprocess.run([str(ADB), "kill-server"], env=everything, capture_output=True, check=True)
