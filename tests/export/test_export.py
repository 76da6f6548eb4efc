"""What holds for every target: verified or gone, whole or not there, and clear words."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_deeplab.cli import main
from edge_deeplab.data import open_split
from edge_deeplab.errors import MissingExtra, UserError
from edge_deeplab.export import Options, VerificationError, export_model, targets
from edge_deeplab.export.calibration import packaged
from edge_deeplab.export.verify import folder_pictures, labelled_pictures, sample_views
from edge_deeplab.files import sha256
from edge_deeplab.imaging import read_image, write_image
from edge_deeplab.models.checkpoint import fingerprint, load_checkpoint
from edge_deeplab.runtimes import open_model
from edge_deeplab.zoo import find
from tests.runtimes.artefacts import nano_onnx, picture, toy_onnx

CASES = [(name, precision) for name, target in targets().items() for precision in target.tolerances]


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Shown:
    """What a user sees being done."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    def __call__(self, items: Iterable[Any], label: str) -> Iterator[Any]:
        assert self.begun == self.ended, f"{label} begins while {self.begun[-1]} goes on"
        self.begun.append(label)
        yield from items
        self.ended.append(label)


def test_a_step_that_fails_ends_its_bar() -> None:
    shown = Shown()
    with pytest.raises(ZeroDivisionError), Options(progress=shown).doing("dividing"):
        assert shown.begun == ["dividing"] != shown.ended
        _ = 1 / 0
    assert shown.ended == ["dividing"]


# -- every target and precision ------------------------------------------------------------------


@pytest.mark.parametrize(("target", "precision"), CASES, ids=["-".join(case) for case in CASES])
def test_there_and_back(checkpoint: Path, folder: Path, tmp_path: Path, target: str, precision: str) -> None:
    """Export, verify, open with its own runtime, and get nearly the labels of the checkpoint."""
    chosen = targets()[target]
    model, options = str(checkpoint), Options(precision=precision)
    if (target, precision) == ("onnx", "fp32"):
        path = nano_onnx(folder)  # exported and verified once a session
    else:
        if precision != "fp32" and target != "safetensors":
            # A random network is noise amplified, and rounding is noise: only a trained one keeps its labels.
            model, options = "portrait", dataclasses.replace(options, size=(160, 160))
        if precision == "int8":
            options = dataclasses.replace(options, calibration=packaged(16))
        path = tmp_path / f"x{chosen.suffix}"
        shown = Shown()
        try:
            report = export_model(model, target, path, dataclasses.replace(options, progress=shown))
        except MissingExtra as error:
            pytest.skip(str(error))
        assert report.passed
        assert shown.begun == shown.ended  # one after the other: bars within bars overwrite each other
        assert shown.begun[:2] == ["reading pictures", "starting PyTorch"]
        assert shown.begun[-1] == "verifying"
        written = everything(tmp_path)
        assert {path.name, f"{path.name}.report.json"} <= set(written)
        assert all(name.startswith(path.name) for name in written)  # an engine has a sidecar too
    record = json.loads(path.with_name(f"{path.name}.report.json").read_text())
    assert record["passed"]
    assert record["sha256"] == sha256(path)
    assert (record["target"], record["precision"]) == (target, precision)
    tolerance = chosen.tolerances[precision]
    assert record["tolerance"] == dataclasses.asdict(tolerance)
    with open_model(find(model, prefer=(".safetensors",))) as reference, open_model(path) as artefact:
        reference.contract = artefact.contract.replace(layout="NCHW", dtype="float32")
        assert artefact.contract.precision == precision
        assert artefact.contract.name == reference.contract.name
        assert artefact.contract.classes == reference.contract.classes
        same = [
            np.mean(artefact.segment(read()[0]).labels == reference.segment(read()[0]).labels)
            for _, read in sample_views()
        ]
    assert np.mean(same) >= tolerance.agreement - 2e-3


@pytest.mark.parametrize("target", targets())
def test_a_target_describes_itself(target: str) -> None:
    chosen = targets()[target]
    assert chosen.suffix.startswith(".")
    assert chosen.help
    assert "fp32" in chosen.tolerances
    for tolerance in chosen.tolerances.values():
        assert 0.9 < tolerance.agreement <= 1
        assert 0 <= tolerance.iou_drop < 0.1


def test_half_precision_halves_the_file_and_computes_in_float32(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    export_model(str(checkpoint), "safetensors", path, Options(precision="fp16"))
    assert path.stat().st_size < 0.6 * checkpoint.stat().st_size
    model, contract = load_checkpoint(path)
    assert contract.precision == "fp16"
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    full, _ = load_checkpoint(checkpoint)
    for (name, a), b in zip(model.state_dict().items(), full.state_dict().values(), strict=True):
        if a.is_floating_point():
            assert torch.equal(a, b.half().float()), name


def test_the_checkpoint_itself_is_not_touched(checkpoint: Path, tmp_path: Path) -> None:
    before = sha256(checkpoint)
    export_model(str(checkpoint), "safetensors", tmp_path / "x.safetensors")
    assert sha256(checkpoint) == before
    (a, mine), (b, its) = load_checkpoint(checkpoint), load_checkpoint(tmp_path / "x.safetensors")
    assert fingerprint(a.state_dict()) == fingerprint(b.state_dict())
    assert mine == its


# -- pictures to verify on -----------------------------------------------------------------------


def test_the_packaged_pictures_differ() -> None:
    frames = [read()[0] for _, read in sample_views()]
    assert len(frames) == 8
    assert len({frame.shape for frame in frames}) > 4
    assert all(frame.dtype == np.uint8 and frame.flags.c_contiguous for frame in frames)
    assert len({name for name, _ in sample_views()}) == 8


def test_labelled_pictures_give_the_iou(
    checkpoint: Path, tmp_path: Path, make_people: Callable[..., Path]
) -> None:
    split = open_split(f"folder:{make_people(tmp_path / 'people')}", "val")
    report = export_model(
        str(checkpoint),
        "safetensors",
        tmp_path / "out" / "x.safetensors",
        samples=labelled_pictures(split, 3),
        source=split.name,
    )
    assert (report.pictures, report.source) == (3, "people/val")
    assert report.iou_reference is not None
    assert report.iou_reference == report.iou_artefact
    assert 0 <= report.iou_reference <= 1
    assert "IoU" in report.table()


def test_a_folder_of_pictures_is_sampled_evenly(tmp_path: Path) -> None:
    for number in range(10):
        write_image(tmp_path / f"{number}.png", picture(8, 8, seed=number))
    (tmp_path / "notes.txt").write_text("not a picture")
    assert [name for name, _ in folder_pictures(tmp_path, 4)] == ["0.png", "3.png", "6.png", "9.png"]
    samples = folder_pictures(tmp_path, 100)
    assert [name for name, _ in samples] == [f"{n}.png" for n in range(10)]
    frame, mask = samples[7][1]()
    np.testing.assert_array_equal(frame, read_image(tmp_path / "7.png"))
    assert mask is None


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pictures in"):
        folder_pictures(tmp_path, 5)
    with pytest.raises(UserError, match="cannot read"):
        folder_pictures(tmp_path / "missing", 5)


# -- what fails leaves nothing -------------------------------------------------------------------


Write = Callable[..., Any]


@pytest.fixture
def change_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Write], Write]], None]:
    """Replace the safetensors target's ``write`` by a function of it."""
    known = targets()

    def change(wrap: Callable[[Write], Write]) -> None:
        target = known["safetensors"]
        monkeypatch.setitem(known, "safetensors", dataclasses.replace(target, write=wrap(target.write)))

    return change


def perturbing(write: Write) -> Write:
    """A target that gets the weights a little wrong."""

    def wrong(model: Any, *rest: Any) -> Any:
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.classifier.bias += 0.5
        return write(other, *rest)

    return wrong


def interrupted(write: Write) -> Write:
    """Ctrl-C after half the file."""

    def stopped(model: Any, contract: Any, options: Any, path: Path) -> Any:
        write(model, contract, options, path)
        path.write_bytes(path.read_bytes()[:1000])
        raise KeyboardInterrupt

    return stopped


def test_a_wrong_artefact_is_removed(
    checkpoint: Path, tmp_path: Path, change_write: Callable[..., None]
) -> None:
    change_write(perturbing)
    output = tmp_path / "new" / "x.safetensors"
    with pytest.raises(VerificationError, match="labels agree") as caught:
        export_model(str(checkpoint), "safetensors", output)
    report = caught.value.report
    assert not report.passed
    assert report.agreement < report.tolerance.agreement
    assert "REFUSED" in report.table()
    assert json.loads(report.to_json())["passed"] is False
    assert everything(tmp_path) == []


def test_outputs_are_compared_not_only_labels(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change_write: Callable[..., None]
) -> None:
    change_write(perturbing)
    target = targets()["safetensors"]
    lenient = dataclasses.replace(target.tolerances["fp32"], agreement=0.1)
    monkeypatch.setitem(target.tolerances, "fp32", lenient)
    with pytest.raises(VerificationError, match=r"outputs differ by up to 0\.5"):
        export_model(str(checkpoint), "safetensors", tmp_path / "x.safetensors")


def test_outputs_that_are_no_numbers_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change_write: Callable[..., None]
) -> None:
    """NaN is below every threshold, and so background everywhere: labels alone might not tell."""

    def broken(write: Write) -> Write:
        def wrong(model: Any, *rest: Any) -> Any:
            other = copy.deepcopy(model)
            with torch.no_grad():
                other.classifier.bias.fill_(float("nan"))
            return write(other, *rest)

        return wrong

    change_write(broken)
    target = targets()["safetensors"]
    lenient = dataclasses.replace(target.tolerances["fp32"], agreement=0)
    monkeypatch.setitem(target.tolerances, "fp32", lenient)
    with pytest.raises(VerificationError, match="outputs differ by up to nan"):
        export_model(str(checkpoint), "safetensors", tmp_path / "x.safetensors")
    assert everything(tmp_path) == []


def test_a_wrong_artefact_does_not_replace_a_good_one(
    checkpoint: Path, tmp_path: Path, change_write: Callable[..., None]
) -> None:
    output = tmp_path / "x.safetensors"
    export_model(str(checkpoint), "safetensors", output)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    change_write(perturbing)
    with pytest.raises(VerificationError):
        export_model(str(checkpoint), "safetensors", output)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_command_ends_with_1_when_verification_fails(
    checkpoint: Path, tmp_path: Path, change_write: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    change_write(perturbing)
    output = tmp_path / "x.safetensors"
    arguments = ["export", str(checkpoint), "--target", "safetensors", "--output", str(output)]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert "REFUSED" in out
    assert f"{output} was not written: only" in err
    assert err.count("\n") == 1
    assert everything(tmp_path) == []


def test_ctrl_c_leaves_nothing(
    checkpoint: Path, tmp_path: Path, change_write: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    change_write(interrupted)
    output = tmp_path / "new" / "x.safetensors"
    with pytest.raises(KeyboardInterrupt):
        export_model(str(checkpoint), "safetensors", output)
    assert everything(tmp_path) == []
    arguments = ["export", str(checkpoint), "--target", "safetensors", "--output", str(output)]
    assert main(arguments) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert everything(tmp_path) == []


def test_ctrl_c_while_verifying_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[object] = []

    def stop() -> Any:
        """Pictures are read once to see that they can be, then to verify on them."""
        if seen:
            raise KeyboardInterrupt
        seen.append("read")

    with pytest.raises(KeyboardInterrupt):
        export_model(str(checkpoint), "safetensors", tmp_path / "x.safetensors", samples=[("one", stop)])
    assert everything(tmp_path) == []


def test_a_full_disk_leaves_nothing(
    checkpoint: Path, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with full_disk(100_000), pytest.raises(UserError, match="cannot write"):
        export_model(str(checkpoint), "safetensors", tmp_path / "x.safetensors")
    assert everything(tmp_path) == []


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        pytest.param({"target": "paper"}, r"no export target 'paper'; there are: .*onnx", id="target"),
        pytest.param({"options": Options(precision="int3")}, "has no int3; it has: fp32", id="precision"),
        pytest.param({"output": "x.txt"}, r"must end in \.onnx", id="suffix"),
        pytest.param({"output": "file/x.onnx"}, "cannot write", id="a file in the way"),
        pytest.param({"output": "folder.onnx"}, "it is a folder", id="a folder of that name"),
        pytest.param({"model": "portrayt"}, "no model 'portrayt'", id="no such model"),
        pytest.param({"options": Options(head="soup")}, "head must be one of", id="head"),  # type: ignore[arg-type]
        pytest.param(
            {"target": "safetensors", "output": "x.safetensors", "options": Options(head="classmap")},
            "leave --head and --dynamic away",
            id="head of a checkpoint",
        ),
    ],
)
def test_wrong_arguments(checkpoint: Path, tmp_path: Path, arguments: dict[str, Any], match: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder.onnx").mkdir()
    before = everything(tmp_path)
    given: dict[str, Any] = {"model": str(checkpoint), "target": "onnx", "output": "x.onnx", **arguments}
    given["output"] = tmp_path / given["output"]
    with pytest.raises(UserError, match=match):
        export_model(**given)
    assert everything(tmp_path) == before


def test_only_checkpoints_can_be_exported(tmp_path: Path) -> None:
    path = toy_onnx(tmp_path / "toy.onnx")
    cure = r"give the one it was made from, or a shipped model: portrait"
    with pytest.raises(UserError, match=rf"starts from a checkpoint \(\.safetensors\), not from .*; {cure}"):
        export_model(str(path), "onnx", tmp_path / "x.onnx")
    fake = tmp_path / "fake.safetensors"
    fake.write_text("this is no checkpoint")
    with pytest.raises(UserError, match="damaged or no safetensors file"):
        export_model(str(fake), "onnx", tmp_path / "x.onnx")
    assert everything(tmp_path) == ["fake.safetensors", "toy.onnx"]


def test_a_broken_picture_is_named_before_anything_is_converted(
    checkpoint: Path, tmp_path: Path, make_people: Callable[..., Path], change_write: Callable[..., None]
) -> None:
    """Among those to verify on; with masks or without."""

    def never(*_: Any) -> Any:
        raise AssertionError("converted in vain")

    change_write(lambda _: never)
    root = make_people(tmp_path / "people", val=3)
    folder = root / "val" / "images"
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:200])
    labelled = labelled_pictures(open_split(f"folder:{root}", "val"), 3)
    for given in (labelled, folder_pictures(folder, 3)):
        with pytest.raises(UserError, match=last.name):
            export_model(str(checkpoint), "safetensors", tmp_path / "x.safetensors", samples=given)
    assert "x.safetensors" not in everything(tmp_path)


def test_something_must_be_compared(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pictures to verify on"):
        export_model(str(checkpoint), "safetensors", tmp_path / "x.safetensors", samples=[])
    assert everything(tmp_path) == []


def test_a_model_is_not_overwritten_by_its_export(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(checkpoint.read_bytes())
    with pytest.raises(UserError, match="is the model itself; give another name"):
        export_model(str(path), "safetensors", path, Options(precision="fp16"))
    assert path.read_bytes() == checkpoint.read_bytes()


def test_data_with_other_classes_is_refused(
    checkpoint: Path, tmp_path: Path, make_people: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_people(tmp_path / "people", val=1)
    (data / "classes.txt").write_text("sky\nroad\ncar\n")
    output = tmp_path / "x.safetensors"
    arguments = ["export", str(checkpoint), "--target", "safetensors", "--output", str(output)]
    assert main([*arguments, "--data", f"folder:{data}"]) == 2
    assert "has 2 classes, people/val has 3" in capsys.readouterr().err
    assert not output.exists()
