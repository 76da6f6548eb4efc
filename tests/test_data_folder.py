"""Plain folders of photos and masks: what is taken, and what each mistake is told."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.data import Split, kinds, open_split, open_splits
from edge_deeplab.data.check import check_split
from edge_deeplab.data.decode import UnknownId
from edge_deeplab.errors import UserError
from edge_deeplab.plugins import discover
from edge_deeplab.spec import PERSON_CLASSES, ClassInfo


def write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(pixels, np.uint8))


@pytest.fixture
def people(tmp_path: Path, make_people: Any) -> Path:
    return make_people(tmp_path / "people", train=3, val=2)


def with_mask(root: Path, mask: Any) -> Split:
    """A split of one picture with this mask."""
    mask = np.asarray(mask, np.uint8)
    write(root / "val" / "images" / "x.png", np.zeros((*mask.shape[:2], 3)))
    write(root / "val" / "masks" / "x.png", mask)
    return open_split(f"folder:{root}", "val")


def three_classes(root: Path) -> None:
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("background\ncat\n\n  dog \n")


# -- good folders --------------------------------------------------------------------------------


def test_a_good_folder(people: Path) -> None:
    split = open_split(f"folder:{people}", "train")
    assert split.name == "people/train"
    assert split.classes == PERSON_CLASSES
    assert len(split) == 3
    assert [pair.image.name for pair in split.pairs] == ["00.png", "01.png", "02.png"]
    assert len(open_split(f"folder:{people}", "val")) == 2
    for index, pair in enumerate(split.pairs):
        image, mask = split.read(index)
        assert pair.image.stem == pair.mask.stem
        assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((48, 64), np.uint8)
        np.testing.assert_array_equal(mask * 255, cv2.imread(str(pair.mask), cv2.IMREAD_UNCHANGED))


def test_order_is_by_name_and_suffixes_may_differ(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("b.JPG", "a.jpeg", "c.Png"):
        write(root / "val" / "images" / name, np.zeros((4, 4, 3)))
        write(root / "val" / "masks" / f"{Path(name).stem}.png", np.zeros((4, 4)))
    (root / "val" / "images" / "notes.txt").write_text("no picture")
    (root / "val" / "images" / ".hidden.jpg").write_text("no picture")
    split = open_split(f"folder:{root}", "val")
    assert [pair.image.name for pair in split.pairs] == ["a.jpeg", "b.JPG", "c.Png"]
    assert [pair.mask.name for pair in split.pairs] == ["a.png", "b.png", "c.png"]


def test_the_name_is_that_of_the_folder_however_it_is_given(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(people)
    assert open_split("folder:.", "val").name == "people/val"
    monkeypatch.setenv("HOME", str(people.parent))
    assert len(open_split("folder:~/people", "val")) == 2


def test_more_classes_from_a_file(tmp_path: Path) -> None:
    three_classes(tmp_path / "pets")
    split = with_mask(tmp_path / "pets", [[0, 1, 2], [255, 2, 0]])
    assert [info.name for info in split.classes] == ["background", "cat", "dog"]
    assert split.classes[0].color == (0, 0, 0)
    assert len({info.color for info in split.classes}) == 3
    np.testing.assert_array_equal(split.read(0)[1], [[0, 1, 2], [255, 2, 0]])


def test_colors_of_many_classes_differ(tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    (root / "classes.txt").write_text("\n".join(f"class {k}" for k in range(60)))
    colors = [info.color for info in with_mask(root, [[0]]).classes]
    assert len(set(colors)) == 60
    assert all(0 <= v <= 255 for color in colors for v in color)


def test_a_classes_file_may_be_utf8_with_a_byte_order_mark(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "classes.txt").write_text("Hintergrund\nMöbel\n漢\n", encoding="utf-8-sig")
    assert [info.name for info in with_mask(root, [[0]]).classes] == ["Hintergrund", "Möbel", "漢"]


# -- masks of two classes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ([[0, 255], [255, 0]], [[0, 1], [1, 0]]),
        ([[0, 1], [1, 0]], [[0, 1], [1, 0]]),
        ([[0, 1], [1, 255]], [[0, 1], [1, 255]]),  # 255 beside a 1 is: do not count
        ([[1, 1], [1, 1]], [[1, 1], [1, 1]]),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),
        ([[255, 255], [255, 255]], [[1, 1], [1, 1]]),
        ([[0, 127], [128, 255]], [[0, 0], [1, 1]]),  # a soft edge
        ([[0, 1], [130, 255]], [[0, 0], [1, 1]]),  # a soft edge that happens to hold a 1
    ],
)
def test_masks_of_two_classes(tmp_path: Path, stored: Any, read: Any) -> None:
    mask = with_mask(tmp_path / "set", stored).read(0)[1]
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, read)


def test_1_bit_masks(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow writes 1-bit PNGs")
    root = tmp_path / "set"
    write(root / "val" / "images" / "x.png", np.zeros((8, 8, 3)))
    (root / "val" / "masks").mkdir()
    pil.fromarray(np.eye(8, dtype=bool)).save(root / "val" / "masks" / "x.png")
    with pil.open(root / "val" / "masks" / "x.png") as file:
        assert file.mode == "1"
    np.testing.assert_array_equal(open_split(f"folder:{root}", "val").read(0)[1], np.eye(8))


@pytest.mark.parametrize("others", [[[0, 1], [1, 255]], [[0, 140], [90, 255]]])
def test_1_bit_masks_are_right_beside_both_conventions(tmp_path: Path, others: Any) -> None:
    """White is the person, never "ignore"."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow writes 1-bit PNGs")
    with_mask(tmp_path, others)
    for name in ("a.png", "z.png"):
        write(tmp_path / "val" / "images" / name, np.zeros((2, 2, 3)))
        pil.fromarray(np.eye(2, dtype=bool)).save(tmp_path / "val" / "masks" / name)
    split = open_split(f"folder:{tmp_path}", "val")
    for index in (0, 2):
        np.testing.assert_array_equal(split.read(index)[1], np.eye(2))
    split.read(1)


def test_1_bit_masks_keep_their_ids_among_more_classes(tmp_path: Path) -> None:
    """As 2- and 4-bit ones do: white is class 1, not 255 = ignore."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow writes 1-bit PNGs")
    three_classes(tmp_path)
    with_mask(tmp_path, np.eye(8))
    pil.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "val" / "masks" / "x.png")
    np.testing.assert_array_equal(open_split(f"folder:{tmp_path}", "val").read(0)[1], np.eye(8))


def voc_mask(person: int) -> Any:
    """A disc of an id within a border of 255, as VOC draws objects."""
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (40, 30), 20, 255, -1)
    cv2.circle(mask, (40, 30), 17, person, -1)
    return mask


@pytest.mark.parametrize("ids", [(15,), (3, 7), (2,)])
def test_class_ids_without_their_names_are_no_mattes(tmp_path: Path, ids: tuple[int, ...]) -> None:
    """Cut at 128 the object would be background and its void border the person."""
    mask = voc_mask(ids[0])
    mask[:4, :4] = ids[-1]
    split = with_mask(tmp_path, mask)
    with pytest.raises(UnknownId, match=r"x\.png holds .*, like class ids; .*classes\.txt") as caught:
        split.read(0)
    assert f"holds {', '.join(map(str, ids))}, like" in str(caught.value)
    summary = check_split(split)
    assert [problem.what for problem in summary.problems] == ["id"]


def test_class_ids_beside_0_1_masks_are_told_the_same_cure(tmp_path: Path) -> None:
    with_mask(tmp_path, voc_mask(1))
    write(tmp_path / "val" / "images" / "z.png", np.zeros((60, 80, 3)))
    write(tmp_path / "val" / "masks" / "z.png", voc_mask(15))
    split = open_split(f"folder:{tmp_path}", "val")
    np.testing.assert_array_equal(split.read(0)[1], voc_mask(1))
    with pytest.raises(UnknownId, match=r"z\.png holds 15, like class ids; .*classes\.txt"):
        split.read(1)


def matte(kind: str) -> Any:
    """What people save as a mask 0/255, other than with hard edges."""
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (80, 60), 40, 255, -1)
    if kind == "blurred":
        return cv2.GaussianBlur(mask, (0, 0), 4)
    if kind == "antialiased":
        return cv2.resize(mask, (107, 80), interpolation=cv2.INTER_AREA)
    if kind == "jpeg":
        return cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], 0)
    if kind == "small and blurred":  # far more pixels below 128 than above
        small = np.zeros((120, 160), np.uint8)
        cv2.circle(small, (80, 60), 4, 255, -1)
        return cv2.GaussianBlur(small, (0, 0), 2)
    mask[60, 20:40] = 64  # a few soft pixels that happen to be dark
    return mask


@pytest.mark.parametrize("kind", ["blurred", "antialiased", "jpeg", "small and blurred", "hard"])
def test_mattes_stay_mattes(tmp_path: Path, kind: str) -> None:
    mask = matte(kind)
    split = with_mask(tmp_path, mask)
    np.testing.assert_array_equal(split.read(0)[1], mask >= 128)
    assert check_split(split).problems == []


def test_ids_that_are_neither_are_refused_with_two_classes(tmp_path: Path) -> None:
    """A trimap of 1, 2 and 3, say: cut at 128 it would silently be an empty mask."""
    split = with_mask(tmp_path / "set", [[1, 2], [3, 3]])
    with pytest.raises(UserError, match=r"x\.png"):
        split.read(0)


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["nonsense:x", "x", "", ":x", "FOLDER:x"])
def test_an_unknown_kind_lists_the_known_ones(spec: str) -> None:
    with pytest.raises(UserError, match=rf"--data '{spec}' must be KIND:PATH with KIND one of: .*\bfolder\b"):
        open_split(spec, "train")


@pytest.mark.parametrize("missing", ["", "val", "val/images", "val/masks"])
def test_a_missing_folder_is_named(people: Path, missing: str) -> None:
    shutil.rmtree(people / missing)
    with pytest.raises(
        UserError, match=r"cannot read .*val/(images|masks): no such file or directory"
    ) as caught:
        open_split(f"folder:{people}", "val")
    assert str(people / missing) in str(caught.value)
    assert "a folder data set is PATH/{train,val}/{images,masks}" in str(caught.value)


def test_a_file_instead_of_a_folder(people: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: not a directory"):
        open_split(f"folder:{people / 'val' / 'images' / '00.png'}", "val")


def test_an_empty_split(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "train" / part).mkdir(parents=True)
    with pytest.raises(UserError, match=r"^folder:.*: the train split is empty$"):
        open_split(f"folder:{tmp_path}", "train")


def test_a_photo_without_a_mask(people: Path) -> None:
    (people / "train" / "masks" / "01.png").unlink()
    with pytest.raises(UserError, match=r"images/01\.png has no mask of the same name \(1 such in .*train\)"):
        open_split(f"folder:{people}", "train")


def test_masks_without_photos(people: Path) -> None:
    for name in ("02.png", "00.png"):
        (people / "train" / "images" / name).unlink()
    with pytest.raises(UserError, match=r"masks/00\.png has no photo of the same name \(2 such in .*train\)"):
        open_split(f"folder:{people}", "train")


def test_two_pictures_of_one_name(people: Path) -> None:
    shutil.copy(people / "val" / "images" / "00.png", people / "val" / "images" / "00.jpg")
    with pytest.raises(UserError, match=r"two pictures share a name: .*00\.jpg and .*00\.png"):
        open_split(f"folder:{people}", "val")


def test_different_sizes_name_the_pair(people: Path) -> None:
    write(people / "val" / "masks" / "01.png", np.zeros((64, 48)))
    split = open_split(f"folder:{people}", "val")
    with pytest.raises(UserError, match=r"photo and mask differ in size") as caught:
        split.read(1)
    assert "images/01.png is 64x48" in str(caught.value)
    assert "masks/01.png is 48x64" in str(caught.value)
    split.read(0)


def test_a_mask_with_three_channels(people: Path) -> None:
    write(people / "val" / "masks" / "00.png", np.zeros((48, 64, 3)))
    with pytest.raises(
        UserError, match=r"masks/00\.png has 3 channels of uint8; masks must be 8-bit with one"
    ):
        open_split(f"folder:{people}", "val").read(0)


def test_a_damaged_photo_is_named(people: Path) -> None:
    path = people / "val" / "images" / "00.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"images/00\.png: the file is cut short"):
        open_split(f"folder:{people}", "val").read(0)


@pytest.mark.parametrize("highest", [3, 254])
def test_an_id_out_of_range(tmp_path: Path, highest: int) -> None:
    three_classes(tmp_path / "pets")
    split = with_mask(tmp_path / "pets", [[0, highest], [2, 255]])
    message = rf"masks/x\.png holds class id {highest}, but there are only ids 0 to 2 \(255 = ignore\)"
    with pytest.raises(UserError, match=message):
        split.read(0)


@pytest.mark.parametrize("text", ["", "background\n", "\n \n"])
def test_too_few_classes(people: Path, text: str) -> None:
    (people / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=r"classes\.txt must name at least two classes, one a line"):
        open_split(f"folder:{people}", "val")


def test_a_classes_file_that_is_no_text(people: Path) -> None:
    (people / "classes.txt").write_bytes("Hintergrund\nMöbel\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"classes\.txt"):
        open_split(f"folder:{people}", "val")


def test_a_classes_file_that_is_a_folder(people: Path) -> None:
    (people / "classes.txt").mkdir()
    with pytest.raises(UserError, match=r"classes\.txt"):
        open_split(f"folder:{people}", "val")


def test_more_classes_than_ids(people: Path) -> None:
    """Id 255 is taken: it counts nowhere."""
    (people / "classes.txt").write_text("\n".join(f"class {k}" for k in range(256)))
    with pytest.raises(UserError, match="255"):
        open_split(f"folder:{people}", "val")


# -- several data sets -----------------------------------------------------------------------------


def names(*specs: str) -> list[str]:
    return [split.name for split in open_splits(specs, "val")]


def test_folders_of_one_name_get_those_above_them(
    tmp_path: Path, make_people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("a/eg", "b/eg", "b/x/eg", "c/x/eg", "other"):
        make_people(tmp_path / place, train=0, val=1)
    monkeypatch.chdir(tmp_path)
    assert names("folder:a/eg", "folder:other", "folder:b/eg") == ["a/eg/val", "other/val", "b/eg/val"]
    assert names("folder:b/x/eg", "folder:c/x/eg") == ["b/x/eg/val", "c/x/eg/val"]
    assert names("folder:b/eg", "folder:b/x/eg") == ["b/eg/val", "x/eg/val"]
    assert names("folder:b/eg", "folder:other") == ["eg/val", "other/val"]
    # One folder, given twice, is one data set.
    assert names("folder:a/eg", f"folder:{tmp_path}/a/eg") == ["eg/val"] * 2
    assert names("folder:a/eg", "folder:b/eg", "folder:a/eg") == ["a/eg/val", "b/eg/val", "a/eg/val"]


# -- the registry ----------------------------------------------------------------------------------


def test_kinds_have_a_line_of_help() -> None:
    assert "folder" in kinds()
    for kind in kinds().values():
        assert kind.help
        assert "\n" not in kind.help


def test_a_new_file_is_a_new_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toy_registry"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kind_b.py").write_text("KIND = 'second'")
    (package / "kind_a.py").write_text("KIND = 'first'")
    (package / "other.py").write_text("raise RuntimeError('not to be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        found = discover("toy_registry", "kind_", "KIND")
        assert list(found.items()) == [("a", "first"), ("b", "second")]
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "toy_registry"]:
            del sys.modules[name]


def test_splits_are_plain_values() -> None:
    split = Split("toys/val", (), (ClassInfo("a", (0, 0, 0)), ClassInfo("b", (1, 2, 3))))
    assert len(split) == 0
    assert split == Split("toys/val", (), split.classes)


def test_a_split_follows_one_convention(tmp_path: Path) -> None:
    """A 0/1 mask of nobody may hold 0 and 255 only: 255 is "ignore" there, never a person."""
    with_mask(tmp_path, [[0, 1], [1, 255]])
    write(tmp_path / "val" / "images" / "a.png", np.zeros((2, 2, 3)))
    write(tmp_path / "val" / "masks" / "a.png", [[0, 255], [0, 0]])
    split = open_split(f"folder:{tmp_path}", "val")
    np.testing.assert_array_equal(split.read(0)[1], [[0, 255], [0, 0]])
    write(tmp_path / "val" / "masks" / "a.png", [[0, 200], [0, 0]])
    split = open_split(f"folder:{tmp_path}", "val")
    np.testing.assert_array_equal(split.read(0)[1], [[0, 1], [0, 0]])
    with pytest.raises(UserError, match=r"x\.png is a 0/1 mask .*, unlike others of its split"):
        split.read(1)
    (tmp_path / "val" / "images" / "a.png").rename(tmp_path / "val" / "images" / "z.png")
    (tmp_path / "val" / "masks" / "a.png").rename(tmp_path / "val" / "masks" / "z.png")
    split = open_split(f"folder:{tmp_path}", "val")
    with pytest.raises(UserError, match=r"z\.png is no 0/1 mask .*, unlike others of its split"):
        split.read(1)
