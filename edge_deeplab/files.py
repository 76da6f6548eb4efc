"""Files that are either whole or not there: everything is written beside its name, then renamed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_deeplab.errors import UserError, because


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it into place when the block succeeds.

    What the block leaves beside it under its name and a further suffix (``x.engine.json`` of
    ``x.engine``) goes where it goes.

    Any failure, a full disk or Ctrl-C included, removes the temporary file and leaves whatever
    was at ``path`` before untouched. Missing parent folders are made; they go again on failure.

    Raises:
        UserError: The folder cannot be written or the disk is full.
    """
    path = Path(path)
    made: list[Path] = []
    temporary: Path | None = None
    try:
        for folder in reversed([p for p in path.absolute().parents if not p.exists()]):
            with suppress(FileExistsError):  # somebody else was faster
                folder.mkdir()
                made.append(folder)
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; give a file name")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes private files; a result should have the permissions any new file gets.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        for companion in _companions(temporary):
            companion.replace(path.with_name(path.name + companion.name.removeprefix(temporary.name)))
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            for file in (*_companions(temporary), temporary):
                file.unlink(missing_ok=True)
        for folder in reversed(made):
            try:
                folder.rmdir()
            except OSError:
                break  # another file has been put there meanwhile
        if isinstance(error, OSError) and not isinstance(error, UserError):
            raise UserError(
                f"cannot write {path}: {because(error)}; choose another place or free it"
            ) from error
        raise


def _companions(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*"))


class _Possible(Exception):
    """Ends a trial before anything takes the place of what is there."""


def check_writable(path: str | Path) -> None:
    """Find out before long work whether its result can be written; nothing is left behind.

    Raises:
        UserError: It cannot, see :func:`whole_file`.
    """
    with suppress(_Possible), whole_file(path):
        raise _Possible


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all."""
    write_bytes(path, text.encode())


def read_bytes(path: str | Path) -> bytes:
    """Read a file.

    Raises:
        UserError: It is missing, a folder, empty or unreadable.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {because(error)}") from error
    if not data:
        raise UserError(f"cannot read {path}: the file is empty (0 bytes)")
    return data


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def cache_folder() -> Path:
    """Where results that can be computed again are kept: ``$EDGE_DEEPLAB_CACHE``, else the user's cache."""
    own = os.environ.get("EDGE_DEEPLAB_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-deeplab"
