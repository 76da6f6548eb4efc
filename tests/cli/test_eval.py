"""``edge-deeplab eval``: figures, strategies, plots and what it refuses."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import read_image, write_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import open_model
from tests.cli.support import Run, read, strictly
from tests.runtimes.artefacts import RED_GREEN_BLUE, toy_contract, toy_onnx


def test_eval(run: Run, people: Path, tmp_path: Path) -> None:
    toy = toy_onnx(tmp_path / "toy.onnx", toy_contract(head="logits-full", head_stride=1))
    path = tmp_path / "new" / "scores.json"
    ran = run("eval", toy, "--data", f"folder:{people}", "--json", path)
    assert (ran.status, ran.err) == (0, "")
    head, line = ran.out.splitlines()
    titles = ["data", "images", "fg", "IoU", "mIoU", "per", "img", "pix", "acc", "bnd", "IoU"]
    assert head.split() == [*titles, "95", "%", "interval"]
    assert line.split() == ["people/val", "2", *["1.0000"] * 5, "1.0000", "..", "1.0000"]
    record = strictly(path.read_text())
    assert record["model"] == str(toy)
    assert record["contract"]["name"] == "toy"
    assert record["results"] == [
        {
            "data": "people/val",
            "images": 2,
            "chosen_by": "foreground_iou",
            "miou": 1.0,
            "iou": {"background": 1.0, "person": 1.0},
            "foreground_iou": 1.0,
            "mean_image_iou": 1.0,
            "pixel_accuracy": 1.0,
            "boundary_iou": {"background": 1.0, "person": 1.0},
            "interval_95": [1.0, 1.0],
        }
    ]


def test_eval_counts_what_is_wrong(run: Run, people: Path, tmp_path: Path) -> None:
    """A quarter of every mask's rows is moved away from its person."""
    toy = toy_onnx(tmp_path / "toy.onnx", toy_contract(head="logits-full", head_stride=1))
    for path in sorted((people / "val" / "masks").iterdir()):
        write_image(path, np.roll(read(path), 8, axis=0))
    assert run("eval", toy, "--data", f"folder:{people}", "--json", tmp_path / "x.json").status == 0
    (result,) = strictly((tmp_path / "x.json").read_text())["results"]
    assert result["foreground_iou"] == pytest.approx(24 / 40)
    assert result["mean_image_iou"] == pytest.approx(24 / 40)
    wrong = 2 * 8 * (32 + 16)  # rows above and below, widths of the two people
    assert result["pixel_accuracy"] == pytest.approx(1 - wrong / (2 * 64 * 96))


def test_eval_several_sets_and_the_train_split(run: Run, toy: Path, people: Path) -> None:
    spec = f"folder:{people}"
    ran = run("eval", toy, "--data", spec, spec, "--split", "train")
    assert ran.status == 0
    assert [line.split()[:2] for line in ran.out.splitlines()[1:]] == [["people/train", "1"]] * 2


def test_eval_of_several_classes(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "stripes"
    mask = np.tile(np.arange(96) // 24, (64, 1)).astype(np.uint8)
    image = np.zeros((64, 96, 3), np.uint8)
    for k in (1, 2, 3):
        image[mask == k, 3 - k] = 255
    write_image(data / "val" / "images" / "a.png", image)
    write_image(data / "val" / "masks" / "a.png", mask)
    (data / "classes.txt").write_text("nothing\nred\ngreen\nblue\n")
    contract = toy_contract(classes=RED_GREEN_BLUE, head="classmap", head_stride=1)
    model = toy_onnx(tmp_path / "x.onnx", contract)
    ran = run("eval", model, "--data", f"folder:{data}", "--json", tmp_path / "x.json")
    assert (ran.status, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines()[2:]] == [
        [name, "1.0000"] for name in ("nothing", "red", "green", "blue")
    ]
    assert strictly((tmp_path / "x.json").read_text())["results"][0]["iou"]["blue"] == 1.0


@pytest.fixture
def colours(tmp_path: Path) -> str:
    """Three pictures of four stripes, one of them labelled wrongly."""
    data = tmp_path / "stripes"
    for index in range(3):
        mask = np.roll(np.tile(np.arange(96) // 24, (64, 1)), 7 * index, axis=1).astype(np.uint8)
        image = np.zeros((64, 96, 3), np.uint8)
        for k in (1, 2, 3):
            image[mask == k, 3 - k] = 255
        write_image(data / "val" / "images" / f"{index}.png", image)
        write_image(
            data / "val" / "masks" / f"{index}.png", np.roll(mask, 9, axis=0) if index != 1 else 3 - mask
        )
    (data / "classes.txt").write_text("nothing\nred\ngreen\nblue\n")
    return f"folder:{data}"


def test_eval_with_flip_trimap_and_worst(run: Run, colours: str, tmp_path: Path) -> None:
    model = toy_onnx(
        tmp_path / "x.onnx", toy_contract(classes=RED_GREEN_BLUE, head="logits-full", head_stride=1)
    )
    extra = (
        "--flip",
        "--trimap",
        tmp_path / "t.png",
        "--worst",
        tmp_path / "w.jpg",
        "--json",
        tmp_path / "x.json",
    )
    ran = run("eval", model, "--data", colours, *extra)
    assert (ran.status, ran.err) == (0, "")
    assert "mIoU within" in ran.out
    (result,) = strictly((tmp_path / "x.json").read_text())["results"]
    assert result["trimap"].keys() == {"1", "2", "3", "5", "7", "10", "15", "20", "30", "40"}
    low, high = result["interval_95"]
    assert low <= result["miou"] <= high
    assert low < high
    assert read_image(tmp_path / "t.png").shape[1] > 400
    assert read_image(tmp_path / "w.jpg").shape[1] == 2 * (3 * 240 + 10)
    # The toy model looks at single pixels: mirroring changes nothing.
    assert run("eval", model, "--data", colours, "--json", tmp_path / "y.json").status == 0
    assert strictly((tmp_path / "y.json").read_text())["results"][0]["miou"] == pytest.approx(result["miou"])


def test_eval_grid(run: Run, checkpoint: Path, people: Path, tmp_path: Path) -> None:
    """All strategies at all output strides, and the plain one is what a plain eval says."""
    spec = f"folder:{people}"
    ran = run("eval", checkpoint, "--data", spec, "--grid", "--json", tmp_path / "x.json")
    assert (ran.status, ran.err) == (0, "")
    rows = strictly((tmp_path / "x.json").read_text())["results"]
    assert [(r["eval_os"], len(r["scales"]), r["flip"]) for r in rows] == [
        (stride, scales, flip) for stride in (8, 16, 32) for scales in (1, 6) for flip in (False, True)
    ]
    assert len(ran.out.splitlines()) == 13
    assert {r["train_os"] for r in rows} == {16}
    costs = [r["multiply_adds"] for r in rows]
    assert costs[1] == 2 * costs[0]
    assert costs[3] == 2 * costs[2] > 8 * costs[0]
    assert costs[0] > costs[4] > costs[8]
    for stride in (8, 16, 32):
        path = tmp_path / f"{stride}.json"
        assert run("eval", checkpoint, "--data", spec, "--output-stride", stride, "--json", path).status == 0
        plain = next(r for r in rows if r["eval_os"] == stride)
        (result,) = strictly(path.read_text())["results"]
        assert result["foreground_iou"] == pytest.approx(plain["foreground_iou"])


def test_eval_at_several_scales_needs_a_size_that_may_change(
    run: Run, toy: Path, checkpoint: Path, people: Path
) -> None:
    spec = f"folder:{people}"
    run("eval", toy, "--data", spec, "--scales", "0.5", "1").refused("takes 64x96 only", "--dynamic size")
    assert run("eval", checkpoint, "--data", spec, "--scales", "0.5", "1", "--flip").status == 0


def test_eval_as_the_demos_draw_it(run: Run, toy: Path, people: Path, tmp_path: Path) -> None:
    """The masks of ``--refine`` are those of the demos, and the file says that they were refined."""
    spec, path = f"folder:{people}", tmp_path / "x.json"
    for each in [*(people / "val").glob("*/*")]:  # off the network's grid, so that there are edges to move
        write_image(each, np.roll(read(each), 3, axis=(0, 1)))
    hits = together = 0
    moved = False
    split = open_split(spec, "val")
    with open_model(toy) as model:
        for index in range(len(split)):
            photo, truth = split.read(index)
            plain = model.segment(photo)
            mask = Matte(smooth=False).update(photo, plain.logits) > 0.5
            moved |= bool((mask != plain.labels).any())
            hits += int((mask & (truth == 1)).sum())
            together += int((mask | (truth == 1)).sum())
    assert run("eval", toy, "--data", spec, "--refine", "--json", path).status == 0
    record = strictly(path.read_text())
    assert record["results"][0]["foreground_iou"] == pytest.approx(hits / together)
    assert moved  # else the plain answer would pass, too
    assert record["strategy"] == {"scales": [1.0], "flip": False, "refine": True, "output_stride": None}


def test_eval_refines_masks_only(run: Run, colours: str, tmp_path: Path) -> None:
    toy = toy_onnx(tmp_path / "toy.onnx", toy_contract(classes=RED_GREEN_BLUE))
    run("eval", toy, "--data", colours, "--refine").refused("--refine moves the edges of a mask", "4 classes")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "--refine"], "--grid scores all strategies itself"),
        (["--record", "--refine"], "--record keeps the plain model's figures"),
        (["--refine", "--flip"], "--refine is for the model's plain answer"),
        (["--grid", "--flip"], "--grid scores all strategies itself"),
        (["--grid", "--trimap", "x.png"], "--grid scores all strategies itself"),
        (["--record", "--flip"], "--record keeps the plain model's figures"),
        (["--output-stride", "8"], "give its checkpoint"),
        (["--grid"], "give its checkpoint"),
        (["--output-stride", "4"], "--output-stride"),
        (["--scales", "9"], "--scales"),
    ],
)
def test_eval_options_that_do_not_go(
    run: Run, toy: Path, people: Path, words: list[str], message: str
) -> None:
    run("eval", toy, "--data", f"folder:{people}", *words).refused(message)


def test_figures_that_do_not_exist_are_null(run: Run, toy: Path, tmp_path: Path) -> None:
    """Nobody in the picture and nobody found: there is no IoU of the person."""
    black = np.zeros((64, 96, 3), np.uint8)
    write_image(tmp_path / "empty" / "val" / "images" / "a.png", black)
    write_image(tmp_path / "empty" / "val" / "masks" / "a.png", black[..., 0])
    ran = run("eval", toy, "--data", f"folder:{tmp_path / 'empty'}", "--json", tmp_path / "x.json")
    assert (ran.status, ran.err) == (0, "")
    (result,) = strictly((tmp_path / "x.json").read_text())["results"]
    assert result["iou"] == {"background": 1.0, "person": None}
    assert result["foreground_iou"] is None
    assert result["pixel_accuracy"] == 1.0


def test_eval_records_figures_in_a_checkpoint(
    run: Run, checkpoint: Path, people: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(checkpoint.read_bytes())
    arguments = ["eval", mine, "--data", f"folder:{people}", "--json", tmp_path / "x.json"]
    assert run(*arguments).status == 0
    assert mine.read_bytes() == checkpoint.read_bytes()
    assert run(*arguments, "--record").status == 0
    measured = strictly((tmp_path / "x.json").read_text())["results"][0]["foreground_iou"]
    with open_model(mine) as model:
        assert model.contract.metrics["people/val iou"] == pytest.approx(measured, abs=1e-4)
        assert model.contract.metrics["nothing iou"] == 0.5  # recorded before


def test_the_average_of_a_checkpoint_with_itself(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    from edge_deeplab.models.checkpoint import load_checkpoint

    output = tmp_path / "x.safetensors"
    ran = run("average", checkpoint, checkpoint, "--weights", "1", "3", "--output", output)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"{output}: nano, average of 2; score it with eval\n"
    (one, before), (mixed, after) = load_checkpoint(checkpoint), load_checkpoint(output)
    assert dict(after.metrics) == {}  # nobody has measured it
    assert after.classes == before.classes
    for a, b in zip(one.state_dict().values(), mixed.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_the_average_of_halves_is_stored_whole_and_says_so(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    from edge_deeplab.models.checkpoint import load_checkpoint, read_safetensors, save_checkpoint

    model, contract = load_checkpoint(checkpoint)
    half, output = tmp_path / "half.safetensors", tmp_path / "x.safetensors"
    save_checkpoint(half, model, contract.replace(precision="fp16"), half=True)
    assert run("average", half, half, "--output", output).status == 0
    assert load_checkpoint(output)[1].precision == "fp32"
    assert {str(value.dtype) for value in read_safetensors(output)[0].values()} == {"torch.float32"}


@pytest.mark.parametrize(
    "weights", [["nan", "1"], ["inf", "1"], ["-1", "2"], ["0", "0"], ["1"], ["1e308"] * 2]
)
def test_weights_that_make_no_average(run: Run, checkpoint: Path, tmp_path: Path, weights: list[str]) -> None:
    output = tmp_path / "x.safetensors"
    ran = run("average", checkpoint, checkpoint, "--weights", *weights, "--output", output)
    ran.refused("one weight of at least 0 for each")
    assert not output.exists()


# -- data sets of one name -------------------------------------------------------------------------


def test_data_sets_of_one_name_are_told_apart(run: Run, toy: Path, people: Path, tmp_path: Path) -> None:
    """Each keeps its own figures, trimap and sheet; the second has its masks moved."""
    other = tmp_path / "theirs" / "people"
    shutil.copytree(people, other)
    for path in sorted((other / "val" / "masks").iterdir()):
        write_image(path, np.roll(read(path), 8, axis=0))
    files = ("--json", tmp_path / "x.json", "--trimap", tmp_path / "t.png", "--worst", tmp_path / "w.jpg")
    ran = run("eval", toy, "--data", f"folder:{people}", f"folder:{other}", *files)
    assert (ran.status, ran.err) == (0, "")
    mine, theirs = strictly((tmp_path / "x.json").read_text())["results"]
    assert mine["data"] == f"{tmp_path.name}/people/val"
    assert theirs["data"] == "theirs/people/val"
    assert theirs["foreground_iou"] < mine["foreground_iou"]
    bands = [line.split() for line in ran.out.partition("mIoU within")[2].splitlines()[1:]]
    assert [name for name, *_ in bands] == [mine["data"], theirs["data"]]
    assert bands[0][1:] != bands[1][1:]


def test_records_of_data_sets_of_one_name(run: Run, checkpoint: Path, people: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.safetensors"
    shutil.copy(checkpoint, copy)
    shutil.copytree(people, tmp_path / "theirs" / "people")
    specs = (f"folder:{people}", f"folder:{tmp_path / 'theirs' / 'people'}")
    assert run("eval", copy, "--data", *specs, "--record").status == 0
    with open_model(copy) as model:
        assert model.contract.metrics.keys() >= {
            f"{tmp_path.name}/people/val iou",
            "theirs/people/val iou",
        }


# -- outputs ---------------------------------------------------------------------------------------


@pytest.fixture
def unread(people: Path) -> str:
    """Data whose first picture cannot be read: whoever begins to score says that and nothing else."""
    first = min((people / "val" / "images").iterdir())
    first.write_bytes(b"no picture")
    return f"folder:{people}"


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--worst", "w.pdf", "no picture format that OpenCV writes"),
        ("--worst", "file/w.jpg", "cannot write"),
        ("--trimap", "t.pdf", "the plot is a PNG"),
        ("--trimap", "file/t.png", "cannot write"),
        ("--json", "file/x.json", "cannot write"),
        ("--json", "folder", "it is a folder"),
    ],
)
def test_what_cannot_be_written_is_said_before_scoring(
    run: Run, toy: Path, unread: str, tmp_path: Path, option: str, name: str, message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    run("eval", toy, "--data", unread, option, tmp_path / name).refused(name, message)


def test_a_grid_that_cannot_be_written(run: Run, checkpoint: Path, unread: str, tmp_path: Path) -> None:
    run("eval", checkpoint, "--data", unread, "--grid", "--json", tmp_path).refused("it is a folder")


def test_a_trimap_without_matplotlib(
    run: Run, toy: Path, unread: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ran = run("eval", toy, "--data", unread, "--trimap", tmp_path / "t.png")
    ran.refused("matplotlib is not installed", "edge-deeplab[train]")


def test_figures_are_kept_when_a_picture_of_them_fails(
    run: Run, toy: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr("edge_deeplab.imaging.write_bytes", full)
    files = ("--worst", tmp_path / "w.jpg", "--json", tmp_path / "x.json")
    run("eval", toy, "--data", f"folder:{people}", *files).refused("the disk is full")
    assert strictly((tmp_path / "x.json").read_text())["results"][0]["data"] == "people/val"


def test_data_check_says_before_reading_that_it_cannot_write(run: Run, unread: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = run("data", "check", unread, "--output", tmp_path / "file" / "checked")
    ran.refused("cannot write", "report.json")
    assert ran.out == ""


# -- the rest --------------------------------------------------------------------------------------


def test_a_grid_prints_an_miou_of_0(
    run: Run, checkpoint: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"scales": [1.0], "flip": False, "miou": 0.0, "foreground_iou": 0.0, "multiply_adds": 1}
    monkeypatch.setattr("edge_deeplab.cli.cmd_eval._rows", lambda *_: [row, row, row, {**row, "miou": None}])
    ran = run("eval", checkpoint, "--data", f"folder:{people}", "--grid", "--output-stride", "16")
    assert ran.status == 0
    assert [line.split()[-3] for line in ran.out.splitlines()[1:]] == ["0.0000"] * 3 + ["nan"]


def test_a_world_size_that_is_not_torchruns(
    run: Run, toy: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    run("eval", toy, "--data", f"folder:{people}").refused(
        "WORLD_SIZE is 2", "no RANK, LOCAL_RANK", "torchrun"
    )
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run("eval", toy, "--data", f"folder:{people}").status == 0
