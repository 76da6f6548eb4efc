"""Every command from end to end, on small models and small pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab.cli.arguments import bar
from edge_deeplab.files import sha256
from edge_deeplab.imaging import read_image, write_image
from edge_deeplab.runtimes import open_model, runtimes
from edge_deeplab.spec import InputContract, Quantization
from edge_deeplab.version import __version__
from edge_deeplab.zoo import shipped
from tests.cli.support import Run, read, strictly
from tests.runtimes.artefacts import RED_GREEN_BLUE, picture, toy_contract, toy_onnx

MakePeople = Callable[..., Path]


# -- predict -------------------------------------------------------------------------------------


def test_predict_writes_what_the_library_answers(run: Run, toy: Path, photo: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "on the way"
    kinds = ["mask", "alpha", "overlay", "cutout"]
    ran = run("predict", toy, photo, "--output", output, *(f"--save={kind}" for kind in kinds))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"1 picture segmented into {output} (mask, alpha, overlay, cutout), median ")
    names = ["photo-alpha.png", "photo-cutout.png", "photo-overlay.jpg", "photo.png"]
    assert sorted(p.name for p in output.iterdir()) == names

    frame = read_image(photo)
    with open_model(toy) as model:
        result = model.segment(frame)
    assert 0 < result.labels.mean() < 1
    mask = read(output / "photo.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, result.labels)
    np.testing.assert_array_equal(read(output / "photo-alpha.png"), result.alpha)
    np.testing.assert_array_equal(read(output / "photo-cutout.png"), result.cutout(frame))
    shown = read(output / "photo-overlay.jpg").astype(int)
    assert np.abs(shown - result.overlay(frame)).mean() < 10  # a JPEG
    assert np.abs(shown - frame).mean() > 10


def test_predict_writes_masks_by_default(run: Run, toy: Path, photo: Path, tmp_path: Path) -> None:
    assert run("predict", toy, photo, "--output", tmp_path / "out", "--threads", "1").status == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.png"]


def test_predict_takes_folders_and_files(run: Run, toy: Path, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("b.png", "a.JPG", "c.webp"):
        write_image(folder / name, picture(20, 30))
    (folder / "notes.txt").write_text("no picture")
    (folder / "deeper").mkdir()
    ran = run("predict", toy, folder, photo, "--output", tmp_path / "out")
    assert ran.status == 0
    assert ran.out.startswith("4 pictures segmented")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png", "photo.png"]


def test_predict_with_several_classes(run: Run, tmp_path: Path, photo: Path) -> None:
    model = toy_onnx(tmp_path / "four.onnx", toy_contract(classes=RED_GREEN_BLUE))
    ran = run("predict", model, photo, "--output", tmp_path / "out", "--save", "mask", "--save", "alpha")
    assert ran.status == 0
    mask = read(tmp_path / "out" / "photo.png")
    assert set(np.unique(mask)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(read(tmp_path / "out" / "photo-alpha.png"), np.where(mask > 0, 255, 0))


def test_predict_again_replaces_the_results(run: Run, toy: Path, photo: Path, tmp_path: Path) -> None:
    run("predict", toy, photo, "--output", tmp_path / "out")
    first = read(tmp_path / "out" / "photo.png")
    write_image(photo, picture(33, 44, seed=3))
    assert run("predict", toy, photo, "--output", tmp_path / "out").status == 0
    assert read(tmp_path / "out" / "photo.png").shape == (33, 44) != first.shape


def test_predict_with_a_checkpoint(run: Run, checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    assert run("predict", checkpoint, photo, "--output", tmp_path / "out", "--device", "cpu").status == 0
    with open_model(checkpoint) as model:
        wanted = model.segment(read_image(photo)).labels
    np.testing.assert_array_equal(read(tmp_path / "out" / "photo.png"), wanted)


# -- info, models, doctor ------------------------------------------------------------------------


def test_info(run: Run, toy: Path) -> None:
    ran = run("info", toy)
    assert (ran.status, ran.err) == (0, "")
    for words in (str(toy), "ONNX Runtime", "64x96", "stretch", "float32 NCHW RGB, (pixel - 128) / 128"):
        assert words in ran.out
    for words in ("logits at stride 4, 2 classes, foreground from 0.5", "background, person", "not recorded"):
        assert words in ran.out


def test_info_tells_how_integers_came_about(run: Run, toy: Path, tmp_path: Path) -> None:
    made = Quantization("u8s8", "entropy", 128, "a folder", "ab" * 32, ("classifier",))
    ran = run(
        "info", toy_onnx(tmp_path / "q.onnx", toy_contract().replace(precision="int8", quantization=made))
    )
    assert "integers        u8s8, entropy on 128 pictures (a folder, list abababababab)" in ran.out
    assert "kept in float   classifier" in ran.out
    assert "integers" not in run("info", toy).out


def test_info_as_json_is_the_contract(run: Run, toy: Path, checkpoint: Path) -> None:
    for path in (toy, checkpoint):
        ran = run("info", path, "--json")
        assert (ran.status, ran.err) == (0, "")
        strictly(ran.out)
        with open_model(path) as model:
            wanted = model.contract if path == toy else model.contract.replace(dynamic=())
        assert InputContract.from_json(ran.out) == wanted


def test_info_of_everything_that_is_shipped(run: Run) -> None:
    for name, files in shipped().items():
        for path in files.values():
            assert f"model           {name}," in run("info", path).out
        ran = run("info", name)
        assert ran.status == 0
        assert "weights sha256" in ran.out


def test_models(run: Run) -> None:
    ran = run("models")
    assert (ran.status, ran.err) == (0, "")
    for name in (*shipped(), "v3plus", "v3", "lite", "nano"):
        assert f"\n  {name} " in ran.out


def test_models_as_json(run: Run) -> None:
    ran = run("models", "--json")
    assert (ran.status, ran.err) == (0, "")
    record = strictly(ran.out)
    assert set(record["shipped"]) == {name for name, files in shipped().items() if ".safetensors" in files}
    assert record["variants"]["nano"]["architecture"]["width"] == 0.5
    for text in map(json.dumps, record["shipped"].values()):
        assert InputContract.from_json(text).provenance.license


def test_doctor(run: Run) -> None:
    ran = run("doctor")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"edge-deeplab {__version__}, Python 3")
    section = ran.out.partition("Runtimes\n")[2].partition("\n\n")[0]
    for name, runtime in runtimes().items():
        (line,) = (line for line in section.splitlines() if line.startswith(f"  {name} "))
        assert " ".join(runtime.suffixes) in line
        assert any(word in line for word in ("works (", "installed (", "cure: pip install"))


def test_doctor_names_the_cure_for_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules.update(torch=None, onnxruntime=None)\n"
            "from edge_deeplab.cli import main; raise SystemExit(main(['doctor']))",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]  # LiteRT's own
    assert (done.returncode, said) == (0, [])
    assert "missing: torch is not installed; cure: pip install 'edge-deeplab[train]'" in done.stdout
    assert "missing: onnxruntime is not installed; cure: pip install 'edge-deeplab[onnx]'" in done.stdout


# -- export --------------------------------------------------------------------------------------


def test_export(run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    write_image(tmp_path / "pictures" / "a.png", picture(30, 40))
    arguments = ["--target", "safetensors", "--fp16", "--pictures", "pictures"]
    ran = run("export", checkpoint, *arguments)
    assert (ran.status, ran.err) == (0, "")
    assert "with PyTorch on 1 pictures (pictures)" in ran.out
    assert "verdict            verified" in ran.out
    path = tmp_path / "nano-fp16.safetensors"  # the default name: the model's and the precision, here
    assert f"written            {path.name} and {path.name}.report.json" in ran.out
    assert strictly(path.with_name(f"{path.name}.report.json").read_text())["sha256"] == sha256(path)
    assert "fp16" in run("info", path).out


def test_export_verified_on_labelled_pictures(
    run: Run, checkpoint: Path, people: Path, tmp_path: Path
) -> None:
    output = tmp_path / "x.safetensors"
    arguments = ["--output", output, "--data", f"folder:{people}", "--count", "1", "--size", "32x64"]
    ran = run("export", checkpoint, "--target", "safetensors", *arguments)
    assert (ran.status, ran.err) == (0, "")
    assert "on 1 pictures (people/val)" in ran.out
    assert "IoU" in ran.out
    with open_model(output) as model:
        assert (model.contract.height, model.contract.width) == (32, 64)


def test_export_to_onnx(run: Run, checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    """In the oldest opset, at a size that no stride divides."""
    onnx = pytest.importorskip("onnx")
    for package in ("onnxsim", "onnxscript"):
        pytest.importorskip(package)
    output = tmp_path / "x.onnx"
    options = ["--opset", "17", "--size", "50x77", "--head", "logits-full"]
    ran = run("export", checkpoint, "--target", "onnx", "--output", output, *options)
    assert (ran.status, ran.err) == (0, "")
    assert "verified" in ran.out
    assert {entry.domain: entry.version for entry in onnx.load(output).opset_import} == {"": 17}
    with open_model(output) as model:
        assert (model.contract.height, model.contract.width) == (50, 77)
        assert (model.contract.head, model.contract.head_stride) == ("logits-full", 1)
        assert dict(model.contract.metrics) == {}  # measured at another size
        wanted = model.segment(read_image(photo)).labels
    assert run("predict", output, photo, "--output", tmp_path / "out").status == 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "photo.png"), wanted)


# -- the progress bar ----------------------------------------------------------------------------


def test_the_bar_shows_itself_to_people_only(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [1, 2, 3]
    assert bar(items) is items  # pytest's standard error is no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert bar(items) is items


def test_results_go_where_they_can_be_piped(toy: Path) -> None:
    """Nothing but JSON on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_deeplab", "info", str(toy), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert strictly(done.stdout)["name"] == "toy"
    assert done.stderr == ""


def test_what_cannot_be_counted_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`0/1 [00:00<?, ?picture/s]` would be a lie."""
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    from edge_deeplab.cli.cmd_export import _progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(_progress(("tracing",), "tracing")) == ["tracing"]
    assert capsys.readouterr().err.split("\r")[1].strip() == "tracing ..."
    assert list(_progress([1, 2], "verifying")) == [1, 2]
    assert "0/2" in capsys.readouterr().err
