"""The far end of a connection: keeps a folder there, stores files, runs programs, and leaves nothing behind.

Its source is sent over the connection and executed, so nothing but Python has to be there: 3.6 or newer,
standard library only, and for that reason written in old Python. :mod:`edge_deeplab.bench.connection` is
the near end.

Standard input carries requests, each one JSON object on a line, followed by as many raw bytes as its
``bytes`` says. Standard output carries answers, one JSON object a line, each with the ``id`` of its
request: ``done`` (a dict) or ``failed`` (words) ends a request, ``out`` and ``err`` are lines of a program
that runs. When standard input closes or stays silent for too long, the connection is taken for dead: all
programs are stopped and the folder is removed.
"""

import errno
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, BinaryIO, Dict, List, Optional

PREFIX = "edge-deeplab-"
MARK = "EDGE_DEEPLAB_FOLDER"
"""Set in the environment of everything that is started, so that it can be found again."""

SILENCE = 60.0
"""Seconds without a request after which nobody is taken to be there."""

GRACE = 3.0
"""Seconds that a program has between being asked to stop and being killed."""

CHUNK = 1 << 18

Request = Dict[str, Any]


class FarSide:
    """Answers requests until the connection ends."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO, folder_told: int) -> None:
        self._requests = requests
        self._answers = answers
        self._folder_told = folder_told
        self._writing = threading.Lock()
        self._ending = threading.Lock()
        self._heard = time.monotonic()
        self._silence = SILENCE
        self._folder = ""
        self._over = False
        self._running: Dict[int, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        """Read and answer; does not return."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: self.end(1))
        watch = threading.Thread(target=self._watch)
        watch.daemon = True
        watch.start()
        while True:
            line = self._requests.readline()
            if not line:
                self.end(1)
            self._heard = time.monotonic()
            request = json.loads(line.decode())
            what = getattr(self, "do_" + request["do"])
            try:
                answer = what(request)
            except OSError as error:
                self._say(request, {"failed": _words(error)})
            else:
                if answer is not None:
                    self._say(request, {"done": answer})

    # -- requests ------------------------------------------------------------------------------

    def do_hello(self, request: Request) -> Dict[str, Any]:
        """Make the folder; tell what is here."""
        self._silence = float(request.get("silence", SILENCE))
        parent = request.get("parent") or None
        self._folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        os.write(self._folder_told, self._folder.encode())
        programs: Dict[str, str] = {}
        for name in request.get("programs", []):
            found = shutil.which(name)
            if found:
                programs[os.path.basename(name)] = found
        return {
            "folder": self._folder,
            "python": list(sys.version_info[:3]),
            "interpreter": sys.executable,
            "system": "{} {} {}".format(platform.system(), platform.release(), platform.machine()),
            "free": shutil.disk_usage(self._folder).free,
            "modules": [name for name in request.get("modules", []) if _there(name)],
            "programs": programs,
            "installed": _holds(request.get("files", {})),
        }

    def do_put(self, request: Request) -> Dict[str, Any]:
        """Store the bytes that follow; a full disk must not leave them to be read as requests."""
        left = int(request["bytes"])
        failure: Optional[OSError] = None
        path = self._path(request["name"])
        try:
            if not os.path.isdir(os.path.dirname(path)):
                os.makedirs(os.path.dirname(path))
            with open(path, "wb") as file:
                while left:
                    block = self._read(min(left, CHUNK))
                    left -= len(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            failure = error
        while left:
            left -= len(self._read(min(left, CHUNK)))
        if failure is not None:
            if os.path.exists(path):
                os.unlink(path)
            raise failure
        return {}

    def do_unpack(self, request: Request) -> Dict[str, Any]:
        """Unpack a stored tar archive into the folder and remove it."""
        import tarfile

        path = self._path(request["name"])
        with tarfile.open(path) as archive:
            archive.extractall(self._folder)
        os.unlink(path)
        return {}

    def do_run(self, request: Request) -> None:
        """Start a program; its lines and its end are told as they come.

        ``argv``; ``environment`` is added to ours; ``bytes`` of standard input follow. A word
        ``{folder}`` in either stands for the folder.
        """
        given = self._read(int(request.get("bytes", 0)))
        environment = dict(os.environ, **{MARK: self._folder})
        for key, value in request.get("environment", {}).items():
            environment[key] = value.replace("{folder}", self._folder)
        process = subprocess.Popen(
            [word.replace("{folder}", self._folder) for word in request["argv"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder,
            env=environment,
            start_new_session=True,
        )
        self._running[request["id"]] = process
        thread = threading.Thread(target=self._follow, args=(request, process, given))
        thread.daemon = True
        thread.start()

    def do_get(self, request: Request) -> Dict[str, Any]:
        """A text file of the folder."""
        with open(self._path(request["name"]), encoding="utf-8", errors="replace") as file:
            return {"text": file.read()}

    def do_ping(self, request: Request) -> None:
        """Somebody is still there."""

    def do_bye(self, request: Request) -> None:
        """Clean up; the answer tells that it is done."""
        self._clean()
        self._say(request, {"done": {}})
        self.end(0)

    # -- the end -------------------------------------------------------------------------------

    def end(self, status: int) -> None:
        """Stop everything, remove everything, and leave."""
        if self._ending.acquire(False):
            self._over = True  # that programs end now is no answer to anything
            self._clean()
            os._exit(status)
        time.sleep(2 * GRACE)  # another thread is at it

    def _clean(self) -> None:
        for process in list(self._running.values()):
            _signal_group(process, signal.SIGTERM)
        end = time.monotonic() + GRACE
        while time.monotonic() < end and any(p.poll() is None for p in list(self._running.values())):
            time.sleep(0.02)
        for process in list(self._running.values()):
            _signal_group(process, signal.SIGKILL)
        if self._folder:
            _remove(self._folder)

    def _watch(self) -> None:
        parent = os.getppid()
        while time.monotonic() - self._heard < self._silence and os.getppid() == parent:
            time.sleep(min(1.0, self._silence / 4))
        self.end(1)

    # -- small parts ---------------------------------------------------------------------------

    def _follow(self, request: Request, process: "subprocess.Popen[bytes]", given: bytes) -> None:
        errors = threading.Thread(target=self._lines, args=(request, process.stderr, "err"))
        errors.daemon = True
        errors.start()
        feeder = threading.Thread(target=_feed, args=(process, given, request.get("keep_open", False)))
        feeder.daemon = True
        feeder.start()
        self._lines(request, process.stdout, "out")
        status = process.wait()
        errors.join(GRACE)  # a program that it left behind may hold the pipe open
        del self._running[request["id"]]
        self._say(request, {"done": {"status": status}})

    def _lines(self, request: Request, stream: Any, name: str) -> None:
        for line in iter(stream.readline, b""):
            self._say(request, {name: line.decode("utf-8", "replace").rstrip("\r\n")})

    def _read(self, count: int) -> bytes:
        """Exactly so many bytes of the connection."""
        parts: List[bytes] = []
        while count:
            block = self._requests.read(min(count, CHUNK))
            if not block:
                self.end(1)
            self._heard = time.monotonic()
            parts.append(block)
            count -= len(block)
        return b"".join(parts)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, *name.split("/"))

    def _say(self, request: Request, answer: Dict[str, Any]) -> None:
        if self._over:
            return
        answer["id"] = request["id"]
        line = json.dumps(answer).encode() + b"\n"
        try:
            with self._writing:
                self._answers.write(line)
                self._answers.flush()
        except (OSError, ValueError):
            self.end(1)


def _feed(process: "subprocess.Popen[bytes]", given: bytes, keep_open: bool) -> None:
    """Write a program's standard input; it may end without reading it."""
    if process.stdin is None:
        return
    try:
        process.stdin.write(given)
        process.stdin.flush()
        if not keep_open:
            process.stdin.close()
    except OSError:
        pass


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except OSError:
        pass


def _remove(folder: str) -> None:
    """Kill what was started for a folder, and remove it."""
    for pid in _started_for(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    shutil.rmtree(folder, ignore_errors=True)


def _started_for(folder: str) -> List[int]:
    """Processes, wherever they moved to, that were started for a folder; Linux tells."""
    wanted = "{}={}".format(MARK, folder).encode()
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open("/proc/{}/environ".format(name), "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                pass
    return found


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _holds(files: Dict[str, str]) -> bool:
    """Whether modules are installed byte by byte as they are at the near end.

    ``files``: path, starting with the package's name -> SHA-256.
    """
    roots: Dict[str, str] = {}
    for path, digest in files.items():
        package = path.split("/", 1)[0]
        if package not in roots:
            spec = importlib.util.find_spec(package) if _there(package) else None
            roots[package] = os.path.dirname(os.path.dirname(spec.origin)) if spec and spec.origin else ""
        try:
            with open(os.path.join(roots[package], *path.split("/")), "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != digest:
                    return False
        except OSError:
            return False
    return bool(files)


def _words(error: OSError) -> str:
    if error.errno == errno.ENOSPC or error.errno == errno.EDQUOT:
        return "the disk is full"
    reason = (error.strerror or str(error)).lower()
    return "{}: {}".format(error.filename, reason) if error.filename else reason


def main() -> None:
    """Talk over standard input and output; whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        FarSide(sys.stdin.buffer, answers, writable).serve()
    os.close(writable)
    answers.close()
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os._exit(_outlive(child, readable))


def _outlive(child: int, readable: int) -> int:
    """Wait for the process that serves; remove its folder if it could not, because it was killed."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    folder = b""
    while True:
        block = os.read(readable, CHUNK)
        if not block:
            break
        folder += block
    _, status = os.waitpid(child, 0)
    if folder:
        _remove(folder.decode())
    return 1 if status else 0


if __name__ == "__main__":
    main()
