"""The training loop on a dozen small pictures: what it writes, that it repeats itself, and how it stops."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import read_image
from edge_deeplab.models.checkpoint import fingerprint, load_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.variants import variant
from edge_deeplab.runtimes.on_torch import TorchRuntime
from edge_deeplab.training import engine
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.dataset import Batches, Samples, loader
from edge_deeplab.training.engine import BEST, STATE, train
from edge_deeplab.training.losses import segmentation_loss
from edge_deeplab.training.optimizer import learning_rate, parameter_groups

# Worker processes are forked from a process with threads; Python 3.12 and later warn of that.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

STEPS = 30


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, make_people: Callable[..., Path]) -> Path:
    return make_people(tmp_path_factory.mktemp("data") / "people")


@pytest.fixture(scope="module")
def config(people: Path) -> TrainConfig:
    """Three steps an epoch, ten epochs, every kind of augmentation, about three seconds."""
    return TrainConfig(
        data=(f"folder:{people}",),
        name="toy",
        variant="nano",
        size=(64, 64),
        epochs=10,
        batch=4,
        lr=5e-3,
        warmup=5,
        strong=0.5,
        precision="fp32",
        val_every=5,
        checkpoint_every=2,
        workers=0,
        threads=1,
        device="cpu",
        seed=3,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> Path:
    """The folder of a run that nobody disturbed. Tests may not write into it."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    assert train(config, output) == output / BEST
    return output


def state_of(output: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(output / STATE, "pt") as file:
        return load_file(output / STATE), dict(file.metadata())


def log_of(output: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Weights, averages and optimiser, bit for bit, and the same best checkpoint."""
    (a, header_a), (b, header_b) = state_of(ours), state_of(theirs)
    assert a.keys() == b.keys()
    different = [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])]
    assert different == []
    assert header_a["step"] == header_b["step"]
    assert header_a["best"] == header_b["best"]
    assert fingerprint(load_file(ours / BEST)) == fingerprint(load_file(theirs / BEST))


class Stopped(Exception):
    """Stands for whatever ends a process."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the next training stop in front of a step."""
    original = engine.Trainer._train_step

    def stopping(self: engine.Trainer, batch: dict[str, Tensor]) -> float:
        if self.step == step:
            raise Stopped
        return original(self, batch)

    monkeypatch.setattr(engine.Trainer, "_train_step", stopping)


# -- what a run writes -----------------------------------------------------------------------------


def test_a_run_writes_what_it_should(finished: Path, config: TrainConfig) -> None:
    assert {p.name for p in finished.iterdir()} == {
        BEST,
        STATE,
        "metrics.jsonl",
        "config.json",
        "environment.json",
        "tensorboard",
        "samples",
    }
    assert json.loads((finished / "config.json").read_text()) == json.loads(
        json.dumps(dataclasses.asdict(config))
    )
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["opencv"] == cv2.__version__


def test_the_best_checkpoint_works(finished: Path, people: Path) -> None:
    model, contract = load_checkpoint(finished / BEST, variant="nano")
    assert (contract.name, contract.variant, contract.height, contract.width) == ("toy", "nano", 64, 64)
    assert contract.head_stride == model.head_stride == 4
    assert contract.binary
    assert contract.provenance.data == ("people/train (12 pictures)",)
    assert len(contract.provenance.date) == 10
    assert list(contract.metrics) == ["people/val iou"]
    answer = TorchRuntime.open(str(finished / BEST)).segment(read_image(people / "val" / "images" / "00.png"))
    assert answer.labels.shape == (48, 64)
    for name, value in load_file(finished / BEST).items():
        assert value.isfinite().all(), name


def test_the_last_state_holds_everything(finished: Path) -> None:
    tensors, header = state_of(finished)
    assert header["step"] == str(STEPS)
    assert {name.partition(".")[0] for name in tensors} == {"model", "average", "optimizer"}
    own = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    DeepLabV3Plus(variant("nano").architecture, 1).load_state_dict(own)
    assert any(not torch.equal(own[k], tensors[f"average.{k}"]) for k in own)


def test_the_log_is_json_lines(finished: Path) -> None:
    records = log_of(finished)
    validations = [record for record in records if "iou" in record]
    assert [record["step"] for record in validations] == [15, 30]
    assert all(record["data"] == "people/val" and record["images"] == 4 for record in validations)
    losses = [record for record in records if "loss" in record]
    assert [record["step"] for record in losses] == [20]
    assert 0 < losses[0]["loss"] < 3


def scalars(output: Path, tag: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def test_tensorboard_and_samples(finished: Path) -> None:
    assert scalars(finished, "train/loss") == scalars(finished, "train/lr") == [20]
    assert scalars(finished, "val/people/val") == [15, 30]
    assert sorted(p.name for p in (finished / "samples").iterdir()) == ["000015.jpg", "000030.jpg"]
    assert read_image(finished / "samples" / "000030.jpg").shape == (320, 2 * 240, 3)


def test_several_classes_in_bfloat16(tmp_path: Path, people: Path, config: TrainConfig) -> None:
    """Three classes, a mask with 255, two data sets, a picture more than fills the batches."""
    shutil.copytree(people, tmp_path / "pets")
    (tmp_path / "pets" / "classes.txt").write_text("background\ncat\ndog\n")
    for number, path in enumerate(sorted((tmp_path / "pets").glob("*/masks/*.png"))):
        mask: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[mask > 0] = 1 + number % 2
        mask[:3] = 255
        cv2.imwrite(str(path), mask)
    shutil.copytree(tmp_path / "pets", tmp_path / "more")
    (tmp_path / "more" / "train" / "images" / "00.png").unlink()
    (tmp_path / "more" / "train" / "masks" / "00.png").unlink()
    data = (f"folder:{tmp_path / 'pets'}", f"folder:{tmp_path / 'more'}")
    settings = dataclasses.replace(
        config, data=data, epochs=1, batch=5, precision="bf16", workers=1, val_every=1
    )
    best = train(settings, tmp_path / "run")
    model, contract = load_checkpoint(best)
    assert model.outputs == 3
    assert [info.name for info in contract.classes] == ["background", "cat", "dog"]
    assert set(contract.metrics) == {"pets/val miou", "more/val miou"}
    assert state_of(tmp_path / "run")[1]["step"] == "4"  # 23 pictures: the last 3 do not fill a batch
    assert {record["data"] for record in log_of(tmp_path / "run") if "iou" in record} == {
        "pets/val",
        "more/val",
    }


# -- the same run again ------------------------------------------------------------------------------


def test_the_number_of_workers_changes_nothing(tmp_path: Path, config: TrainConfig, finished: Path) -> None:
    train(dataclasses.replace(config, workers=1), tmp_path / "run")
    assert_same_run(tmp_path / "run", finished)


def test_another_seed_is_another_run(tmp_path: Path, config: TrainConfig, finished: Path) -> None:
    train(dataclasses.replace(config, seed=4, epochs=1), tmp_path / "run")
    ours, _ = state_of(tmp_path / "run")
    theirs, _ = state_of(finished)
    assert not torch.equal(ours["model.classifier.weight"], theirs["model.classifier.weight"])


def test_a_killed_run_resumes_to_the_same_weights(
    tmp_path: Path, config: TrainConfig, finished: Path
) -> None:
    """kill -9 at a random moment: in a step, while a file is written, during an evaluation."""
    output = tmp_path / "run"
    # The pauses make sure that the run is still going when it is killed.
    program = (
        "import sys, time, json\n"
        "from pathlib import Path\n"
        "from edge_deeplab.training import engine\n"
        "from edge_deeplab.training.config import TrainConfig\n"
        "step = engine.Trainer._train_step\n"
        "engine.Trainer._train_step = lambda self, batch: (time.sleep(0.1), step(self, batch))[1]\n"
        "values = json.loads(sys.argv[1])\n"
        "values.update(data=tuple(values['data']), size=tuple(values['size']), workers=1)\n"
        "engine.train(TrainConfig(**values), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, json.dumps(dataclasses.asdict(config)), str(output)]
    with (tmp_path / "words").open("wb") as words:
        process = subprocess.Popen(command, stdout=words, stderr=words)
        try:
            deadline = time.monotonic() + 600
            while not (output / STATE).exists():
                assert process.poll() is None, (tmp_path / "words").read_text()
                assert time.monotonic() < deadline, "no checkpoint after ten minutes"
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.5))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL, (tmp_path / "words").read_text()
    reached = int(state_of(output)[1]["step"])
    assert 2 <= reached < STEPS
    train(config, output, resume=True)
    assert_same_run(output, finished)
    steps = [(record["step"], "iou" in record) for record in log_of(output)]
    assert steps == [(record["step"], "iou" in record) for record in log_of(finished)]


@pytest.mark.parametrize("step", [1, 15, 17, 29])
def test_a_stopped_run_resumes_to_the_same_weights(
    tmp_path: Path, config: TrainConfig, finished: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before the first checkpoint, right after an evaluation, between checkpoints, before the last."""
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, step)
        train(config, tmp_path / "run")
    if step == 1:
        assert not (tmp_path / "run" / STATE).exists()
    else:
        assert int(state_of(tmp_path / "run")[1]["step"]) == (15 if step == 15 else step // 2 * 2)
    # These settings may change.
    changed = dataclasses.replace(config, checkpoint_every=7, threads=1, workers=0)
    train(changed, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", finished)
    assert scalars(tmp_path / "run", "val/people/val") == [15, 30]


def test_half_a_line_in_the_log_is_dropped(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 4)
        train(config, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 1.5}\n{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    train(dataclasses.replace(config, val_every=100), tmp_path / "run", resume=True)
    assert [record["step"] for record in log_of(tmp_path / "run")] == [2, 20, 30]


def test_a_finished_run_can_be_resumed_and_stays(tmp_path: Path, config: TrainConfig, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    assert train(config, tmp_path / "run", resume=True) == tmp_path / "run" / BEST
    assert_same_run(tmp_path / "run", finished)
    assert log_of(tmp_path / "run") == log_of(finished)


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight_decay": 0.1}, r"weight_decay 0\.01"),
        ({"seed": 4, "batch": 3}, "batch 4, seed 3"),
        ({"variant": "lite"}, "variant 'nano'"),
        ({"epochs": 11}, "epochs 10"),
        ({"size": (64, 96)}, r"size \[64, 64\]"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    tmp_path: Path, config: TrainConfig, finished: Path, changes: dict[str, Any], words: str
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / STATE).read_bytes()
    with pytest.raises(UserError, match=rf"was trained with other settings \({words}\); give the same ones"):
        train(dataclasses.replace(config, **changes), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / STATE).read_bytes() == before
    assert (tmp_path / "run" / "config.json").read_bytes() == (finished / "config.json").read_bytes()


def test_a_folder_with_a_run_is_not_overwritten(config: TrainConfig, finished: Path) -> None:
    before = (finished / STATE).read_bytes()
    with pytest.raises(
        UserError, match="holds a run already; continue it with --resume or choose another --output"
    ):
        train(config, finished)
    assert (finished / STATE).read_bytes() == before


def test_nothing_to_resume(tmp_path: Path, config: TrainConfig) -> None:
    with pytest.raises(
        UserError, match=r"nothing to resume in .*: it does not exist; start without --resume"
    ):
        train(config, tmp_path / "nowhere", resume=True)


@pytest.mark.parametrize("damage", ["cut", "text", "not ours", "other model"])
def test_a_damaged_state_is_refused(tmp_path: Path, config: TrainConfig, finished: Path, damage: str) -> None:
    from safetensors.torch import save_file

    output = tmp_path / "run"
    output.mkdir()
    tensors, header = state_of(finished)
    if damage == "cut":
        data = (finished / STATE).read_bytes()
        (output / STATE).write_bytes(data[: len(data) // 2])
    elif damage == "text":
        (output / STATE).write_text("no state")
    elif damage == "not ours":
        save_file({"x": torch.zeros(1)}, output / STATE)
    else:
        del tensors["model.classifier.weight"]
        save_file(tensors, output / STATE, header)
    with pytest.raises(UserError, match=r"last\.safetensors is (damaged|no training state)"):
        train(config, output, resume=True)


def test_a_batch_of_one_is_refused(tmp_path: Path, config: TrainConfig) -> None:
    with pytest.raises(
        UserError, match="--batch must be at least 2: image pooling's batch norm needs two pictures"
    ):
        train(dataclasses.replace(config, batch=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_pictures_for_a_batch(tmp_path: Path, config: TrainConfig) -> None:
    with pytest.raises(UserError, match="12 pictures do not fill one batch of 13; lower --batch"):
        train(dataclasses.replace(config, batch=13), tmp_path / "run")


def test_data_sets_with_different_classes(tmp_path: Path, people: Path, config: TrainConfig) -> None:
    shutil.copytree(people, tmp_path / "pets")
    (tmp_path / "pets" / "classes.txt").write_text("background\ncat\ndog\n")
    data = (*config.data, f"folder:{tmp_path / 'pets'}")
    with pytest.raises(UserError, match="pets/train has other classes than people/train"):
        train(dataclasses.replace(config, data=data), tmp_path / "run")


def test_a_damaged_picture_is_named(tmp_path: Path, people: Path, config: TrainConfig) -> None:
    shutil.copytree(people, tmp_path / "people")
    path = tmp_path / "people" / "train" / "images" / "05.png"
    path.write_bytes(path.read_bytes()[:-30])
    settings = dataclasses.replace(config, data=(f"folder:{tmp_path / 'people'}",), epochs=1)
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"05\.png: the file is cut short"):
            train(dataclasses.replace(settings, workers=workers), tmp_path / f"run{workers}")


# -- trouble on the way ------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the loss be NaN from a step on."""
    calls = iter(range(1000))

    def loss(*arguments: Any) -> Tensor:
        value = segmentation_loss(*arguments)
        return value if next(calls) < after else value * math.nan

    monkeypatch.setattr(engine, "segmentation_loss", loss)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_state(
    tmp_path: Path, config: TrainConfig, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match="the loss is nan at step 5") as caught,
    ):
        poison(patch, 5)
        train(config, tmp_path / "run")
    assert str(tmp_path / "run" / STATE) in str(caught.value)
    assert "\n" not in str(caught.value)
    tensors, header = state_of(tmp_path / "run")
    assert header["step"] == "4"
    assert all(value.isfinite().all() for value in tensors.values())
    train(config, tmp_path / "run", resume=True)  # a hiccup: nothing of it is left
    assert_same_run(tmp_path / "run", finished)


def test_the_cure_for_a_loss_that_is_no_number_can_be_taken(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says: resume with a lower --lr."""
    with monkeypatch.context() as patch, pytest.raises(UserError, match="resume with a lower --lr"):
        poison(patch, 5)
        train(config, tmp_path / "run")
    train(dataclasses.replace(config, lr=config.lr / 10), tmp_path / "run", resume=True)
    assert state_of(tmp_path / "run")[1]["step"] == str(STEPS)


def test_the_message_names_no_state_that_is_not_there(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="the loss is nan at step 1") as caught:
        poison(monkeypatch, 1)
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / STATE).exists()
    assert STATE not in str(caught.value)


def test_a_rate_that_is_far_too_high_stops(tmp_path: Path, config: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d"):
        train(dataclasses.replace(config, lr=1e30, checkpoint_every=1), tmp_path / "run")


def test_a_full_disk_stops_with_one_line_and_keeps_the_last_state(
    tmp_path: Path,
    config: TrainConfig,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 6)
        train(config, tmp_path / "run")
    before = (tmp_path / "run" / STATE).read_bytes()
    with full_disk(len(before) // 2), pytest.raises(UserError, match="cannot write"):
        train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / STATE).read_bytes() == before
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", finished)


# -- schedule and optimiser --------------------------------------------------------------------------


def test_learning_rate(config: TrainConfig) -> None:
    settings = dataclasses.replace(config, warmup=4, power=0.9)
    factors = [learning_rate(step, 14, settings) for step in range(14)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[9] == pytest.approx(0.5**0.9)
    assert factors[13] == pytest.approx(0.1**0.9)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    linear = dataclasses.replace(config, warmup=0, power=1.0)
    assert [learning_rate(step, 4, linear) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_learning_rate_of_a_run_shorter_than_its_warm_up(config: TrainConfig) -> None:
    settings = dataclasses.replace(config, warmup=100)
    factors = [learning_rate(step, 10, settings) for step in range(10)]
    assert factors == [(step + 1) / 100 for step in range(10)]


def test_parameter_groups(config: TrainConfig) -> None:
    settings = dataclasses.replace(config, lr=1.0, backbone_lr=0.25, weight_decay=0.5)
    model = DeepLabV3Plus(variant("lite").architecture, 3)
    groups = parameter_groups(model, settings)
    found = {id(p): group for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    modules = dict(model.named_modules())
    kinds = set()
    for name, parameter in model.named_parameters():
        owner = modules[name.rpartition(".")[0]]
        group = found[id(parameter)]
        in_backbone = name.startswith("backbone.")
        assert group["peak"] == (0.25 if in_backbone else 1.0), name
        pointwise = isinstance(owner, nn.Conv2d) and owner.groups == 1 and name.endswith("weight")
        assert group["weight_decay"] == (0.5 if pointwise else 0.0), name
        kinds.add((in_backbone, pointwise, type(owner).__name__))
    assert {(True, False, "BatchNorm2d"), (False, False, "BatchNorm2d"), (True, True, "Conv2d")} <= kinds
    assert found[id(model.classifier.bias)]["weight_decay"] == 0.0
    assert found[id(model.classifier.weight)]["weight_decay"] == 0.5
    depthwise = model.get_parameter("aspp.atrous.0.0.0.weight")
    assert depthwise.shape[1] == 1
    assert found[id(depthwise)]["weight_decay"] == 0.0


def test_the_optimiser_follows_the_schedule(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = engine.Trainer(config, tmp_path / "run")
    batch = next(iter(loader(trainer.samples, config, 0, 1)))
    trainer._train_step(batch)
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    factor = learning_rate(0, STEPS, config)
    assert rates == {config.lr * factor, config.lr * config.backbone_lr * factor}


# -- samples -------------------------------------------------------------------------------------------


def samples_of(config: TrainConfig) -> Samples:
    from edge_deeplab.data import open_split

    return Samples([open_split(spec, "train") for spec in config.data], config)


def test_a_sample_follows_from_seed_epoch_and_index_only(config: TrainConfig) -> None:
    samples = samples_of(config)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = samples[3, 5]
    assert torch.equal(torch.get_rng_state(), state)  # the training's own randomness is not touched
    torch.manual_seed(2)
    samples[0, 0]
    again = samples[3, 5]
    assert all(torch.equal(first[k], again[k]) for k in first)
    for other in (samples[4, 5], samples[3, 6], samples_of(dataclasses.replace(config, seed=9))[3, 5]):
        assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_samples_have_their_kinds_and_sizes(config: TrainConfig, size: tuple[int, int]) -> None:
    samples = samples_of(dataclasses.replace(config, size=size, strong=1.0))
    for index in range(40):
        sample = samples[index, index % 12]
        assert {k: (v.dtype, tuple(v.shape)) for k, v in sample.items()} == {
            "image": (torch.uint8, (3, *size)),
            "label": (torch.uint8, size),
            "band": (torch.uint8, size),
        }
        assert all(type(v) is Tensor for v in sample.values())
        assert set(sample["label"].unique().tolist()) <= {0, 1}
        assert set(sample["band"].unique().tolist()) <= {0, 1}


def test_labels_follow_the_pictures(config: TrainConfig) -> None:
    """The people are bright: through every mild warp, what is labelled is brighter than the rest."""
    samples = samples_of(dataclasses.replace(config, strong=0.0))
    for index in range(24):
        sample = samples[index, index % 12]
        brightness = sample["image"].float().mean(0)
        inside = sample["label"] == 1
        assert inside.any()
        assert brightness[inside].mean() > brightness[~inside].mean() + 20


def test_every_epoch_shows_every_picture_once(config: TrainConfig) -> None:
    keys = [key for batch in Batches(12, config, 0, STEPS) for key in batch]
    for epoch in range(10):
        assert sorted(index for e, index in keys if e == epoch) == list(range(12))
    orders = {tuple(index for e, index in keys if e == epoch) for epoch in range(10)}
    assert len(orders) == 10
    whole = list(Batches(12, config, 0, STEPS))
    assert len(Batches(12, config, 7, STEPS)) == STEPS - 7
    assert list(Batches(12, config, 7, STEPS)) == whole[7:]


def test_the_last_short_batch_is_dropped(config: TrainConfig) -> None:
    batches = list(Batches(14, config, 0, 6))
    assert [len(batch) for batch in batches] == [4] * 6
    assert [batch[0][0] for batch in batches] == [0, 0, 0, 1, 1, 1]


# -- loss ------------------------------------------------------------------------------------------------


def random_targets(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, classes if classes > 2 else 1, 8, 8, generator=generator)
    label = torch.randint(0, classes, (3, 32, 32), generator=generator).to(torch.uint8)
    band = torch.randint(0, 2, (3, 32, 32), generator=generator).to(torch.uint8)
    return logits, label, band


@pytest.mark.parametrize("classes", [2, 4])
def test_ignored_pixels_have_no_gradient_and_no_say(config: TrainConfig, classes: int) -> None:
    logits, label, band = random_targets(classes)
    logits = nn.functional.interpolate(logits, (32, 32)).requires_grad_()
    label[:, 10:20] = 255
    loss = segmentation_loss(logits, label, band, config)
    (grad,) = torch.autograd.grad(loss, logits)
    assert not grad[:, :, 10:20].any()
    assert grad[:, :, :10].any()
    changed = logits.detach().clone()
    changed[:, :, 10:20] += 3
    band[:, 10:20] = 1 - band[:, 10:20]
    torch.testing.assert_close(segmentation_loss(changed, label, band, config), loss.detach())


@pytest.mark.parametrize("classes", [2, 4])
def test_nothing_known_costs_next_to_nothing(config: TrainConfig, classes: int) -> None:
    logits, label, band = random_targets(classes)
    loss = segmentation_loss(logits, torch.full_like(label, 255), band, config)
    assert float(loss) == 0


@pytest.mark.parametrize("classes", [2, 4])
def test_loss_falls_as_answers_get_better(config: TrainConfig, classes: int) -> None:
    _, label, band = random_targets(classes)
    one_hot = nn.functional.one_hot(label.long(), classes).permute(0, 3, 1, 2).float() * 2 - 1
    right = one_hot if classes > 2 else one_hot[:, 1:]
    losses = [float(segmentation_loss(right * sure, label, band, config)) for sure in (-5, -1, 0, 1, 5, 30)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01


def test_cross_entropy_is_weighted_in_the_band_and_normalised(config: TrainConfig) -> None:
    logits, label, band = random_targets(4)
    full = nn.functional.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
    each = nn.functional.cross_entropy(full, label.long(), reduction="none")
    weight = 1.0 + 4.0 * band
    wanted = (each * weight).sum() / weight.sum()
    settings = dataclasses.replace(config, boundary_weight=5.0)
    torch.testing.assert_close(segmentation_loss(logits, label, band, settings), wanted)
    even = dataclasses.replace(config, boundary_weight=1.0)
    torch.testing.assert_close(segmentation_loss(logits, label, band, even), each.mean())


def test_dice_is_added_for_two_classes(config: TrainConfig) -> None:
    logits, label, band = random_targets(2)
    without = segmentation_loss(logits, label, band, dataclasses.replace(config, dice=0.0))
    full = nn.functional.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)[:, 0]
    probability, target = torch.sigmoid(full), label.float()
    dice = 1 - (2 * (probability * target).sum((1, 2)) + 1) / ((probability + target).sum((1, 2)) + 1)
    ours = segmentation_loss(logits, label, band, dataclasses.replace(config, dice=0.5))
    torch.testing.assert_close(ours, without + 0.5 * dice.mean())


def test_the_band_lies_around_the_contour() -> None:
    from edge_deeplab.training.augment import contour_band

    label = np.zeros((20, 40), np.uint8)
    label[:, 20:] = 1
    band = contour_band(label, 5)
    assert np.flatnonzero(band[10]).tolist() == [18, 19, 20, 21]
    assert not contour_band(np.full((20, 20), 3, np.uint8), 9).any()
    label[:, 30:] = 255
    assert contour_band(label, 5).dtype == np.uint8
