"""Both ends of a connection, joined by a pipe instead of a network."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_deeplab.bench import far_side
from edge_deeplab.bench.connection import BOOT, Connection, ConnectionLost, Greeting, Refused

HERE = [sys.executable, "-u", "-c", BOOT]


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def link(there: Path) -> Iterator[Connection]:
    with Connection(HERE) as connection:
        connection.hello(parent=str(there))
        yield connection
    assert not list(there.iterdir())


def test_far_side_is_old_python() -> None:
    """JetPack 4 has Python 3.6."""
    source = Path(far_side.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    assert "annotations" not in source.partition("import errno")[0]


def test_a_clock_that_is_set_ends_nothing(there: Path, tmp_path: Path) -> None:
    """A board without a clock of its own learns the time minutes after it started, and jumps by years."""
    boot = tmp_path / "boot.py"
    boot.write_text(
        "import time\nbegin = time.monotonic()\n"
        "time.time = lambda: 0.0 if time.monotonic() - begin < 0.5 else 1.8e9\n" + BOOT
    )
    with Connection([sys.executable, "-u", str(boot)], silence=8.0) as link:
        link.hello(parent=str(there))
        assert list(link.run(["sh", "-c", "sleep 3; echo still here"])) == ["still here"]


def test_greeting(there: Path) -> None:
    content = Path(far_side.__file__).read_bytes()
    with Connection(HERE) as link:
        found = link.hello(
            parent=str(there),
            modules=["json", "no_such_module"],
            programs=["sh", "no-such-program"],
            files={"edge_deeplab/bench/far_side.py": content},
        )
        assert isinstance(found, Greeting)
        assert Path(found.folder).parent == there
        assert found.python == sys.version_info[:3]
        assert found.modules == ("json",)
        assert list(found.programs) == ["sh"]
        assert found.free > 0
        assert found.installed
    with Connection(HERE) as link:
        other = {"edge_deeplab/bench/far_side.py": content + b"#"}
        assert not link.hello(parent=str(there), files=other).installed


def test_files_and_programs(link: Connection) -> None:
    sent: list[int] = []
    link.put("a/b.bin", bytes(200_000), sent.append)
    assert sent[-1] == 200_000 and sent == sorted(sent)
    errors: list[str] = []
    program = link.run(
        ["sh", "-c", "wc -c < a/b.bin; cat; echo $WHERE; echo no >&2; exit 3"],
        given=b"given\n",
        environment={"WHERE": "{folder}"},
        errors=errors.append,
    )
    lines = list(program)
    assert lines[0].strip() == "200000" and lines[1] == "given" and far_side.PREFIX in lines[2]
    assert (errors, program.status) == (["no"], 3)
    link.put("text", b"as it was")
    assert link.get("text") == "as it was"


def test_refusals_leave_the_connection_whole(link: Connection) -> None:
    with pytest.raises(Refused, match="no such file"):
        link.get("missing")
    with pytest.raises(Refused, match="no such file"):
        list(link.run(["/no/such/program"]))
    link.put("a", b"1")
    with pytest.raises(Refused):
        link.put("a/b", bytes(300_000))  # a file stands where a folder is needed
    assert link.get("a") == "1"


def test_what_runs_is_stopped_in_the_end(there: Path) -> None:
    with Connection(HERE) as link:
        link.hello(parent=str(there))
        # One that ignores a polite request, and one that moved to a session of its own.
        link.run(["sh", "-c", "trap '' TERM; echo $$ > pid; sleep 300"])
        link.run(["sh", "-c", "setsid sh -c 'echo $$ > away; sleep 300' & wait"])
        folder = next(there.iterdir())
        assert eventually(lambda: (folder / "pid").exists() and (folder / "away").exists())
        pids = [int((folder / name).read_text()) for name in ("pid", "away")]
    assert not list(there.iterdir())
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_silence_ends_it(there: Path) -> None:
    """A cable that is pulled: nothing arrives any more, and nothing says so."""
    process = subprocess.Popen(HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    source = Path(far_side.__file__).read_bytes()
    hello = {"do": "hello", "id": 1, "parent": str(there), "silence": 1.0}
    process.stdin.write(b"%d\n%b%b\n" % (len(source), source, json.dumps(hello).encode()))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["done"]["folder"]
    assert len(list(there.iterdir())) == 1
    assert process.wait(timeout=20) == 1
    assert not list(there.iterdir())
    process.stdin.close()
    process.stdout.close()


def test_no_python(there: Path) -> None:
    with Connection(["sh", "-c", "echo sh: nopython: not found >&2; exit 127"]) as link:
        with pytest.raises(ConnectionLost) as caught:
            link.hello(parent=str(there))
        assert (caught.value.status, caught.value.errors) == (127, ["sh: nopython: not found"])


def test_lost_while_a_program_runs(there: Path) -> None:
    with Connection(HERE) as link:
        link.hello(parent=str(there))
        program = link.run(["sh", "-c", "echo first; exec sleep 300"])
        lines = iter(program)
        assert next(lines) == "first"
        link._process.kill()
        with pytest.raises(ConnectionLost):
            next(lines)
    assert eventually(lambda: not list(there.iterdir()))


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
