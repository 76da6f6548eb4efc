"""What is kept and what is refused: attempts, the search for layers to keep in float, force, diagnosis."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_deeplab.cli import main
from edge_deeplab.errors import UserError
from edge_deeplab.export import Options, export_model, remedies, targets
from edge_deeplab.export.calibration import packaged
from edge_deeplab.export.fold import fold, layers
from edge_deeplab.export.job import MOST_IN_FLOAT, Job
from edge_deeplab.export.remedies import correct_biases
from edge_deeplab.export.stages import Stage, from_checkpoint
from edge_deeplab.export.verify import labelled_pictures, sample_views, verify
from edge_deeplab.files import sha256
from edge_deeplab.imaging import write_image
from edge_deeplab.models.checkpoint import load_checkpoint, save_checkpoint
from edge_deeplab.runtimes.on_torch import TorchRuntime
from tests.runtimes.artefacts import picture

# -- attempts ------------------------------------------------------------------------------------


class Sick:
    """A network that is wrong by a little for every layer in ``culprits`` that is not left in float.

    Written as a checkpoint, so that everything but the illness is real.
    """

    def __init__(self, checkpoint: Path, culprits: Sequence[str]) -> None:
        self.model, self.contract = load_checkpoint(checkpoint)
        self.culprits = culprits
        self.tried: list[int] = []

    def stage(self, title: str = "", ranking: Sequence[str] | None = None) -> Stage:
        return Stage(title, self.write, ranking=None if ranking is None else lambda: list(ranking))

    def write(self, options: Options, path: Path) -> Any:
        self.tried.append(len(options.keep_float))
        wrong = copy.deepcopy(self.model)
        with torch.no_grad():
            ill = len(set(self.culprits) - set(options.keep_float))
            wrong.classifier.bias += 0.3 * ill  # type: ignore[operator]
        return save_checkpoint(path, wrong, self.contract)

    def job(self, folder: Path, *stages: Stage, **changes: Any) -> Job:
        folder.mkdir(exist_ok=True)
        return Job(
            reference=TorchRuntime(self.model, self.contract),
            stages=iter(stages),
            target=targets()["safetensors"],
            name="safetensors",
            options=Options(scratch=folder, **changes),
            samples=sample_views()[:2],
            source="two views",
        )


@pytest.mark.parametrize("last", [1, 2, 3, 5, 8, 11, 16])
def test_the_fewest_layers_that_make_it_pass_stay_in_float(
    checkpoint: Path, tmp_path: Path, last: int
) -> None:
    """The last culprit stands at place ``last`` of the ranking: so many must be left in float."""
    names = [layer.name for layer in layers(fold(load_checkpoint(checkpoint)[0]))]
    sick = Sick(checkpoint, [names[0], names[last - 1]])
    report = sick.job(tmp_path / "scratch", sick.stage(ranking=names)).run(tmp_path / "x.safetensors", "x")
    assert report.passed
    assert report.artefact == "x"
    assert sick.tried[0] == 0
    assert last in sick.tried
    assert len(sick.tried) <= 9
    # What lies there is the artefact that passed, not the last one tried.
    healthy, _ = load_checkpoint(tmp_path / "x.safetensors")
    assert torch.equal(healthy.classifier.bias, sick.model.classifier.bias)  # type: ignore[arg-type]


def test_the_search_gives_up(checkpoint: Path, tmp_path: Path) -> None:
    names = [layer.name for layer in layers(fold(load_checkpoint(checkpoint)[0]))]
    sick = Sick(checkpoint, [names[0], names[MOST_IN_FLOAT]])
    notes: list[str] = []
    job = sick.job(tmp_path / "scratch", sick.stage(ranking=names), note=notes.append)
    report = job.run(tmp_path / "x.safetensors", "x")
    assert not report.passed
    assert sick.tried == [0, 1, 2, 4, 8, 16]
    assert any("looking for layers to leave in float" in note for note in notes)


def test_layers_named_by_the_user_stay_and_are_not_tried_again(checkpoint: Path, tmp_path: Path) -> None:
    names = [layer.name for layer in layers(fold(load_checkpoint(checkpoint)[0]))]
    sick = Sick(checkpoint, [names[5], names[0]])
    job = sick.job(tmp_path / "scratch", sick.stage(ranking=names), keep_float=(names[5],))
    assert job.run(tmp_path / "x.safetensors", "x").passed
    assert sick.tried == [1, 2]


def test_a_later_stage_is_made_only_when_needed(checkpoint: Path, tmp_path: Path) -> None:
    well, sick = Sick(checkpoint, []), Sick(checkpoint, ["backbone.stem"])
    assert well.job(tmp_path / "a", well.stage(), sick.stage("never made")).run(
        tmp_path / "x.safetensors", "x"
    )
    assert (well.tried, sick.tried) == ([0], [])
    report = sick.job(tmp_path / "b", sick.stage(), well.stage("better")).run(tmp_path / "x.safetensors", "x")
    assert report.passed
    assert (well.tried, sick.tried) == ([0, 0], [0])


def test_the_best_of_the_failed_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    names = ["backbone.stem", "classifier", "aspp.project"]
    bad, worse = Sick(checkpoint, names[:1]), Sick(checkpoint, names)
    report = bad.job(tmp_path / "s", worse.stage("a"), bad.stage("b"), worse.stage("c")).run(
        tmp_path / "x.safetensors", "x"
    )
    assert not report.passed
    kept, _ = load_checkpoint(tmp_path / "x.safetensors")
    shift = kept.classifier.bias - bad.model.classifier.bias  # type: ignore[operator]
    torch.testing.assert_close(shift, torch.full_like(shift, 0.3))


def test_masks_decide_for_int8(
    checkpoint: Path, tmp_path: Path, make_people: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few labels agree, but the IoU against the masks did not fall: kept."""
    from edge_deeplab.data import open_split

    split = open_split(f"folder:{make_people(tmp_path / 'people')}", "val")
    target = targets()["safetensors"]
    tolerance = dataclasses.replace(
        target.tolerances["fp32"], logits=None, agreement=1.0, iou_drop=1.0, masks_decide=True
    )
    monkeypatch.setitem(target.tolerances, "fp32", tolerance)
    sick = Sick(checkpoint, ["backbone.stem"])
    job = dataclasses.replace(sick.job(tmp_path / "s", sick.stage()), samples=labelled_pictures(split, 4))
    report = job.run(tmp_path / "x.safetensors", "x")
    assert report.passed
    assert report.agreement < 1
    assert "at least" not in report.table().split("same label")[1].splitlines()[0]
    strict = dataclasses.replace(
        job, stages=iter([sick.stage()]), options=Options(max_drop=0, scratch=tmp_path)
    )
    assert report.iou_reference is not None
    assert report.iou_artefact is not None
    fell = report.iou_artefact < report.iou_reference
    again = strict.run(tmp_path / "y.safetensors", "y")
    assert again.passed != fell
    assert again.tolerance.iou_drop == 0


# -- what biases are corrected for -----------------------------------------------------------------


class Written:
    """A target that only keeps what it was told to write."""

    def __init__(self, **changes: Any) -> None:
        self.networks: list[Any] = []
        self.target = dataclasses.replace(targets()["onnx"], write=self.write, **changes)

    def write(self, model: Any, contract: Any, options: Options, path: Path) -> Any:
        self.networks.append(model)
        return contract

    def stages(self, checkpoint: Path, **changes: Any) -> list[Stage]:
        options = Options(precision="int8", calibration=packaged(16), **changes)
        return list(from_checkpoint(checkpoint, self.target, options)[2])


def biases(network: Any) -> torch.Tensor:
    return torch.cat([layer.convolution.bias for layer in layers(network)])  # type: ignore[misc]


def test_biases_are_corrected_for_the_layers_of_each_attempt(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the folded and of the equalised network, anew when the layers change and only then."""
    made: list[tuple[Any, frozenset[str], Any]] = []

    def watched(network: Any, images: Any, keep: Any = (), **scheme: Any) -> Any:
        made.append((network, keep, correct_biases(network, images, keep, **scheme)))
        return made[-1][2]

    monkeypatch.setattr(remedies, "correct_biases", watched)
    written = Written()
    stages = written.stages(checkpoint, scheme="u8s8")
    assert len(stages) == 2
    for stage in stages:
        made.clear()
        written.networks.clear()
        for kept in ((), ("classifier",), ("classifier", "aspp.project"), ("aspp.project", "classifier")):
            stage.write(Options(precision="int8", keep_float=kept), Path("nowhere"))
        assert [keep for _, keep, _ in made] == [
            frozenset(),
            frozenset({"classifier"}),
            frozenset({"classifier", "aspp.project"}),
        ]
        assert len({id(base) for base, _, _ in made}) == 1  # never on top of another correction
        assert [id(network) for network in written.networks] == [id(made[place][2]) for place in (0, 1, 2, 2)]
        assert not torch.equal(biases(made[0][2]), biases(made[1][2]))


@pytest.mark.parametrize(
    ("target", "scheme", "symmetric"),
    [("onnx", None, False), ("onnx", "s8s8", True), ("tflite", None, False), ("trt", None, True)],
)
def test_remedies_round_as_the_scheme_does(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, target: str, scheme: Any, symmetric: bool
) -> None:
    asked: list[bool] = []

    def watched(network: Any, *_: Any, symmetric: bool, **__: Any) -> Any:
        asked.append(symmetric)
        return network

    monkeypatch.setattr(remedies, "correct_biases", watched)
    known = targets()[target]
    stages = Written(schemes=known.schemes, symmetric=known.symmetric).stages(checkpoint, scheme=scheme)
    for stage in stages:
        stage.write(Options(precision="int8"), Path("nowhere"))
    assert asked == [symmetric] * 2


def test_no_search_where_no_layer_can_stay_in_float(checkpoint: Path) -> None:
    stages = Written(keeps_float=()).stages(checkpoint)
    assert [stage.ranking for stage in stages] == [None, None]


# -- which layers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "precision", "calibrated"),
    [("onnx", "int8", True), ("onnx", "fp16", False), ("tflite", "int8", True)],
)
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("42", "the last one is classifier; --diagnose lists all of them"),
        ("aspp.projekt", r"did you mean aspp\.project( or .*)?\? --diagnose"),
    ],
)
def test_a_layer_that_there_is_not(
    checkpoint: Path, tmp_path: Path, target: str, precision: str, calibrated: bool, name: str, hint: str
) -> None:
    options = Options(
        precision=precision, keep_float=("classifier", name), calibration=packaged(16) if calibrated else None
    )
    output = tmp_path / f"x{targets()[target].suffix}"
    with pytest.raises(UserError, match=f"no layer '{name}' to keep in float; {hint}"):
        export_model(str(checkpoint), target, output, options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("onnx", "fp32"),
        ("tflite", "fp32"),
        ("tflite", "fp16"),
        ("tflite", "int8-dynamic"),
        ("trt", "fp32"),
        ("safetensors", "fp16"),
    ],
)
def test_a_precision_that_holds_for_all_layers(tmp_path: Path, target: str, precision: str) -> None:
    output = tmp_path / f"x{targets()[target].suffix}"
    match = f"--target {target} cannot keep single layers in float in {precision}; leave --keep-float away"
    with pytest.raises(UserError, match=match):
        export_model("portrait", target, output, Options(precision=precision, keep_float=("classifier",)))


# -- masks without anything to measure -------------------------------------------------------------


def certain(checkpoint: Path, logit: float) -> TorchRuntime:
    """Answers the same everywhere."""
    model, contract = load_checkpoint(checkpoint)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.fill_(logit)  # type: ignore[operator]
    return TorchRuntime(model, contract)


@pytest.mark.parametrize("label", [0, 255], ids=["all background", "all ignored"])
@pytest.mark.parametrize(("reference", "artefact"), [(-5, 5), (5, -5), (-5, -5)])
def test_masks_that_hold_nothing_do_not_decide(
    checkpoint: Path, label: int, reference: float, artefact: float
) -> None:
    frame = picture(64, 96)
    truth = np.full((64, 96), label, np.uint8)
    report = verify(
        certain(checkpoint, artefact),
        certain(checkpoint, reference),
        [("a", lambda: (frame, truth))],
        path=checkpoint,
        name="x",
        target="onnx",
        source="nobody",
        tolerance=targets()["onnx"].tolerances["int8"],
    )
    assert report.passed == (reference == artefact)
    assert (report.iou_reference, report.iou_artefact) == (None, None)
    assert "hold nothing that IoU could be measured on" in report.table()
    if not report.passed:
        assert report.failures == ("only 0.0000% of labels agree",)
    record = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert record["iou_artefact"] is None


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(16):
        write_image(folder / f"{number:02d}.png", picture(64, 96, seed=number))
    return folder


def run_export(checkpoint: Path, output: Path, *flags: object) -> int:
    return main(["export", str(checkpoint), "--target", "onnx", "--output", str(output), *map(str, flags)])


def test_a_model_that_int8_ruins_is_refused(
    checkpoint: Path, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random network is noise amplified: every remedy is tried, in turn, and nothing is left behind."""
    output = tmp_path / "out" / "x.onnx"
    assert run_export(checkpoint, output, "--int8", "--calibration", pictures) == 1
    out, err = capsys.readouterr()
    assert "REFUSED: only" in out
    assert f"{output} was not written: only" in err.splitlines()[-1]
    for word in ("equalised", "looking for layers to leave in float"):
        assert word in err
        assert word in out  # the notes are part of the report
    assert "calibrated         minmax on 16 pictures" in out
    assert not output.parent.exists()


def test_force_keeps_it_and_says_so(
    checkpoint: Path, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.onnx"
    flags = ("--int8", "--calibration", pictures, "--no-remedies", "--force", "--diagnose")
    assert run_export(checkpoint, output, *flags) == 1
    out, err = capsys.readouterr()
    assert "was kept by --force, but failed: only" in err.splitlines()[-1]
    record = json.loads(output.with_name("x.onnx.report.json").read_text())
    assert record["passed"] is False
    assert record["quantization"]["pictures"] == 16
    listed = record["calibration"]
    assert [name for name, _ in listed] == sorted(file.name for file in pictures.iterdir())
    lines = "".join(f"{digest} {name}\n" for name, digest in listed)
    assert hashlib.sha256(lines.encode()).hexdigest() == record["quantization"]["sha256"]
    assert len(record["worst"]) == 5
    (worst,) = (line for line in out.splitlines() if line.startswith("  worst pictures"))
    assert [f"{share:.2%} {name}" for name, share in record["worst"]] == worst.split(None, 2)[2].split("; ")
    assert f"sha256             {sha256(output)[:12]}\n" in out
    assert {"edge-deeplab", "torch", "onnx", "onnxsim", "onnxscript", "onnxruntime"} <= set(
        record["versions"]
    )
    for name, version in record["versions"].items():
        assert f"{name} {version}" in out
    assert record["worst"][0][1] == record["worst_agreement"]
    names = [entry["name"] for entry in record["layers"]]
    assert names == [layer.name for layer in layers(fold(load_checkpoint(checkpoint)[0]))]
    assert "first bad layer" in out
    with open_again(output) as model:
        assert model.contract.quantization is not None


def test_another_size_is_compared_with_the_models_own_too(
    checkpoint: Path, tmp_path: Path, make_people: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """What a smaller input costs does not hide behind a reference of the same small size."""
    from edge_deeplab.runtimes import open_model

    data = f"folder:{make_people(tmp_path / 'people')}"
    _, contract = load_checkpoint(checkpoint)
    for size, there in (((contract.height, contract.width), False), ((32, 32), True)):
        flags = ("--size", f"{size[0]}x{size[1]}", "--data", data, "--force")
        run_export(checkpoint, tmp_path / "x.onnx", *flags)
        record = json.loads((tmp_path / "x.onnx.report.json").read_text())
        assert (record["own_size"] is not None) == there
        assert ("own size" in capsys.readouterr().out) == there
    from edge_deeplab.data import open_split
    from edge_deeplab.evaluation import evaluate

    split = open_split(data, "val")
    with open_model(checkpoint) as model:
        wanted = evaluate(lambda frame: model.segment(frame).labels, split).foreground_iou
    assert record["own_size"] == [contract.height, contract.width, pytest.approx(wanted)]


def open_again(path: Path) -> Any:
    from edge_deeplab.runtimes import open_model

    return open_model(path)


@pytest.fixture
def loud(checkpoint: Path, tmp_path: Path) -> Path:
    """The same function, but one layer's values are beyond 65504 and the next brings them back."""
    model, contract = load_checkpoint(checkpoint)
    with torch.no_grad():
        decoder: Any = model.decoder
        first, second = decoder.refine[0][0], decoder.refine[0][1]
        first[1].weight *= 2e5
        first[1].bias *= 2e5
        second[0].weight /= 2e5
    path = tmp_path / "loud.safetensors"
    save_checkpoint(path, model, contract)
    return path


def test_fp16_overflow_is_refused_and_the_layer_named(
    loud: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.onnx"
    assert run_export(loud, output, "--fp16", "--diagnose") == 1
    out, err = capsys.readouterr()
    assert "first bad layer    decoder.refine.0.0" in out
    assert "not finite" in out
    assert "decoder.refine.0.0 reaches" in err
    assert "float16 ends at 65504" in err
    assert not output.exists()


def test_the_file_that_was_refused_is_named(
    loud: Path, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the INT8 one, which was not even tried, but the FP16 one beside it."""
    output = tmp_path / "x.onnx"
    flags = ["--target", "trt", "--prepare", "--int8", "--beside-fp16", "--calibration", str(pictures)]
    assert main(["export", str(loud), *flags, "--output", str(output)]) == 1
    assert f"{tmp_path / 'x-fp16.onnx'} was not written: " in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.glob("*.onnx")) == []
