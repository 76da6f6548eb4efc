"""``data check`` and ``data kinds``: what they find and what they print."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.cli import main
from edge_deeplab.data import Split, check, kinds, open_split
from edge_deeplab.data.check import NEAR, check_split, duplicates, perceptual_hash
from edge_deeplab.data.sheet import contact_sheet, tinted
from edge_deeplab.errors import UserError
from edge_deeplab.spec import PERSON_CLASSES, ClassInfo

NAMES = ("rock", "cat", "dog")


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    """Three classes, four pictures to train, three to validate."""
    root = tmp_path / "pets"
    make.text(root / "classes.txt", "\n".join(NAMES))
    for split, count in (("train", 4), ("val", 3)):
        for index in range(count):
            make.photo(root / split / "images" / f"{split}{index}.jpg")
            make.gray(root / split / "masks" / f"{split}{index}.png", make.ids(0, 1, 1, 255))
    return root


def summary(root: Path, split: str = "val", workers: int = 1) -> check.Summary:
    return check_split(open_split(f"folder:{root}", split), workers=workers)


def loaded(path: Path) -> Any:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def distance(a: Any, b: Any, mirrored: int = 0) -> int:
    first, second = perceptual_hash(a), perceptual_hash(b)
    assert first is not None and second is not None
    return int(np.unpackbits(first[0] ^ second[mirrored]).sum())


# -- counting --------------------------------------------------------------------------------------


def test_counts(root: Path, make: Any) -> None:
    make.gray(root / "val" / "masks" / "val0.png", make.ids(255))
    make.gray(root / "val" / "masks" / "val1.png", make.ids(0, 2))
    found = summary(root)
    assert not found.problems
    quarter, half = 48 * 16, 48 * 32
    assert found.pixels[:3].tolist() == [half + quarter, half, half]
    assert found.pixels[255] == 48 * 64 + quarter
    assert found.pictures[:3].tolist() == [2, 1, 1]
    assert found.unlabelled == 1
    assert found.sizes == {(64, 48): 3}
    assert found.as_record()["classes"]["cat"] == {"pixels": half, "pictures": 1}


def test_workers_find_the_same(root: Path, make: Any) -> None:
    make.gray(root / "val" / "masks" / "val1.png", make.ids(3))
    one, two = summary(root), summary(root, workers=2)
    assert one.as_record() == two.as_record()
    assert one.hashes.keys() == two.hashes.keys() == {0, 2}
    for index, hashes in one.hashes.items():
        np.testing.assert_array_equal(hashes, two.hashes[index])


def test_progress_is_told_the_total(root: Path) -> None:
    seen: list[Any] = []

    def progress(items: Any, *, total: int) -> Iterator[Any]:
        seen.append(total)
        yield from items

    check_split(open_split(f"folder:{root}", "val"), progress=progress)
    assert seen == [3]


def test_a_worker_that_dies(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def map(self, *_: Any, **__: Any) -> Iterator[Any]:
            raise BrokenProcessPool
            yield

        def shutdown(self, **_: Any) -> None: ...

    monkeypatch.setattr(check, "ProcessPoolExecutor", Pool)
    with pytest.raises(UserError, match=r"a process that read pets/val died, .*; try --workers 1"):
        summary(root, workers=2)


# -- what is wrong -----------------------------------------------------------------------------------


def test_problems_are_told_apart(root: Path, make: Any) -> None:
    photo = root / "val" / "images" / "val0.jpg"
    photo.write_bytes(photo.read_bytes()[:-30])
    make.gray(root / "val" / "masks" / "val1.png", np.zeros((20, 20)))
    make.gray(root / "val" / "masks" / "val2.png", make.ids(0, 3))
    found = summary(root)
    assert [problem.what for problem in found.problems] == ["unreadable", "size", "id"]
    assert [f"val{k}" in problem.message for k, problem in enumerate(found.problems)] == [True] * 3
    assert not found.pixels.any()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: image, id="the same"),
        pytest.param(lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [1, 40])[1], 1), id="jpeg 40"),
        pytest.param(lambda image: cv2.resize(image, None, fx=0.5, fy=0.5), id="half size"),
        pytest.param(lambda image: cv2.convertScaleAbs(image, alpha=0.9, beta=12), id="brighter"),
        pytest.param(lambda image: image[4:-4, 4:-4], id="cropped"),
    ],
)
def test_hashes_of_copies_are_near(tmp_path: Path, make: Any, change: Any) -> None:
    path = make.photo(tmp_path / "photo.png", (300, 400))
    image = cv2.GaussianBlur(loaded(path), (0, 0), 3)
    assert distance(image, change(image)) <= NEAR
    assert distance(np.ascontiguousarray(image[:, ::-1]), change(image), mirrored=1) <= NEAR


def test_hashes_of_other_photos_are_far(tmp_path: Path, make: Any) -> None:
    images = [loaded(make.photo(tmp_path / f"{k}.png")) for k in range(8)]
    for k, image in enumerate(images):
        for other in images[:k]:
            for mirrored in (0, 1):
                assert distance(image, other, mirrored) > NEAR


def test_blank_photos_have_no_hash() -> None:
    assert perceptual_hash(np.full((40, 50, 3), 128, np.uint8)) is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_duplicates_between_splits(root: Path, make: Any, mirrored: bool) -> None:
    image = loaded(root / "train" / "images" / "train2.jpg")
    make.gray(root / "val" / "images" / "val1.jpg", image[:, ::-1] if mirrored else image)
    found = duplicates(summary(root, "val"), summary(root, "train"))
    assert len(found) == 1
    message = found[0].message
    assert "val1.jpg of pets/val looks like" in message
    assert "train2.jpg of pets/train" in message
    assert ("mirrored" in message) == mirrored


def test_no_duplicates_without_photos(root: Path) -> None:
    empty = check.Summary(open_split(f"folder:{root}", "val"))
    assert duplicates(empty, summary(root, "train")) == duplicates(summary(root), empty) == []


# -- the sheet ---------------------------------------------------------------------------------------


def test_contact_sheet(root: Path) -> None:
    split = open_split(f"folder:{root}", "val")
    sheet = contact_sheet(split)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
    many = dataclasses.replace(split, pairs=split.pairs * 30)
    assert contact_sheet(many, 8).shape[0] > contact_sheet(many, 4).shape[0]


def test_a_sheet_of_nothing_readable(root: Path) -> None:
    for file in (root / "val" / "images").iterdir():
        file.write_bytes(b"x")
    assert contact_sheet(open_split(f"folder:{root}", "val")).size


def test_tints() -> None:
    image = np.full((40, 60, 3), 90, np.uint8)
    labels = np.repeat(np.repeat([0, 1, 255], 20)[None], 40, axis=0).astype(np.uint8)
    people = tinted(image, labels, PERSON_CLASSES)
    assert (people[20, 10] == 90).all(), "background stays clear"
    assert (people[20, 30] != 90).any()
    assert (people[20, 50] == 30).all(), "what counts nowhere goes dark"
    scene = tinted(image, labels, (ClassInfo("road", (255, 0, 0)), ClassInfo("sky", (0, 0, 255))))
    assert scene[20, 10, 2] > 90, "a class 0 that is no background is tinted"
    assert scene[20, 30, 0] > 90
    assert (scene[20, 50] == 30).all()


# -- the command -------------------------------------------------------------------------------------


def run(root: Path, *options: str) -> int:
    return main(["data", "check", f"folder:{root}", "--workers", "1", *options])


def test_a_sound_data_set(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == 0
    printed = capsys.readouterr().out
    assert "pets/train: 4 pairs, 4 sound, 64x48" in printed
    assert "pets/val: 3 pairs, 3 sound, 64x48" in printed
    assert "note: no pixel of dog" in printed
    cat = next(line for line in printed.splitlines() if " cat " in line)
    assert cat.split() == ["1", "cat", "6,144", "66.67%", "4", "4,608", "66.67%", "3"]
    assert printed.endswith("no problems found\n")
    assert max(len(line) for line in printed.splitlines()) <= 100


def test_what_is_missing_is_listed_and_the_rest_is_checked(
    root: Path, make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training would stop at the first; whoever asks what is wrong is told all of it."""
    for name in ("val0", "val2"):
        (root / "val" / "masks" / f"{name}.png").unlink()
    (root / "train" / "images" / "train1.jpg").unlink()
    (root / "val" / "masks" / "val1.png").write_text("no picture")
    make.photo(root / "val" / "images" / "val3.jpg")
    make.gray(root / "val" / "masks" / "val3.png", make.ids(0, 1))
    with pytest.raises(UserError, match=r"val0.jpg has no mask of the same name \(2 such"):
        open_split(f"folder:{root}", "val")
    out = tmp_path / "out"
    assert main(["data", "check", f"folder:{root}", "--output", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "3 without their labels, or labels without their photo:" in printed
    assert "pets/val: 2 pairs, 1 sound" in printed
    assert "\n4 problems\n" in printed
    report = json.loads((out / "report.json").read_text())
    told = [
        [(p["what"], Path(p["message"].split()[0]).name) for p in s["problems"]] for s in report["splits"]
    ]
    gaps = [[(what, name) for what, name in split if what == "unpaired"] for split in told]
    assert gaps == [[("unpaired", "train1.png")], [("unpaired", "val0.jpg"), ("unpaired", "val2.jpg")]]
    with pytest.raises(UserError, match=r"train1\.png has no photo"):
        open_split(f"folder:{root}", "train")  # as strict as before, afterwards


def test_problems_are_printed_and_the_status_is_1(
    root: Path, make: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make.gray(root / "val" / "masks" / "val2.png", make.ids(0, 9))
    shutil.copy(root / "train" / "images" / "train0.jpg", root / "val" / "images" / "val0.jpg")
    assert run(root) == 1
    printed = capsys.readouterr().out
    assert "1 with label ids out of range" in printed
    assert "val2.png holds class id 9" in printed
    assert "1 with the same photo in two splits" in printed
    assert "pets/val: 3 pairs, 2 sound" in printed
    assert printed.endswith("2 problems\n")


def test_long_lists_are_cut(root: Path, make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(12):
        make.photo(root / "val" / "images" / f"more{index}.jpg")
        make.gray(root / "val" / "masks" / f"more{index}.png", make.ids(9))
    assert run(root, "--split", "val") == 1
    printed = capsys.readouterr().out
    assert printed.count("holds class id 9") == 10
    assert "and 2 more" in printed
    assert "train" not in printed


def test_output(root: Path, tmp_path: Path, make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make.gray(root / "val" / "masks" / "val2.png", make.ids(0, 9))
    shutil.copy(root / "train" / "images" / "train0.jpg", root / "val" / "images" / "val0.jpg")
    out = tmp_path / "new" / "out"
    assert run(root, "--output", str(out)) == 1
    assert sorted(file.name for file in out.iterdir()) == ["report.json", "train.png", "val.png"]
    report = json.loads((out / "report.json").read_text())
    assert report["data"] == f"folder:{root}"
    assert [split["pairs"] for split in report["splits"]] == [4, 3]
    assert [problem["what"] for problem in report["splits"][1]["problems"]] == ["id"]
    assert len(report["duplicates"]) == 1
    assert loaded(out / "val.png").size
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["check", "folder:nowhere"], "cannot read nowhere/train/images: no such file"),
        (["check", "nonsense"], "must be KIND:PATH"),
        (["check", "folder:x", "--split", "dev"], "there is no split 'dev'"),
        (["check", "folder:x", "--workers", "0"], "must be a whole number of at least 1"),
        (["check"], "SPEC"),
        ([], "ACTION"),
    ],
)
def test_mistakes(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["data", *options])
    except SystemExit as stop:
        status = int(stop.code or 0)
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_full_disk(root: Path, tmp_path: Path, full_disk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with full_disk(200):
        assert run(root, "--output", str(tmp_path / "out")) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "kinds"]) == 0
    printed = capsys.readouterr().out
    for name, kind in kinds().items():
        assert name in printed and kind.help in printed and kind.license in printed


def test_a_split_remembers_how_it_is_read(root: Path) -> None:
    split = open_split(f"folder:{root}", "val")
    assert split == Split(split.name, split.pairs, split.classes)
    assert "decode" not in repr(split)
