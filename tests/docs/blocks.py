"""The fenced blocks of the documents, and the words above them that say how they are checked.

A block is run as it stands, in a clean install, unless a comment right above it says otherwise::

    <!-- parsed: needs a camera -->       commands are read by the real argument parser, not run
    <!-- slow: converts for minutes -->   the same, but run with ``python -m tests.docs --slow``
    <!-- started: serves until Ctrl-C --> a server: started, used by the commands after it, ended by Ctrl-C
    <!-- not run: needs a Jetson -->      nothing is done with it

``<!-- every block parsed: measures for minutes -->`` anywhere in a document holds for all its blocks of
commands that have no marker of their own. Readers of the page do not see the comments.

Languages: ``sh``, ``python``, ``yaml`` (settings of ``train``), ``json``, ``text`` (layouts, output). A fence
without a language is ``sh`` when its first line is a command, else ``text``. What is in another language
needs ``not run``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

HOW = ("run", "slow", "parsed", "started", "not run")

LANGUAGES = ("sh", "python", "yaml", "json", "text")

OTHER_NAMES = {"bash": "sh", "shell": "sh", "console": "sh", "py": "python", "yml": "yaml", "txt": "text"}

COMMANDS = (
    "edge-deeplab", "pip", "python", "python3", "make", "curl", "ssh", "scp", "adb", "torchrun", "openssl",
    "git", "cd", "cp", "export", "sudo", "apt", "apt-get", "npm", "npx", "docker", "xvfb-run", "g++", "c++",
    "cmake", "taskset", "gst-launch-1.0", "trtexec",
)  # fmt: skip
"""Words that a line of ``sh`` may begin with, and a line of ``text`` may not."""

FENCE = re.compile(
    r"(?:^[ ]*<!--\s*(?P<how>(?!every)[a-z][a-z ]*?)\s*(?::\s*(?P<why>[^>]*?))?\s*-->\s*\n\s*)?"
    r"^(?P<indent>[ ]*)(?P<ticks>```+)[ ]*(?P<language>[\w+-]*)[^\n]*\n(?P<text>.*?)^[ ]*(?P=ticks)[ ]*$",
    re.MULTILINE | re.DOTALL,
)

DEFAULT = re.compile(r"^<!--\s*every block (?P<how>[a-z ]+?):\s*(?P<why>[^>]*?)\s*-->$", re.MULTILINE)


class MarkerError(Exception):
    """A block that nobody can tell how to check."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        path, line: Where it begins.
        language: One of :data:`LANGUAGES`, or another that is not run.
        text: What is between the fences.
        how: One of :data:`HOW`.
        why: The marker's reason.
    """

    path: Path
    line: int
    language: str
    text: str
    how: str = "run"
    why: str = ""

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, joined where they are continued, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def documents() -> list[Path]:
    """Every document with blocks for users."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]


def blocks(path: Path) -> list[Block]:
    """The blocks of a document, in order.

    Raises:
        MarkerError: Unknown marker, no reason, unknown language, commands in a ``text`` block.
    """
    document = path.read_text(encoding="utf-8")
    default = DEFAULT.search(document)
    found = []
    for match in FENCE.finditer(document):
        line = document.count("\n", 0, match.start("ticks")) + 1
        indent = match["indent"]
        text = re.sub(rf"^{indent}", "", match["text"], flags=re.MULTILINE)
        how, why = match["how"] or "run", match["why"] or ""
        language = OTHER_NAMES.get(match["language"], match["language"]) or _guess(text)
        if default and not match["how"] and language == "sh":
            how, why = default["how"], default["why"]
        block = Block(path, line, language, text, how, why)
        _check(block)
        found.append(block)
    if len(re.findall(r"^ *```", document, re.MULTILINE)) != 2 * len(found):
        raise MarkerError(f"{path}: a fence is open")
    return found


def _guess(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    return "sh" if _is_command(first) else "text"


def _is_command(line: str) -> bool:
    words = line.split()
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return bool(words) and words[0] in COMMANDS


def _check(block: Block) -> None:
    if block.how not in HOW:
        raise MarkerError(f"{block}: {block.how!r} is none of {', '.join(HOW)}")
    if block.how != "run" and len(block.why) < 5:
        raise MarkerError(f"{block}: {block.how} needs a reason: <!-- {block.how}: why -->")
    if block.how in ("slow", "parsed", "started") and block.language != "sh":
        raise MarkerError(f"{block}: only commands can be {block.how}, not {block.language}")
    if block.how == "run" and block.language not in LANGUAGES:
        raise MarkerError(f"{block}: {block.language} cannot be run; say why above: <!-- not run: why -->")
    if block.how == "run" and block.language == "text":
        hidden = next((line for line in block.text.splitlines() if _is_command(line)), None)
        if hidden:
            raise MarkerError(f"{block}: a command in a text block: {hidden}; call the block sh")
