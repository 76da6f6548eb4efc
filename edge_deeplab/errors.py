"""Errors that are the user's to mend, and the words they are told in."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can put right.

    The message is one line that names the cause and the cure. The command line prints it
    without a traceback and exits with status 2; library users catch it as an ordinary exception.
    """


class MissingExtra(UserError):
    """An optional dependency is not installed."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a failed import into one line with the command that cures it.

    Args:
        extra: The extra of this package that brings the module, as in ``edge-deeplab[onnx]``.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "a module").partition(".")[0]
        raise MissingExtra(f"{module} is not installed; cure: pip install 'edge-deeplab[{extra}]'") from error


def because(error: OSError) -> str:
    """The operating system's reason in words, without Python's errno prefix."""
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    return (error.strerror or str(error)).lower()
