"""Files are whole or not there, whatever goes wrong while they are written."""

from __future__ import annotations

import hashlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_deeplab.errors import UserError
from edge_deeplab.files import check_writable, read_bytes, sha256, whole_file, write_bytes, write_text


def everything_under(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))
    }


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere; the test of a forbidden folder needs somebody else."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that everybody may enter (pytest's own are private)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# -- success -------------------------------------------------------------------------------------


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "result.png"
    with whole_file(path) as temporary:
        assert temporary.parent == tmp_path  # the same file system, or the rename would not be atomic
        assert temporary.suffix == ".png"  # writers that look at the suffix must see the right one
        temporary.write_bytes(b"half")
        assert not path.exists()
        temporary.write_bytes(b"whole")
    assert everything_under(tmp_path) == {"result.png": b"whole"}


def test_an_old_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")
    with path.open("rb") as reader:  # who has the old file open keeps reading the old file
        with whole_file(path) as temporary:
            temporary.write_bytes(b"new")
            assert path.read_bytes() == b"old"
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_companions_go_where_the_file_goes(tmp_path: Path) -> None:
    (tmp_path / "x.engine.json").write_bytes(b"old")
    with whole_file(tmp_path / "x.engine") as temporary:
        temporary.write_bytes(b"engine")
        write_text(f"{temporary}.json", "record")
        assert (tmp_path / "x.engine.json").read_bytes() == b"old"
    assert everything_under(tmp_path) == {"x.engine": b"engine", "x.engine.json": b"record"}


def test_companions_go_with_a_file_that_failed(tmp_path: Path) -> None:
    (tmp_path / "x.engine.json").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "x.engine") as temporary:
        temporary.write_bytes(b"engine")
        write_text(f"{temporary}.json", "record")
        raise KeyboardInterrupt
    assert everything_under(tmp_path) == {"x.engine.json": b"old"}


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "größer\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "größer\n".encode()


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bytes("plain", b"1")
    write_bytes("new/folder/file", b"2")
    assert everything_under(tmp_path) == {
        "plain": b"1",
        "new": None,
        "new/folder": None,
        "new/folder/file": b"2",
    }


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "file", b"x")
        assert os.umask(mask) == mask  # and the process's mask is what it was
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


# -- failure -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3), UserError("own words")]
)
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failure_inside_leaves_everything_as_it_was(
    tmp_path: Path, error: BaseException, old: bytes | None
) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    before = everything_under(tmp_path)
    with pytest.raises(type(error)) as caught, whole_file(path) as temporary:
        temporary.write_bytes(b"half of the new con")
        raise error
    assert caught.value is error
    assert everything_under(tmp_path) == before


def test_a_real_ctrl_c_inside_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        signal.raise_signal(signal.SIGINT)
    assert everything_under(tmp_path) == {"file": b"old"}


def test_made_folders_go_again(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "there" / "a" / "b" / "file"):
        assert (tmp_path / "there" / "a" / "b").is_dir()
        raise ZeroDivisionError
    assert everything_under(tmp_path) == {"there": None}


def test_made_folders_stay_when_others_use_them(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a" / "b" / "file"):
        (tmp_path / "a" / "other").write_bytes(b"mine")
        raise ZeroDivisionError
    assert everything_under(tmp_path) == {"a": None, "a/other": b"mine"}


def test_a_writer_that_deletes_the_temporary_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match="cannot write"), whole_file(path) as temporary:
        temporary.unlink()
    assert everything_under(tmp_path) == {"file": b"old"}


def test_a_forbidden_folder(open_folder: Path) -> None:
    (open_folder / "locked").mkdir(mode=0o555)
    for path in (open_folder / "locked" / "file", open_folder / "locked" / "new" / "file"):
        with (
            as_nobody(),
            pytest.raises(UserError, match=r"cannot write .*file: permission denied; choose another"),
        ):
            write_bytes(path, b"x")
    assert everything_under(open_folder) == {"locked": None}


def test_a_folder_that_may_not_even_be_entered(open_folder: Path) -> None:
    (open_folder / "secret").mkdir(mode=0o700)
    if os.geteuid():
        (open_folder / "secret").chmod(0)
    try:
        with as_nobody(), pytest.raises(UserError, match=r"permission denied"):
            write_bytes(open_folder / "secret" / "deep" / "file", b"x")
    finally:
        (open_folder / "secret").chmod(0o700)


def test_the_target_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*folder: it is a folder; give a file name"):
        write_bytes(tmp_path / "folder", b"x")
    assert everything_under(tmp_path) == {"folder": None}


def test_a_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(UserError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below", b"x")
    assert everything_under(tmp_path) == {"file": b"old"}


FullDisk = Callable[[int], AbstractContextManager[None]]


def test_no_room_for_the_new_file(tmp_path: Path, full_disk: FullDisk) -> None:
    path = tmp_path / "new" / "file"
    with full_disk(1000), pytest.raises(UserError, match=r"cannot write .*file too large"):
        write_bytes(path, b"x" * 5000)
    assert everything_under(tmp_path) == {}
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with full_disk(1000), pytest.raises(UserError, match=r"cannot write .*file too large"):
        write_bytes(path, b"x" * 5000)
    assert everything_under(tmp_path) == {"file": b"old"}


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs /dev/full, Linux's disk that is always full"
)
def test_a_full_disk_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with (
        pytest.raises(
            UserError, match=r"^cannot write .*file: the disk is full; choose another place or free it$"
        ),
        whole_file(path) as temporary,
    ):
        temporary.write_bytes(b"half")
        Path("/dev/full").write_bytes(b"the other half")
    assert everything_under(tmp_path) == {"file": b"old"}


def test_the_longest_name_a_file_system_takes(tmp_path: Path) -> None:
    name = "n" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) + ".png"
    write_bytes(tmp_path / name, b"x")
    assert everything_under(tmp_path) == {name: b"x"}


# -- reading -------------------------------------------------------------------------------------


def test_read_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert read_bytes(tmp_path / "file") == b"abc"
    assert sha256(str(tmp_path / "file")) == hashlib.sha256(b"abc").hexdigest()


def test_read_errors(tmp_path: Path, open_folder: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "file").write_bytes(b"x")
    for name, reason in (
        ("missing", "no such file or directory"),
        (".", "is a directory"),
        ("empty", r"the file is empty \(0 bytes\)"),
        ("file/below", "not a directory"),
    ):
        with pytest.raises(UserError, match=f"cannot read .*: {reason}"):
            read_bytes(tmp_path / name)
    (open_folder / "secret").write_bytes(b"x")
    (open_folder / "secret").chmod(0)
    with as_nobody(), pytest.raises(UserError, match="permission denied"):
        read_bytes(open_folder / "secret")


def test_two_processes_may_make_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody makes the folder between the look and the making."""
    made = Path.mkdir

    def second(self: Path, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        made(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", second)
    write_text(tmp_path / "a" / "b" / "x.txt", "whole")
    assert (tmp_path / "a" / "b" / "x.txt").read_text() == "whole"


def test_a_trial_leaves_nothing_and_touches_nothing(tmp_path: Path) -> None:
    there = tmp_path / "there.txt"
    there.write_text("old")
    check_writable(there)
    check_writable(tmp_path / "new" / "deep" / "x.png")
    assert [p.name for p in tmp_path.iterdir()] == ["there.txt"]
    assert there.read_text() == "old"
    with pytest.raises(UserError, match="it is a folder"):
        check_writable(tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        check_writable(there / "x.png")
