"""The near end of a connection: stores files and runs programs on another machine through one process.

Any command that passes standard input and output on to a Python over there will do; for ssh see
:mod:`edge_deeplab.bench.device_ssh`. One process and one login serve the whole run: files, programs, results
and the signs of life that keep it up. :mod:`edge_deeplab.bench.far_side` is the other end.
"""

from __future__ import annotations

import hashlib
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

BOOT = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""What Python over there is started with: it reads the far side's source and becomes it."""

PING = 5.0
"""Seconds between signs of life; the far side cleans up when it has heard nothing for a minute."""

CHUNK = 1 << 16

Answer = dict[str, Any]


class Refused(Exception):
    """The far side could not do what was asked; the message says why in a few words."""


class ConnectionLost(Exception):
    """The connection ended by itself.

    Attributes:
        status: Exit status of the process that carried it.
        errors: What it said on standard error, line by line.
    """

    def __init__(self, status: int | None, errors: Sequence[str]) -> None:
        super().__init__(errors[-1] if errors else f"status {status}")
        self.status = status
        self.errors = list(errors)


@dataclass(frozen=True)
class Greeting:
    """What is on the other machine.

    Attributes:
        folder: Ours there; it goes with the connection.
        python: Version of the interpreter.
        interpreter: Its path.
        system: Operating system, kernel and architecture.
        free: Bytes free where the folder is.
        modules: Those of the modules asked for that are installed.
        programs: Those of the programs asked for, with their paths.
        installed: Whether the files asked for are installed there, byte by byte.
    """

    folder: str
    python: tuple[int, ...]
    interpreter: str
    system: str
    free: int
    modules: tuple[str, ...] = ()
    programs: dict[str, str] = field(default_factory=dict)
    installed: bool = False


class Connection:
    """An open connection. Use as a context manager: the end cleans up over there.

    Args:
        command: Starts a process whose standard input and output lead to :data:`BOOT` over there.
        silence: Seconds after which the far side takes us for dead.
    """

    def __init__(self, command: Sequence[str], *, silence: float = 60.0) -> None:
        self._silence = silence
        # A session of its own: Ctrl-C is for us, and we still need the connection to clean up.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._answers: queue.Queue[Answer | None] = queue.Queue()
        self._errors: list[str] = []
        self._writing = threading.Lock()
        self._numbering = threading.Lock()
        self._closing = threading.Event()
        self._number = 0
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._read_answers, self._read_errors, self._keep_alive)
        ]
        for thread in self._threads[:2]:
            thread.start()

    # -- requests ------------------------------------------------------------------------------

    def hello(
        self,
        *,
        parent: str = "",
        modules: Sequence[str] = (),
        programs: Sequence[str] = (),
        files: Mapping[str, bytes] | None = None,
    ) -> Greeting:
        """The first request: make our folder there and say what is installed.

        Args:
            parent: Where the folder goes; empty leaves it to the system.
            modules: Python modules to look for.
            programs: Programs to look for, by name or path.
            files: Modules that may be installed there in just this version: path -> content.

        Raises:
            ConnectionLost: There is no Python, or no connection.
            Refused: The folder cannot be made.
        """
        source = Path(__file__).with_name("far_side.py").read_bytes()
        self._send([f"{len(source)}\n".encode(), source])
        self._threads[2].start()
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in (files or {}).items()}
        found = self._ask(
            "hello",
            parent=parent,
            modules=list(modules),
            programs=list(programs),
            files=digests,
            silence=self._silence,
        )
        return Greeting(
            folder=found["folder"],
            python=tuple(found["python"]),
            interpreter=found["interpreter"],
            system=found["system"],
            free=found["free"],
            modules=tuple(found["modules"]),
            programs=found["programs"],
            installed=found["installed"],
        )

    def put(self, name: str, data: bytes, sent: Callable[[int], None] = lambda _: None) -> None:
        """Store ``data`` as ``name`` in our folder there.

        Args:
            name: With ``/`` between folders.
            data: Content.
            sent: Told how many bytes are on their way.

        Raises:
            Refused: It cannot be stored: the disk there is full.
        """

        def blocks() -> Iterator[bytes]:
            for start in range(0, len(data), CHUNK):
                yield data[start : start + CHUNK]
                sent(min(start + CHUNK, len(data)))

        self._end_of(self._request({"do": "put", "name": name, "bytes": len(data)}, blocks()))

    def unpack(self, name: str) -> None:
        """Unpack a stored tar archive into our folder there and remove it."""
        self._ask("unpack", name=name)

    def get(self, name: str) -> str:
        """Text of a file in our folder there."""
        text: str = self._ask("get", name=name)["text"]
        return text

    def run(
        self,
        argv: Sequence[str],
        *,
        given: bytes = b"",
        environment: Mapping[str, str] | None = None,
        keep_open: bool = False,
        errors: Callable[[str], None] = lambda _: None,
    ) -> Program:
        """Run a program in our folder there.

        Args:
            argv: ``{folder}`` in a word stands for our folder there.
            given: Its standard input.
            environment: Added to the one there; ``{folder}`` as above.
            keep_open: Leave its standard input open after ``given``, until the connection ends.
            errors: Told every line of its standard error.
        """
        request = {"do": "run", "argv": list(argv), "environment": dict(environment or {})}
        number = self._request({**request, "keep_open": keep_open, "bytes": len(given)}, [given])
        return Program(self, number, errors)

    # -- the end -------------------------------------------------------------------------------

    def close(self, *, patience: float = 15.0) -> None:
        """End the connection; what was stored and started over there goes.

        Args:
            patience: Seconds to wait for the far side to say that it is done.
        """
        self._closing.set()
        with suppress(ConnectionLost, Refused, queue.Empty):
            number = self._request({"do": "bye"})
            while self._next(timeout=patience).get("id") != number:
                pass
        if self._process.stdin is not None:
            with suppress(OSError):  # unsent bytes, and nobody who reads them
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=5)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- small parts ---------------------------------------------------------------------------

    def _ask(self, what: str, **told: Any) -> Answer:
        return self._end_of(self._request({"do": what, **told}))

    def _request(self, request: Answer, payload: Iterable[bytes] = ()) -> int:
        """Send a request and its bytes in one piece: signs of life must not get in between."""
        with self._numbering:
            self._number += 1
            number = self._number
        self._send(chain([json.dumps({**request, "id": number}).encode() + b"\n"], payload))
        return number

    def _end_of(self, number: int) -> Answer:
        """Wait for the end of a request."""
        while True:
            answer = self._next()
            if answer.get("id") == number and "failed" in answer:
                raise Refused(str(answer["failed"]))
            if answer.get("id") == number and "done" in answer:
                done: Answer = answer["done"]
                return done

    def _next(self, timeout: float | None = None) -> Answer:
        answer = self._answers.get(timeout=timeout)
        if answer is None:
            self._answers.put(None)  # for whoever asks next
            raise self._lost()
        return answer

    def _lost(self) -> ConnectionLost:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._threads[1].join(timeout=5)
        return ConnectionLost(status, self._errors)

    def _send(self, blocks: Iterable[bytes]) -> None:
        if self._process.stdin is None:
            return
        try:
            with self._writing:
                for block in blocks:
                    self._process.stdin.write(block)
                    self._process.stdin.flush()
        except (OSError, ValueError):
            # Standard error knows more: why it ended.
            raise self._lost() from None

    def _read_answers(self) -> None:
        for line in _lines(self._process.stdout):
            try:
                answer = json.loads(line)
            except ValueError:
                continue  # a banner of the login shell
            if isinstance(answer, dict) and "id" in answer:
                self._answers.put(answer)
        self._answers.put(None)

    def _read_errors(self) -> None:
        self._errors.extend(_lines(self._process.stderr))

    def _keep_alive(self) -> None:
        while not self._closing.wait(min(PING, self._silence / 4)):
            with suppress(ConnectionLost):
                self._request({"do": "ping"})


class Program:
    """A program that runs over there. Iterating gives its lines and ends with it.

    Attributes:
        status: Exit status; None while it runs.
    """

    def __init__(self, connection: Connection, number: int, errors: Callable[[str], None]) -> None:
        self._connection = connection
        self._number = number
        self._errors = errors
        self.status: int | None = None

    def __iter__(self) -> Iterator[str]:
        while self.status is None:
            answer = self._connection._next()
            if answer.get("id") != self._number:
                continue
            if "failed" in answer:
                raise Refused(str(answer["failed"]))
            if "err" in answer:
                self._errors(answer["err"])
            elif "out" in answer:
                yield answer["out"]
            else:
                self.status = answer["done"]["status"]


def _lines(stream: Any) -> Iterator[str]:
    for line in iter(stream.readline, b""):
        yield line.decode("utf-8", "replace").rstrip("\r\n")
