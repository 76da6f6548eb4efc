"""A slip of the finger, or a place that cannot be used: told at once, with what was probably meant."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_deeplab.cli import parser
from edge_deeplab.training.place import BEST, STATE
from edge_deeplab.zoo import shipped
from tests.cli.support import Run
from tests.test_imports import CLI, python


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --epoch 1", "edge-deeplab train: there is no option --epoch; did you mean --epochs?"),
        ("predict m p.jpg --outptu=out", "there is no option --outptu; did you mean --output?"),
        ("demo web --prot 80", "edge-deeplab demo web: there is no option --prot; did you mean --port?"),
        (
            "data check folder:x --zzz",
            "there is no option --zzz (see edge-deeplab data check --help)",
        ),
        (
            "models there",
            "unrecognized arguments: there (see edge-deeplab models --help)",
        ),
        ("train -x", "edge-deeplab train: unrecognized arguments: -x (see edge-deeplab train --help)"),
    ],
)
def test_an_option_that_is_not_there(run: Run, words: str, told: str) -> None:
    run(*words.split()).refused(told)


def test_what_looks_like_an_option_and_is_none() -> None:
    """After ``--``, as the value of another option, and with a space, as argparse reads them."""
    args = parser().parse_args(["predict", "m", "--output", "--my results", "--", "--output.png"])
    assert (args.sources, args.output) == (["--output.png"], "--my results")
    assert parser().parse_args(["bench", "m", "--tool-arg=--use_gpu=true"]).tool_arg == ["--use_gpu=true"]


def test_a_picture_s_name_for_a_folder(run: Run, toy: Path, photo: Path, tmp_path: Path) -> None:
    """Somebody with one photo wants one mask there, and would get a folder of that name."""
    for name in ("mask.png", "MASK.JPG"):
        run("predict", toy, photo, "--output", tmp_path / name).refused("is named like a picture; give")
        assert not (tmp_path / name).exists()
    (tmp_path / "scans.png").mkdir()
    assert run("predict", toy, photo, "--output", tmp_path / "scans.png").status == 0


def test_the_folder_of_a_run_for_its_model(run: Run, people: Path, tmp_path: Path) -> None:
    (tmp_path / BEST).write_bytes(b"weights")
    run("eval", tmp_path, "--data", f"folder:{people}").refused(f"folder of a run; give {tmp_path / BEST}")


def test_an_artefact_is_no_start_of_an_export_under_any_name(
    run: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not "is the model itself; give another name", with which it would be refused too."""
    monkeypatch.chdir(tmp_path)
    for model in (toy, shutil.copy(toy, tmp_path)):
        run("export", model, "--target", "onnx").refused("starts from a checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == [toy.name]


def test_averages_take_shipped_names(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    name = next(name for name, files in shipped().items() if ".safetensors" in files)
    output = tmp_path / "x.safetensors"
    assert run("average", name, name, "--output", output).status == 0
    run("average", checkpoint, "portrat", "--output", output).refused("no model 'portrat'")


def test_a_place_for_a_run_is_looked_at_before_anything_is_loaded(tmp_path: Path) -> None:
    """Where PyTorch is not even installed: with it, importing and reading the data take long."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STATE).write_bytes(b"state")
    (tmp_path / "file").write_bytes(b"x")
    for place, told in (
        (["run"], "run holds a run already; continue it with --resume or choose another --output"),
        (["none", "--resume"], "nothing to resume in none: it does not exist"),
        (["file"], "cannot write file/config.yaml: "),
        (["file/run"], "cannot write file/run/config.yaml: "),
    ):
        done = python(CLI, "train", "--data", "folder:x", "--output", *place, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert told in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]


def test_the_words_for_standard_output_on_a_full_disk() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with full.open("w") as out:
        command = [sys.executable, "-m", "edge_deeplab", "models"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "edge-deeplab: cannot write the output: the disk is full\n"
