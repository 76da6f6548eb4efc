"""Run, start or parse the blocks of one document in a clean install."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.install import Install

PLACEHOLDERS = {"MODEL": "portrait", "CHECKPOINT": "best.safetensors", "SPEC": "folder:data/mine"}
"""Words that stand for the reader's own."""

PARSE = """
import contextlib, io, json, sys
from edge_deeplab.cli import parser
from edge_deeplab.cli.cmd_export import complete
from edge_deeplab.errors import UserError
problems = []
for words in json.load(sys.stdin):
    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
            args = parser().parse_args(words)
            if args.command == "export":
                complete(args)
    except UserError as error:
        problems.append(" ".join(words) + ": " + str(error))
    except SystemExit as stop:
        if stop.code:
            problems.append(" ".join(words) + ": " + text.getvalue().strip())
print(json.dumps(problems))
"""

SETTINGS = """
import sys
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.config_file import read_config
TrainConfig(**read_config(sys.argv[1])).check()
"""


class Broken(Exception):
    """What a reader would run into."""


class Absent(Exception):
    """A program that is no part of the project, such as curl, is not installed here."""


@dataclass(frozen=True)
class Outcome:
    """What became of a block.

    Attributes:
        block: Says how it was checked.
        seconds: What that took.
        problem: What is wrong with it, if anything.
        absent: A program that would have been needed, where it is not installed.
    """

    block: Block
    seconds: float
    problem: str = ""
    absent: str = ""


def check(
    path: Path, made: Install, *, slow: bool = False, say: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """All blocks of a document, in order, in one folder: later ones may use what earlier ones wrote.

    Args:
        path: The document.
        made: Where it is run.
        slow: Run slow blocks too.
        say: Told every outcome at once.
    """
    relative = path.relative_to(ROOT)
    work = made.work_folder(str(relative).replace("/", "-"))
    outcomes = []
    for block in blocks(path):
        if slow and block.how == "slow":
            block = replace(block, how="run")
        begin = time.monotonic()
        problem = absent = ""
        try:
            check_block(block, made, _folder(block, made, work))
        except Broken as error:
            problem = f"{block} ({block.how}): {error}"
        except Absent as error:
            absent = str(error)
        outcomes.append(Outcome(block, time.monotonic() - begin, problem, absent))
        say(outcomes[-1])
    return outcomes


def check_block(block: Block, made: Install, folder: Path) -> None:
    """Do with a block what its marker says.

    Raises:
        Broken: A reader who copies it would be stuck.
        Absent: curl, for example, is not installed here.
    """
    if block.language == "sh" and block.how in ("run", "started"):
        for program in {command.split()[0] for command in block.commands} & {"curl", "openssl"}:
            if shutil.which(program) is None:
                raise Absent(f"{program} is not installed here")
    if block.how != "not run":
        CHECKS[block.how, block.language](block, made, folder)
        _check_extras(block, made)


def _folder(block: Block, made: Install, work: Path) -> Path:
    """README speaks to people with a checkout, the documents to people who installed the package.

    One of these needs the checkout too where it has ``make``, ``benchmarks/`` or ``pip install '.[NAME]'``.
    """
    if block.path.name == "README.md" or re.search(r"\b(make|benchmarks/)|'\.\[", block.text):
        return made.checkout
    return work


def _filled(text: str) -> str:
    for word, value in PLACEHOLDERS.items():
        text = re.sub(rf"(?<![\w-]){word}(?![\w-])", value, text)
    return text


def _check_extras(block: Block, made: Install) -> None:
    """pip says nothing about an extra that does not exist when the package is there already."""
    (metadata,) = made.folder.glob("venv/lib/python*/site-packages/edge_deeplab-*.dist-info/METADATA")
    known = re.findall(r"^Provides-Extra: (\S+)", metadata.read_text(encoding="utf-8"), re.MULTILINE)
    for named in re.findall(r"(?:edge-deeplab|'\.)\[([\w,-]+)\]", block.text):
        if unknown := set(named.split(",")) - set(known):
            raise Broken(f"there is no extra {', '.join(sorted(unknown))}")


# -- run -------------------------------------------------------------------------------------------


def _run_shell(block: Block, made: Install, folder: Path) -> None:
    _call(["bash", "-euo", "pipefail", "-c", _filled(block.text)], made, folder)


def _run_python(block: Block, made: Install, folder: Path) -> None:
    script = made.folder / "work" / f"{block.path.stem}-{block.line}.py"
    script.write_text(_filled(block.text), encoding="utf-8")
    _call([str(made.bin / "python"), "-W", "error", str(script)], made, folder)


def _run_yaml(block: Block, made: Install, folder: Path) -> None:
    file = folder / f"settings-{block.line}.yaml"
    file.write_text(block.text, encoding="utf-8")
    _call([str(made.bin / "python"), "-c", SETTINGS, str(file)], made, folder)


def _run_json(block: Block, *_: object) -> None:
    try:
        json.loads(block.text)
    except ValueError as error:
        raise Broken(f"no JSON: {error}") from error


def _nothing(*_: object) -> None:
    """Text has nothing to run; that it holds no commands was looked at before."""


def _call(command: list[str], made: Install, folder: Path, *, given: str = "") -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=made.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=made.patience,
        )
    except subprocess.TimeoutExpired as error:
        raise Broken(f"not done after {made.patience:.0f} s") from error
    if done.returncode:
        raise Broken(f"exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


# -- parsed ----------------------------------------------------------------------------------------


def _parse(block: Block, made: Install, folder: Path) -> None:
    ours: list[list[str]] = []
    for command in block.commands:
        words = [w for w in shlex.split(_filled(command), comments=True) if w not in ("...", "…")]
        if words[:2] == ["pip", "install"]:
            if re.match(r"edge-deeplab|\.\[", words[-1]):  # other packages are not ours to check
                _call(["bash", "-c", command], made, folder)
        elif "edge-deeplab" in words:  # by itself, or after "ssh jetson" and the like
            ours.append(words[words.index("edge-deeplab") + 1 :])
        elif "edge_deeplab" in words and words[words.index("edge_deeplab") - 1] == "-m":
            ours.append(words[words.index("edge_deeplab") + 1 :])
        elif words[0] in ("python", "python3"):
            _options_exist(words, made, folder)
        else:
            raise Broken(f"cannot be parsed, only run: {command}")
    wrong = json.loads(_call([str(made.bin / "python"), "-c", PARSE], made, folder, given=json.dumps(ours)))
    if wrong:
        raise Broken("\n".join(wrong))


def _options_exist(words: list[str], made: Install, folder: Path) -> None:
    """A script of ours: it starts, and its help knows every option of the line."""
    script = words[1:3] if words[1] == "-m" else words[1:2]
    told = _help(made, folder, *script)
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", told):
            raise Broken(f"{' '.join(script)} has no option {option}")


@cache
def _help(made: Install, folder: Path, *script: str) -> str:
    return _call([str(made.bin / "python"), *script, "--help"], made, folder)


# -- started ---------------------------------------------------------------------------------------


def _start(block: Block, made: Install, folder: Path) -> None:
    """Commands in order; one that prints an address and goes on is a server, and ended at the end."""
    with _servers() as servers:
        for number, command in enumerate(block.commands):
            log = made.folder / "work" / f"{block.path.stem}-{block.line}-{number}.log"
            if _serves(process := _begin(command, made, folder, log), command, log, made.patience):
                servers.append((command, process, log))
        if not servers:
            raise Broken("nothing in it serves; take the marker away")


Process = subprocess.Popen[bytes]


def _begin(command: str, made: Install, folder: Path, log: Path) -> Process:
    with log.open("wb") as output:
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", _filled(command)],
            cwd=folder,
            env=made.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _serves(process: Process, command: str, log: Path, patience: float) -> bool:
    """Wait until it has ended well, or prints an address and is still there."""
    deadline = time.monotonic() + patience
    while process.poll() is None:
        if not command.startswith("curl") and re.search(rb"https?://\S+", log.read_bytes()):
            return True
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise Broken(f"not done after {patience:.0f} s: {command}")
        time.sleep(0.05)
    if process.returncode:
        raise Broken(f"exit status {process.returncode}: {command}\n{log.read_text()[-3000:]}")
    return False


@contextmanager
def _servers() -> Iterator[list[tuple[str, Process, Path]]]:
    """Ctrl-C for all at the end; they must end cleanly."""
    running: list[tuple[str, Process, Path]] = []
    try:
        yield running
        for command, process, log in running:
            if process.poll() is not None:
                raise Broken(f"ended by itself: {command}\n{log.read_text()[-3000:]}")
            os.killpg(process.pid, signal.SIGINT)
            status = process.wait(timeout=30)
            if status not in (0, 130) or "Traceback" in log.read_text():
                raise Broken(f"Ctrl-C gave status {status}: {command}\n{log.read_text()[-3000:]}")
    finally:
        for _, process, _ in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


CHECKS: dict[tuple[str, str], Callable[[Block, Install, Path], None]] = {
    ("run", "sh"): _run_shell,
    ("run", "python"): _run_python,
    ("run", "yaml"): _run_yaml,
    ("run", "json"): _run_json,
    ("run", "text"): _nothing,
    ("parsed", "sh"): _parse,
    ("slow", "sh"): _parse,
    ("started", "sh"): _start,
}
