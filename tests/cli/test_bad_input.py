"""A mistake of the user's: exit status 2, one line that names it, and nothing left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import write_image
from edge_deeplab.models.checkpoint import load_checkpoint, save_checkpoint
from edge_deeplab.spec import METADATA_KEY
from edge_deeplab.zoo import shipped
from tests.cli.support import ODD, Run, make_odd
from tests.runtimes.artefacts import picture, toy_onnx

FullDisk = Callable[[int], AbstractContextManager[None]]
MakePeople = Callable[..., Path]


# -- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param("missing.jpg", None, ["cannot read", "no such file"], id="missing"),
        pytest.param("text.jpg", b"Dear reader,\n" * 20, ["not a picture OpenCV can decode"], id="text"),
        pytest.param("half.jpg", "half", ["cut short", "copy or download it again"], id="half a JPEG"),
        pytest.param("half.png", "half", ["cut short"], id="half a PNG"),
        pytest.param("head.jpg", b"\xff\xd8\xff\xe0", ["cut short"], id="start of a JPEG"),
        pytest.param("empty.jpg", b"", ["the file is empty (0 bytes)"], id="empty"),
        pytest.param("noise.bmp", bytes(range(256)) * 9, ["not a picture"], id="noise"),
    ],
)
def test_a_bad_picture(
    run: Run, toy: Path, tmp_path: Path, name: str, content: bytes | str | None, words: list[str]
) -> None:
    path, output = tmp_path / name, tmp_path / "out"
    if content == "half":
        write_image(path, picture(90, 120))
        content = path.read_bytes()[: path.stat().st_size // 2]
    if isinstance(content, bytes):
        path.write_bytes(content)
    run("predict", toy, path, "--output", output).refused(str(path), *words)
    assert not output.exists()


def test_a_bad_picture_among_good_ones(run: Run, toy: Path, tmp_path: Path, photo: Path) -> None:
    """What was done before stays, whole; there is nothing of the bad one."""
    bad = tmp_path / "q.jpg"
    bad.write_bytes(b"x")
    run("predict", toy, photo, bad, "--output", tmp_path / "out").refused(str(bad))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.png"]


def test_a_folder_without_pictures(run: Run, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run("predict", toy, tmp_path / "empty", "--output", tmp_path / "out").refused("no pictures in")
    assert not (tmp_path / "out").exists()


@contextmanager
def as_nobody(model: Path) -> Iterator[Path]:
    """A folder that is closed to the one who runs this; root may read everything and becomes nobody.

    The model lies beside it, since pytest's own folders are closed to nobody.
    """
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        closed = Path(name) / "closed"
        closed.mkdir()
        write_image(closed / "photo.png", picture(8, 8))
        (Path(name) / "toy.onnx").write_bytes(model.read_bytes())
        closed.chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield closed
        finally:
            if root:
                os.seteuid(0)
            closed.chmod(0o755)


def test_a_folder_that_may_not_be_read(run: Run, toy: Path, photo: Path, tmp_path: Path) -> None:
    # Both commands once, so that everything is imported: nobody may be unable to read the packages.
    assert run("predict", toy, photo, "--output", tmp_path / "out").status == 0
    run("eval", toy, "--data", "folder:nowhere").refused("nowhere")
    with as_nobody(toy) as closed:
        model = closed.parent / "toy.onnx"
        run("predict", model, closed, "--output", "out").refused(str(closed), "permission denied")
        run("predict", model, closed / "photo.png", "--output", "out").refused("permission denied")
        run("eval", model, "--data", f"folder:{closed}").refused(str(closed), "permission denied")


# -- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["predict", "info", "eval", "export"])
def test_an_unknown_model(
    run: Run, photo: Path, tmp_path: Path, make_people: MakePeople, command: str
) -> None:
    output = tmp_path / "out"
    arguments = {
        "predict": [photo, "--output", output],
        "info": [],
        "eval": ["--data", f"folder:{make_people(tmp_path / 'data', train=1, val=1)}"],
        "export": ["--target", "safetensors", "--output", output / "x.safetensors"],
    }[command]
    run(command, "portrayt", *arguments).refused("no model 'portrayt'", *shipped())
    assert not output.exists()


def damaged_models(folder: Path, toy: Path) -> dict[str, Path]:
    whole = toy.read_bytes()
    contents = {
        "half.onnx": whole[: len(whole) // 2],
        "text.onnx": b"hello\n",
        "empty.onnx": b"",
        "text.safetensors": b"hello, this is no checkpoint\n",
        "empty.safetensors": b"",
        "huge-header.safetensors": (1 << 60).to_bytes(8, "little") + b"{}",
        "notes.txt": b"hello\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    toy_onnx(folder / "theirs.onnx", metadata={})
    toy_onnx(folder / "tampered.onnx", metadata={METADATA_KEY: "{"})
    return {name: folder / name for name in [*contents, "theirs.onnx", "tampered.onnx"]}


@pytest.mark.parametrize(
    "name",
    [
        "half.onnx",
        "text.onnx",
        "empty.onnx",
        "text.safetensors",
        "empty.safetensors",
        "huge-header.safetensors",
        "notes.txt",
        "theirs.onnx",
        "tampered.onnx",
    ],
)
def test_a_damaged_model(run: Run, toy: Path, photo: Path, tmp_path: Path, name: str) -> None:
    if name.endswith(".safetensors"):
        pytest.importorskip("torch")
    path = damaged_models(tmp_path, toy)[name]
    run("predict", path, photo, "--output", tmp_path / "out").refused(str(path))
    run("info", path).refused(str(path))
    assert not (tmp_path / "out").exists()


def test_half_a_checkpoint(run: Run, checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    run("predict", path, photo, "--output", tmp_path / "out").refused(str(path), "damaged")
    output = tmp_path / "x.safetensors"
    run("export", path, "--target", "safetensors", "--output", output).refused(str(path), "damaged")
    assert not output.exists()
    assert not (tmp_path / "out").exists()


def test_options_of_the_other_runtime(run: Run, toy: Path, checkpoint: Path, photo: Path) -> None:
    out = photo.parent / "out"
    run("predict", toy, photo, "--output", out, "--device", "cpu").refused("ONNX Runtime", "'device'")
    run("predict", checkpoint, photo, "--output", out, "--provider", "cpu").refused("PyTorch", "'providers'")
    run("predict", toy, photo, "--output", out, "--provider", "warp").refused("has no warp")
    run("predict", checkpoint, photo, "--output", out, "--device", "abacus").refused("'abacus'")
    assert not out.exists()


def test_weights_of_another_variant(checkpoint: Path, tmp_path: Path, make_people: MakePeople) -> None:
    """In a process of its own, since training starts its process anew."""
    pytest.importorskip("torchvision")
    data, output = make_people(tmp_path / "data", train=4, val=1), tmp_path / "run"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edge_deeplab", "train", "--data", f"folder:{data}", "--batch", "2"),
            *("--variant", "lite", "--size", "64", "--init", str(checkpoint), "--output", str(output)),
            *("--workers", "0", "--threads", "1"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"{checkpoint} is a checkpoint of another variant" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not output.exists()


# -- data ----------------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path: Path, make_people: MakePeople) -> Path:
    """A folder data set, two pictures in val."""
    return make_people(tmp_path / "people", train=2, val=2)


def test_a_photo_and_a_mask_of_different_sizes(run: Run, toy: Path, people: Path) -> None:
    photo, mask = (people / "val" / kind / "01.png" for kind in ("images", "masks"))
    write_image(mask, np.zeros((48, 63), np.uint8))
    run("eval", toy, "--data", f"folder:{people}").refused(
        f"{photo} is 64x48", f"{mask} is 63x48", "correct the pair or remove it"
    )


def test_a_mask_of_the_wrong_kind(run: Run, toy: Path, people: Path) -> None:
    mask = people / "val" / "masks" / "00.png"
    write_image(mask, np.zeros((48, 64, 3), np.uint8))
    run("eval", toy, "--data", f"folder:{people}").refused(str(mask), "3 channels")


def test_a_photo_without_mask(run: Run, toy: Path, people: Path) -> None:
    (people / "val" / "masks" / "01.png").unlink()
    photo = people / "val" / "images" / "01.png"
    run("eval", toy, "--data", f"folder:{people}").refused(f"{photo} has no mask")


def test_data_that_is_not_there(run: Run, toy: Path, tmp_path: Path) -> None:
    run("eval", toy, "--data", f"folder:{tmp_path / 'nowhere'}").refused("nowhere", "no such file")
    run("eval", toy, "--data", f"zip:{tmp_path}").refused("must be KIND:PATH", "folder")
    run("eval", toy, "--data", tmp_path).refused("must be KIND:PATH")
    run("eval", toy, "--data", f"folder:{tmp_path}", "--split", "holiday").refused(
        "no split 'holiday'", "val"
    )


def test_data_with_other_classes(run: Run, toy: Path, people: Path) -> None:
    (people / "classes.txt").write_text("sky\nroad\ncar\n")
    run("eval", toy, "--data", f"folder:{people}").refused("has 2 classes", "has 3")


def test_figures_can_only_be_recorded_in_checkpoints(run: Run, toy: Path, people: Path) -> None:
    ran = run("eval", toy, "--data", f"folder:{people}", "--record")
    ran.refused("--record writes into checkpoints")
    assert ran.out == ""  # said before an hour of scoring, not after


# -- results -------------------------------------------------------------------------------------


def test_the_output_is_a_file(run: Run, toy: Path, photo: Path, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"mine")
    run("predict", toy, photo, "--output", place).refused(f"--output {place} is a file; give a folder")
    run("predict", toy, photo, "--output", place / "deeper").refused(str(place))
    assert place.read_bytes() == b"mine"


def test_the_json_cannot_be_written(run: Run, toy: Path, people: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for place in (tmp_path / "file" / "x.json", tmp_path):
        run("eval", toy, "--data", f"folder:{people}", "--json", place).refused("cannot write", str(place))


@pytest.mark.parametrize("kind", ["mask", "cutout"])
def test_the_disk_is_full(run: Run, toy: Path, tmp_path: Path, full_disk: FullDisk, kind: str) -> None:
    path = tmp_path / "large.png"
    write_image(path, np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    assert run("predict", toy, path, "--output", tmp_path / "warm").status == 0
    with full_disk(60):
        ran = run("predict", toy, path, "--output", tmp_path / "out", "--save", kind)
    ran.refused("cannot write", "large")
    assert not (tmp_path / "out").exists()


def test_no_space_left_is_told_in_words(
    run: Run, toy: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    run("predict", toy, photo, "--output", tmp_path / "out").refused("the disk is full; choose another place")
    assert not (tmp_path / "out").exists()


def test_two_pictures_with_one_result(run: Run, toy: Path, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "photo.png"
    write_image(other, picture(8, 8))
    run("predict", toy, photo, other, "--output", tmp_path / "out").refused(
        str(photo), str(other), "would both become photo.png; run them apart"
    )
    # The mask of one picture has the name of the other's alpha.
    third = tmp_path / "photo-alpha.jpg"
    write_image(third, picture(8, 8))
    arguments = ["--save", "mask", "--save", "alpha", "--output", tmp_path / "out"]
    run("predict", toy, photo, third, *arguments).refused("would both become photo-alpha.png")
    assert not (tmp_path / "out").exists()


def test_a_result_never_replaces_a_picture(
    run: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.png"
    write_image(path, picture(8, 8))
    before = path.read_bytes()
    run("predict", toy, path, "--output", tmp_path).refused("would overwrite", "give another folder")
    run("predict", toy, tmp_path, "--output", tmp_path).refused("would overwrite")
    monkeypatch.chdir(tmp_path)
    run("predict", toy, path, "--output", ".").refused("would overwrite")
    assert path.read_bytes() == before
    assert run("predict", toy, path, "--output", ".", "--save", "alpha").status == 0


# -- the command line itself ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND", "--help"]),
        (["fly"], ["fly", "predict"]),
        (["predict"], ["MODEL", "see edge-deeplab predict --help"]),
        (["predict", "m", "p", "--output", "o", "--save", "gold"], ["gold", "cutout"]),
        (["predict", "m", "p", "--output", "o", "--threads", "0"], ["whole number of at least 1"]),
        (["predict", "m", "p", "--output", "o", "--threads", "many"], ["whole number"]),
        (["predict", "m", "p", "--out", "o"], ["--out"]),
        (["export", "--target", "stone"], ["stone", "onnx"]),
        (["export", "--target", "onnx", "--size", "big"], ["HEIGHTxWIDTH"]),
        (["export", "--target", "onnx", "--size", "8x8"], ["between 32 and 8192"]),
        (["export", "--target", "onnx", "--size", "64x64x64"], ["HEIGHTxWIDTH"]),
        (["export", "--target", "onnx", "--data", "a", "--pictures", "b"], ["not allowed with"]),
        (["train"], ["--data"]),
        (["train", "--data", "x", "--epochs", "some"], ["--epochs"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments(run: Run, arguments: list[str], words: list[str]) -> None:
    run(*arguments).refused(*words)


def test_export_refuses_in_one_line(run: Run, checkpoint: Path, toy: Path, tmp_path: Path) -> None:
    export = ("export", checkpoint, "--target")
    output = ("--output", tmp_path / "out" / "x.onnx")
    run(*export, "onnx", *output, "--opset", "16").refused("opset 16 is too old; 17 is the least")
    run(*export, "onnx", *output, "--int8-dynamic").refused("has no int8-dynamic")
    run(*export, "onnx", *output, "--int8").refused("give --calibration DIR or KIND:PATH")
    run(*export, "onnx", *output, "--io", "int8").refused("has no --io int8; it has: float32, uint8")
    run(*export, "onnx", *output, "--int8", "--fp16").refused("not allowed with")
    run(*export, "onnx", *output, "--max-drop", "-1").refused("a number of at least 0")
    run(*export, "onnx", *output, "--pictures", tmp_path / "nowhere").refused("cannot read", "nowhere")
    run(*export, "onnx", *output, "--data", "folder:nowhere").refused("cannot read", "nowhere")
    run(*export, "safetensors", *output).refused("must end in .safetensors")
    run("export", toy, "--target", "onnx", *output).refused("starts from a checkpoint")
    assert not (tmp_path / "out").exists()


def test_a_reader_that_goes_away_is_no_error() -> None:
    """``edge-deeplab models | head -1``."""
    command = subprocess.Popen(
        [sys.executable, "-m", "edge_deeplab", "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    command.stdout.close()
    _, err = command.communicate()
    assert (command.returncode, err) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_standard_output_on_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edge_deeplab", "models"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("edge-deeplab: ")
    assert "the disk is full" in done.stderr
    assert done.stderr.count("\n") == 1


def test_averages_are_refused_in_one_line(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    run("average", checkpoint, "--output", output).refused("two checkpoints or more")
    run("average", checkpoint, checkpoint, "--weights", "1", "--output", output).refused("one weight")
    run("average", checkpoint, tmp_path / "no.safetensors", "--output", output).refused("neither a file")
    run("average", checkpoint, checkpoint, "--output", tmp_path / "x.onnx").refused("end in .safetensors")
    model, contract = load_checkpoint(checkpoint)
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, model, contract.replace(mean=(0.0, 0.0, 0.0)))
    run("average", checkpoint, other, "--output", output).refused("takes its pixels otherwise")
    assert not output.exists()


def test_ctrl_c_says_stopped_and_leaves_nothing(
    run: Run, toy: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Path, "replace", press)
    ran = run("predict", toy, photo, "--output", tmp_path / "out")
    assert (ran.status, ran.err) == (130, "stopped\n")
    assert not (tmp_path / "out").exists()


# -- odd, but good -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_segmented(run: Run, toy: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = make_odd(tmp_path / "in" / name)
    ran = run("predict", toy, tmp_path / "in", "--output", tmp_path / "out")
    assert (ran.status, ran.err) == (0, "")
    mask = cv2.imread(str(tmp_path / "out" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert (mask.shape, mask.dtype) == (ODD[name], np.uint8)
    assert mask.max() <= 1


def test_a_turned_photo_is_seen_upright(run: Run, toy: Path, tmp_path: Path) -> None:
    """The right half is bright in the file, the lower half in what a person sees."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow writes EXIF")
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:] = 255
    exif = pil.Exif()
    exif[0x0112] = 6
    pil.fromarray(image).save(tmp_path / "x.jpg", quality=95, exif=exif)
    assert run("predict", toy, tmp_path / "x.jpg", "--output", tmp_path / "out").status == 0
    mask = cv2.imread(str(tmp_path / "out" / "x.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == (96, 64)
    assert mask[:40].max() == 0
    assert mask[56:].min() == 1


@pytest.mark.parametrize("keep", [0.2, 0.999])
def test_info_refuses_a_checkpoint_cut_short(run: Run, checkpoint: Path, tmp_path: Path, keep: float) -> None:
    broken, data = tmp_path / "broken.safetensors", checkpoint.read_bytes()
    broken.write_bytes(data[: int(keep * len(data))])
    run("info", broken).refused("broken.safetensors is cut short")
