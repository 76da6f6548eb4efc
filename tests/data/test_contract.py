"""What every data kind must do. Each brings a small data set: ``build`` in its ``test_kind_NAME.py``."""

from __future__ import annotations

import dataclasses
import importlib.util
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.data import Split, kinds, open_split
from edge_deeplab.data.base import SizeMismatch
from edge_deeplab.errors import UserError
from edge_deeplab.metrics import IGNORE

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "data.md"
KINDS = kinds()
SPLITS = [(name, split) for name, kind in KINDS.items() for split in kind.splits]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, make: Any) -> Any:
    """``built(kind)``: the spec of its data set; made once, to be left as it is."""
    roots: dict[str, str] = {}

    def build(kind: str) -> str:
        if kind not in roots:
            roots[kind] = fresh(kind, tmp_path_factory.mktemp(kind), make)
        return roots[kind]

    return build


def fresh(kind: str, folder: Path, make: Any) -> str:
    """Build the data set of a kind in ``folder`` and return its spec."""
    source = HERE / f"test_kind_{kind.replace('-', '_')}.py"
    assert source.is_file(), f"{kind} needs {source.name} with build(root, make)"
    module_spec = importlib.util.spec_from_file_location(f"build_{source.stem}", source)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return f"{kind}:{module.build(folder, make)}"


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_it_is(kind: str) -> None:
    assert {"train", "val"} <= set(KINDS[kind].splits)
    for line in (KINDS[kind].help, KINDS[kind].license):
        assert line and "\n" not in line
    section = re.search(rf"^## `{kind}`\n(.*?)(?=^## |\Z)", DOCS.read_text(), re.M | re.S)
    assert section, f"docs/data.md has no section on {kind}"
    assert "```" in section[1], "no tree of folders"
    assert "Licence" in section[1] or kind == "folder"


@pytest.mark.parametrize(("kind", "name"), SPLITS)
def test_every_split_reads(built: Any, kind: str, name: str) -> None:
    split = open_split(built(kind), name)
    assert isinstance(split, Split)
    assert split.name.endswith(f"/{name}") or split.name.endswith("/trainaug")
    assert split.pairs == open_split(built(kind), name).pairs
    occurring: set[int] = set()
    for index in range(len(split)):
        image, labels = split.read(index)
        assert image.dtype == labels.dtype == np.uint8
        assert image.shape == (*labels.shape, 3)
        occurring |= {int(value) for value in np.unique(labels)}
    assert occurring <= {*range(len(split.classes)), IGNORE}
    assert len(occurring - {IGNORE}) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_its_classes(built: Any, kind: str) -> None:
    classes = open_split(built(kind), "train").classes
    assert classes == open_split(built(kind), "val").classes
    assert 2 <= len(classes) <= 255
    assert len({info.name for info in classes}) == len(classes)
    assert all(len(info.color) == 3 and 0 <= min(info.color) <= max(info.color) <= 255 for info in classes)


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_val_share_no_photo(built: Any, kind: str) -> None:
    train, val = ({pair.image for pair in open_split(built(kind), name).pairs} for name in ("train", "val"))
    assert not train & val


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_can_be_sent_to_another_process_and_cut(built: Any, kind: str) -> None:
    split = open_split(built(kind), "val")
    sent = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(sent.read(0)[1], split.read(0)[1])
    last = dataclasses.replace(split, pairs=split.pairs[-1:])
    np.testing.assert_array_equal(last.read(0)[1], split.read(len(split) - 1)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_split(built: Any, kind: str) -> None:
    with pytest.raises(UserError, match=f"there is no split 'dev'; {kind} has train, val"):
        open_split(built(kind), "dev")


@pytest.mark.parametrize("what", ["nothing", "empty", "other", "file"])
@pytest.mark.parametrize("kind", KINDS)
def test_another_folder(tmp_path: Path, kind: str, what: str) -> None:
    path = tmp_path / "wrong"
    if what == "file":
        path.write_text("no folder")
    elif what != "nothing":
        path.mkdir()
    if what == "other":
        (path / "some" / "thing").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        open_split(f"{kind}:{path}", "train")
    message = str(caught.value)
    assert str(path) in message, "where"
    assert "\n" not in message
    assert re.search("has no |has neither |cannot read ", message), "what is wrong"
    assert "give the folder" in message or "give SegNet" in message or "data set is PATH/" in message, "cure"
    if what == "other":
        assert "some/" in message, "what was found"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_names_the_photo(tmp_path: Path, make: Any, kind: str) -> None:
    split = open_split(fresh(kind, tmp_path, make), "val")
    photo = split.pairs[0].image
    photo.write_bytes(photo.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"{re.escape(str(photo))}: the file is cut short"):
        split.read(0)
    make.photo(photo, (30, 40))
    with pytest.raises(SizeMismatch, match=f"{re.escape(str(photo))} is 40x30, .* is 64x48"):
        split.read(0)
    make.photo(photo, (64, 48))
    with pytest.raises(SizeMismatch, match="EXIF"):
        split.read(0)
    photo.unlink()
    with pytest.raises(UserError, match=f"cannot read {re.escape(str(photo))}: no such file"):
        split.read(0)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_names_the_labels(tmp_path: Path, make: Any, kind: str) -> None:
    split = open_split(fresh(kind, tmp_path, make), "val")
    labels = split.pairs[0].mask
    if kind == "coco-person":
        pytest.skip("its labels are read when the split is opened")
    labels.write_bytes(labels.read_bytes()[:-30])
    with pytest.raises(UserError, match=re.escape(str(labels))) as caught:
        split.read(0)
    assert "\n" not in str(caught.value)
    labels.write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(str(labels))):
        split.read(0)


def test_the_kind_that_the_docs_show(tmp_path: Path, make: Any) -> None:
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    assert code
    shown: dict[str, Any] = {}
    exec(compile(code[1], "docs/data.md", "exec"), shown)
    make.photo(tmp_path / "val" / "photos" / "a.jpg")
    make.gray(tmp_path / "val" / "labels" / "a.png", make.ids(10, 30, 99))
    split = shown["KIND"].open(tmp_path, "val")
    np.testing.assert_array_equal(split.read(0)[1], make.ids(0, 2, 255))
