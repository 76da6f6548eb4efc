"""The command line. Each ``cmd_NAME.py`` of this folder is a command.

Command modules import nothing heavy at their top, so that ``--help`` answers at once; what a command
needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from edge_deeplab.cli.stopping import Stop, stopped_by_signals
from edge_deeplab.errors import UserError, because
from edge_deeplab.plugins import discover
from edge_deeplab.version import __version__


@dataclass(frozen=True)
class Command:
    """One command: its help line, what adds its arguments, and what runs it and returns the exit status."""

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse a misspelt option before argparse misses what it would have been."""
        if self._subparsers is None and args is not None:  # of nested parsers the innermost
            self._check_names(args)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_names(self, words: Sequence[str]) -> None:
        for word in itertools.takewhile(lambda word: word != "--", words):
            name = word.partition("=")[0]
            # argparse takes a word with a space for a value.
            if name.startswith("--") and " " not in word and name not in self._option_string_actions:
                near = difflib.get_close_matches(name, self._option_string_actions, 1)
                self.error(f"there is no option {name}{f'; did you mean {near[0]}?' if near else ''}")

    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage block."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="edge-deeplab",
        description="DeepLabv3+ MobileNetV2 for edge devices: train, export, run, measure.",
    )
    top.add_argument("--version", action="version", version=f"edge-deeplab {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, command in discover("edge_deeplab.cli", "cmd_", "COMMAND").items():
        sub = commands.add_parser(name, help=command.help, description=command.help)
        command.arguments(sub)
        sub.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0 done, 1 a check failed, 2 the user can mend it; 130, 143 or 129 stopped by Ctrl-C,
        SIGTERM or SIGHUP.
    """
    args = parser().parse_args(argv)
    stop = Stop()
    try:
        with stopped_by_signals(stop):
            status: int = args.run(args)
            sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): not an error.
        _forget_what_cannot_be_written()
        return 0
    except OSError as error:
        _forget_what_cannot_be_written()
        return _fail(f"{error.filename or 'cannot write the output'}: {because(error)}")
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be what went away
            print("stopped", file=sys.stderr)
        _forget_what_cannot_be_written()
        return stop.status


def _forget_what_cannot_be_written() -> None:
    """Python flushes its streams once more when it ends, and would fail again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(message: str) -> int:
    print("edge-deeplab: " + " ".join(message.split()), file=sys.stderr)
    return 2
