"""A phone through the ``adb`` command: find it, talk to its shell, copy files."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from edge_deeplab.errors import UserError

CURES = {
    "unauthorized": "has not allowed this computer yet; unlock it and allow USB debugging",
    "offline": "does not answer; unplug it and plug it in again",
    "no permissions": "may not be used by this user; see developer.android.com/tools/device on udev rules",
    "authorizing": "is still deciding; unlock it and try again",
    "connecting": "is still connecting; try again",
    "bootloader": "is in its bootloader; start Android",
    "recovery": "is in recovery mode; start Android",
    "sideload": "is in sideload mode; start Android",
}
"""State that ``adb devices`` tells -> what is wrong and what helps."""

CHANGING = ("authorizing", "connecting")
"""States that pass by themselves while phone and computer exchange keys."""

PATIENCE = 5.0
"""Seconds that these may last."""

STATUS = "edge-deeplab-status="

MINUTE = 60.0


class Gone(Exception):
    """The phone is not connected any more; the message is adb's own."""


class Phone:
    """A phone that answers.

    Attributes:
        adb: The command.
        serial: Which phone.
        model: Its name, empty where adb does not tell.
    """

    def __init__(self, adb: str, serial: str, model: str) -> None:
        self.adb, self.serial, self.model = adb, serial, model

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.model} ({self.serial})" if self.model else self.serial

    @property
    def version(self) -> str:
        """Version of adb."""
        first = subprocess.run([self.adb, "version"], capture_output=True, text=True, check=False).stdout
        return (first.splitlines() or [""])[0].rpartition(" ")[2]

    def shell(self, line: str) -> str:
        """Output of a shell line that is quickly done; its exit status does not matter.

        Raises:
            Gone: The phone does not answer.
        """
        return self.run(line, timeout=MINUTE)[1]

    def run(self, line: str, *, timeout: float | None = None) -> tuple[int, str]:
        """Exit status of a shell line, and its output, standard error included.

        The status is printed by the shell there: Android before 7 does not pass it on.

        Raises:
            Gone: The phone does not answer, or stopped answering.
        """
        try:
            done = self._adb("shell", f"{{ {line}\n}} 2>&1; echo {STATUS}$?", timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Gone("no answer") from None
        text = done.stdout.replace("\r\n", "\n")
        before, found, status = text.rpartition(STATUS)
        if not found:
            raise Gone(_said(done) or "the connection ended")
        return int(status), before.removesuffix("\n")

    def push(self, path: Path, target: str) -> None:
        """Copy a file.

        Raises:
            Gone: The phone does not answer.
            UserError: It cannot be stored there.
        """
        done = self._adb("push", str(path), target)
        if done.returncode == 0:
            return
        said = _said(done)
        if re.search(r"no space left", said, re.IGNORECASE):
            raise UserError(f"the storage of {self.name} is full")
        if self._connected():
            raise UserError(f"cannot copy {path.name} to {self.name}: {said}")
        raise Gone(said)

    def remove(self, folder: str) -> None:
        """Remove a folder and what runs in it; a phone that is gone does it by itself."""
        with suppress(Gone):
            self.shell(
                f'for p in /proc/[0-9]*; do case "$(readlink "$p/exe" "$p/cwd" 2>/dev/null)" in '
                f'*{folder}*) kill -9 "${{p##*/}}";; esac; done; rm -rf {folder}'
            )

    def _connected(self) -> bool:
        return self._adb("get-state").stdout.strip() == "device"

    def _adb(self, *words: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.adb, "-s", self.serial, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )


def open_phone(serial: str = "") -> Phone:
    """The phone that is meant.

    Args:
        serial: As ``adb devices`` shows it; empty: the only one there is.

    Raises:
        UserError: adb is not installed, no phone is there, several are, or it is not ready.
    """
    adb = shutil.which("adb")
    if adb is None:
        raise UserError("adb is not installed; cure: Android's platform-tools (apt install adb)")
    phones = _phones(adb)
    until = time.monotonic() + PATIENCE
    while any(state in CHANGING for state, _ in phones.values()) and time.monotonic() < until:
        time.sleep(0.1)
        phones = _phones(adb)
    if not phones:
        raise UserError("no phone is connected; allow USB debugging on it, plug it in, see: adb devices")
    if not serial and len(phones) > 1:
        names = list(phones)
        raise UserError(f"several phones are connected; say which: --device adb:{' or adb:'.join(names)}")
    serial = serial or next(iter(phones))
    if serial not in phones:
        raise UserError(f"no phone {serial} is connected; there: {', '.join(phones)}")
    state, model = phones[serial]
    if state != "device":
        raise UserError(f"phone {serial} {CURES.get(state, f'is in state {state}')}")
    return Phone(adb, serial, model)


def _phones(adb: str) -> dict[str, tuple[str, str]]:
    listed = subprocess.run([adb, "devices", "-l"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise UserError(f"adb does not work here: {_said(listed)}")
    return parse_devices(listed.stdout)


def parse_devices(text: str) -> dict[str, tuple[str, str]]:
    """Read ``adb devices -l``: serial -> (state, model)."""
    found = {}
    for line in text.partition("List of devices attached")[2].splitlines():
        match = re.match(r"(\S+)\s+(no permissions|\S+)(.*)", line)
        if match:
            model = re.search(r"\bmodel:(\S+)", match[3])
            found[match[1]] = (match[2], model[1].replace("_", " ") if model else "")
    return found


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The last line adb said about what went wrong."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()] or lines
    return told[-1].removeprefix("adb: ").removeprefix("error: ") if told else ""
