"""Tell options that were typed from those left at their default, which argparse alone cannot."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Left:
    """What options are when they are not typed.

    Attributes:
        defaults: By their place in the namespace (``max_drop``).
        flags: Place -> as typed (``--max-drop``).
    """

    defaults: dict[str, Any]
    flags: dict[str, str]

    def settle(self, args: argparse.Namespace) -> dict[str, str]:
        """Fill in the defaults; return what was typed: place -> flag, in the order of ``--help``."""
        typed = {place: flag for place, flag in self.flags.items() if hasattr(args, place)}
        for place, value in self.defaults.items():
            if place not in typed:
                setattr(args, place, value)
        return typed


def leave_out(parser: argparse.ArgumentParser) -> Left:
    """Have ``parser`` leave out of the namespace what is not typed.

    Call it when all options have been added, and :meth:`Left.settle` before the arguments are used.
    """
    options = [action for action in parser._actions if action.default is not argparse.SUPPRESS]
    options = [action for action in options if action.option_strings]
    left = Left(
        {action.dest: action.default for action in options},
        {action.dest: action.option_strings[-1] for action in options},
    )
    for action in options:
        action.default = argparse.SUPPRESS
    return left
