"""``ssh://[USER@]HOST[:PORT]``: a Jetson, a Raspberry Pi, a phone with Termux, any machine with Python.

Goes through the user's own OpenSSH client, so keys, agents, host keys, jump hosts and ``~/.ssh/config``
work as they do by hand. One login serves the run. What is copied lies in one folder there, which the far
end removes when the run ends, however it ends (see :mod:`edge_deeplab.bench.far_side`).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from edge_deeplab.bench.bundle import bundle, files
from edge_deeplab.bench.connection import BOOT, Connection, ConnectionLost, Greeting, Refused
from edge_deeplab.bench.device import Device, Progress, Report, follow
from edge_deeplab.bench.record import Contender, Job, Result
from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes

COMMAND = "EDGE_DEEPLAB_SSH"
"""Environment variable with the ssh command and its options, as ``GIT_SSH_COMMAND`` is for git."""

OPTIONS = (
    "ConnectTimeout=15",
    # A pulled cable is noticed within half a minute.
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    # A connection that is shared already may be used; a new one must end with us.
    "ControlMaster=no",
)

OLDEST_PYTHON = (3, 10)

PROGRAMS = ("trtexec", "/usr/src/tensorrt/bin/trtexec")
"""TensorRT's own benchmark: on the path, or where its Debian packages put it."""

NEEDED = {"numpy": "numpy", "cv2": "opencv-python-headless"}
"""Modules that the worker cannot start without, and what brings them."""

_ADDRESS = re.compile(r"ssh://(?:([^@/\s-][^@/\s]*)@)?(\[[0-9a-fA-F:%.]+\]|[^@:/\s-][^@:/\s]*)(?::(\d+))?/?")


class SshDevice(Device):
    """Copies model and worker, runs there, brings the result back.

    Attributes:
        python: Python's name or path there.
        parent: Folder there that ours is made in; empty leaves it to the system.
        engine: Build TensorRT engines there from the ONNX files: ``fp16``, ``int8``, or ``own`` for the
            precision each was prepared for. Empty builds none.
        trtexec: Measure with this program of TensorRT, by name or path; empty takes it only to build
            engines where TensorRT's Python package is not installed.
    """

    address_help: ClassVar[str] = "ssh://[USER@]HOST[:PORT]"

    python = "python3"
    parent = ""
    engine = ""
    trtexec = ""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise UserError(f"{address!r} is no ssh address; give {self.address_help}")
        user, host, port = match.groups()
        self.host = host.strip("[]")
        self.port = int(port) if port else None
        self.target = f"{user}@{self.host}" if user else self.host

    @classmethod
    def arguments(cls, group: argparse._ArgumentGroup) -> None:
        """Options of this kind of device."""
        group.add_argument(
            "--remote-python", metavar="PATH", default=cls.python, help="Python there (default: python3)"
        )
        group.add_argument(
            "--remote-dir", metavar="DIR", default=cls.parent, help="where files go there (default: /tmp)"
        )
        group.add_argument(
            "--engine",
            nargs="?",
            choices=("own", "fp16", "int8"),
            const="own",
            default=cls.engine,
            help="build TensorRT engines there from prepared ONNX files and measure those; own: in the "
            "precision each was prepared for",
        )
        group.add_argument(
            "--trtexec",
            nargs="?",
            metavar="PATH",
            const=PROGRAMS[0],
            default=cls.trtexec,
            help="measure with TensorRT's own trtexec, inference alone: for boards without its Python "
            "package",
        )

    def configure(self, args: argparse.Namespace) -> None:
        """Take the options."""
        self.python, self.parent = args.remote_python, args.remote_dir
        self.engine, self.trtexec = args.engine, args.trtexec

    def measure(self, job: Job, report: Report) -> Result:
        """See :class:`Device`."""
        report(Progress("connect", 0, 0, self.host))  # a host that is down takes 15 s to say so
        with self.connected() as (link, there):
            if self.trtexec or (self.engine and "tensorrt" not in there.modules):
                result = self._by_trtexec(link, there, job, report)
            else:
                self._check(there)
                sent = send_models(link, job, report)
                send_worker(link, there, export=bool(self.engine))
                result = self._with_engines(link, there, job, sent, report)
        return result.replace(machine=dataclasses.replace(result.machine, device="ssh"))

    def _with_engines(self, link: Connection, there: Greeting, job: Job, sent: Job, report: Report) -> Result:
        if not self.engine:
            return self._work(link, there, sent, report)
        from edge_deeplab.bench.engines import build_all, with_failures

        sent, failures = build_all(link, there, self.engine, sent, report)
        if not sent.contenders:
            reasons = "; ".join(f"{name}: {why}" for name, why in failures.items())
            raise UserError(f"{self.host}: nothing could be measured: {reasons}")
        return with_failures(self._work(link, there, sent, report), job.contenders, failures)

    def _by_trtexec(self, link: Connection, there: Greeting, job: Job, report: Report) -> Result:
        from edge_deeplab.bench.trtexec_run import measure

        programs = [
            there.programs[Path(name).name] for name in self._programs() if Path(name).name in there.programs
        ]
        if not programs:
            name = self.trtexec or PROGRAMS[0]
            missing = f"no {name}" if self.trtexec else f"neither TensorRT's Python package nor {name}"
            raise UserError(
                f"{self.host} has {missing}; cure: install TensorRT there, or name the program with "
                "--trtexec PATH"
            )
        precision = None if self.engine in ("", "own") else self.engine
        try:
            return measure(link, there, programs[0], precision, job, send_models(link, job, report), report)
        except UserError as error:
            raise UserError(f"{self.host}: {error}") from error

    def _programs(self) -> tuple[str, ...]:
        """Where to look for trtexec."""
        return (self.trtexec,) if self.trtexec not in ("", PROGRAMS[0]) else PROGRAMS

    # -- connection ----------------------------------------------------------------------------

    @contextmanager
    def connected(self) -> Iterator[tuple[Connection, Greeting]]:
        """A connection and what is over there; losing it becomes one line."""
        try:
            link = Connection(self.command())
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} is not installed; cure: install the OpenSSH client (openssh-client)"
            ) from error
        there: Greeting | None = None
        try:
            with link:
                code = {path: content for path, content in files(export=bool(self.engine)).items() if content}
                there = link.hello(
                    parent=self.parent, modules=[*NEEDED, "tensorrt"], programs=self._programs(), files=code
                )
                yield link, there
        except ConnectionLost as lost:
            raise UserError(self._why(lost, greeted=there is not None)) from lost
        except Refused as refused:
            cure = "; free some of it, or name another folder with --remote-dir"
            raise UserError(
                f"{self.host}: {refused}{cure if 'disk is full' in str(refused) else ''}"
            ) from None

    def command(self) -> list[str]:
        """The local command whose standard input and output lead to Python over there."""
        ssh = shlex.split(os.environ.get(COMMAND) or "ssh")
        options = [word for option in OPTIONS for word in ("-o", option)]
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            options += ["-o", "BatchMode=yes"]  # nobody is there who could answer a question
        port = ["-p", str(self.port)] if self.port else []
        remote = f"exec {shlex.quote(self.python)} -u -c {shlex.quote(BOOT)}"
        return [*ssh, "-T", *options, *port, "--", self.target, remote]

    def _why(self, lost: ConnectionLost, *, greeted: bool) -> str:
        """One line with cause and cure for a connection that ended."""
        text = "\n".join(lost.errors)
        words = [line for line in lost.errors if not line.startswith("Warning: Permanently added")]
        last = words[-1] if words else f"ssh ended with status {lost.status}"
        if greeted:
            return (
                f"the connection to {self.host} was cut ({last}); what was copied there is removed by "
                "itself, measure again"
            )
        for pattern, sentence in EXPLANATIONS:
            if re.search(pattern, text, re.IGNORECASE):
                return sentence.format(host=self.host, target=self.target, python=self.python, last=last)
        return f"cannot measure on {self.host}: {last}"

    # -- steps ---------------------------------------------------------------------------------

    def _check(self, there: Greeting) -> None:
        """Refuse a machine that the worker cannot start on."""
        version = ".".join(map(str, there.python))
        if there.python < OLDEST_PYTHON:
            raise UserError(
                f"{self.host} has Python {version}, edge-deeplab needs "
                f"{'.'.join(map(str, OLDEST_PYTHON))}; name a newer one with --remote-python"
            )
        missing = [name for name in NEEDED if name not in there.modules]
        if missing:
            packages = " ".join(NEEDED[name] for name in missing)
            raise UserError(
                f"{self.host} has Python {version} but no {', '.join(missing)}; cure, there: "
                f"{self.python} -m pip install {packages}"
            )

    def _work(self, link: Connection, there: Greeting, job: Job, report: Report) -> Result:
        """Run the worker over there."""
        said: list[str] = []
        program = link.run(
            [there.interpreter, "-m", "edge_deeplab.bench.worker", "-", "--until-eof"],
            given=job.to_json().encode() + b"\n",
            environment={"PYTHONPATH": "{folder}", "PYTHONDONTWRITEBYTECODE": "1"},
            keep_open=True,
            errors=said.append,
        )
        try:
            return follow(program, report)
        except UserError as error:
            raise UserError(f"{self.host}: {error}") from error
        except EOFError as error:
            raise UserError(f"the worker on {self.host} {_ended(program.status, said)}") from error


EXPLANATIONS = (
    (
        r"permission denied|no more authentication methods|too many authentication failures",
        "{host} refuses the login of {target} ({last}); cure: ssh-copy-id {target}, or name the right key "
        "in ~/.ssh/config",
    ),
    (
        r"host key verification failed|remote host identification has changed|no .* host key is known",
        "the host key of {host} is unknown or has changed; cure: log in once by hand (ssh {target}) and "
        "compare the fingerprint",
    ),
    (
        r"could not resolve hostname",
        "no machine is called {host}; check the address and ~/.ssh/config",
    ),
    (
        r"connection refused",
        "{host} refuses the connection; is sshd running there, and on this port?",
    ),
    (
        r"timed out|no route to host|network is unreachable|host is down",
        "{host} cannot be reached ({last}); is it on, and in this network?",
    ),
    (
        r"not found|no such file or directory|unknown command",
        "{host} has no {python}; cure: install Python there, or name it with --remote-python",
    ),
)
"""What ssh or the shell over there says -> what that means; the first that fits."""


# -- what other kinds of measuring over a connection need too ------------------------------------


def send_models(link: Connection, job: Job, report: Report) -> Job:
    """Copy the contenders' files; the job answered names them where they lie over there."""
    places: dict[str, str] = {}
    contenders = []
    for k, contender in enumerate(job.contenders):
        if contender.path not in places:
            places[contender.path] = f"models/{k}/{Path(contender.path).name}"
            for path, name in _files(contender, places[contender.path]):
                _send(link, path, name, report)
        contenders.append(dataclasses.replace(contender, path=places[contender.path]))
    return dataclasses.replace(job, contenders=tuple(contenders))


def send_worker(link: Connection, there: Greeting, *, export: bool = False) -> None:
    """Copy the modules the worker needs, unless edge-deeplab is installed there with the same code."""
    if not there.installed:
        link.put("bundle.tar.gz", bundle(export=export))
        link.unpack("bundle.tar.gz")


def _files(contender: Contender, name: str) -> Iterator[tuple[Path, str]]:
    """A model's file and the record that an engine has beside it."""
    path = Path(contender.path)
    yield path, name
    record = path.with_name(path.name + ".json")
    if record.is_file():
        yield record, name + ".json"


def _send(link: Connection, path: Path, name: str, report: Report) -> None:
    data = read_bytes(path)
    link.put(name, data, lambda sent: report(Progress("copy", sent, len(data), path.name)))


def _ended(status: int | None, said: list[str]) -> str:
    """How a program ended without the answer it owes."""
    if status == -9:
        return "was killed (signal 9); most likely the memory there ran out"
    if status is not None and status < 0:
        return f"died of signal {-status}"
    return f"ended with status {status}: {said[-1] if said else 'it said nothing'}"


DEVICE = SshDevice
