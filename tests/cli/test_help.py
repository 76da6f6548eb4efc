"""``--help`` answers at once: it imports nothing heavy. And every command is explained."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edge_deeplab.cli import Command, main, parser
from edge_deeplab.plugins import discover
from edge_deeplab.version import __version__

COMMANDS: dict[str, Command] = discover("edge_deeplab.cli", "cmd_", "COMMAND")
HEAVY = {"numpy", "cv2", "torch", "onnxruntime", "onnx", "safetensors", "tqdm", "asyncio", "unittest"}

SCRIPT = """
import sys
from edge_deeplab.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    print(f"\\nstatus {stop.code}")
print("modules", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["predict", "--help"], ["predict"], ["x"]])
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    *_, status, modules = done.stdout.splitlines()
    assert status == f"status {0 if arguments[0].startswith('--') or len(arguments) > 1 else 2}"
    assert HEAVY.isdisjoint(modules.split())
    assert "edge_deeplab" in modules.split()


def test_python_dash_m(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_deeplab", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=str(tmp_path),
    )
    assert done.stdout.startswith("usage: edge-deeplab")
    assert done.stderr == ""
    for name in COMMANDS:
        assert f"    {name} " in done.stdout


def test_the_commands_are_those_promised() -> None:
    assert {"train", "export", "predict", "eval", "info", "models", "doctor"} <= set(COMMANDS)


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command, and every action of a command that has some, by what is typed."""

    def below(name: str, own: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        yield name, own
        for action in own._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, sub in action.choices.items():
                    yield from below(f"{name} {word}".strip(), sub)

    found = dict(below("", parser()))
    del found[""]
    return found


@pytest.mark.parametrize("name", parsers())
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: edge-deeplab {name}")
    own = parsers()[name]
    assert own.description
    assert own.description[0].islower()
    assert not own.description.endswith(".")
    for action in own._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action.dest
        for flag in action.option_strings:
            assert flag in shown


@pytest.mark.parametrize("name", parsers())
def test_help_is_written_for_people_and_any_terminal(name: str) -> None:
    text = parsers()[name].format_help()
    assert text.isascii()  # argparse writes it in the terminal's encoding, whatever that is
    for wrong in ("None", "True", "False", "default: )", "[]", "{}"):
        assert wrong not in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"edge-deeplab {__version__}\n"
