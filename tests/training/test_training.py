"""The training loop on a dozen small pictures: what it writes, that it repeats itself, and how it stops."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing import resource_sharer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import read_image
from edge_deeplab.models.checkpoint import load_checkpoint
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.variants import variant
from edge_deeplab.runtimes.on_torch import TorchRuntime
from edge_deeplab.training import engine, objective
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.config_file import read_config
from edge_deeplab.training.dataset import Batches, Samples, loader
from edge_deeplab.training.engine import Trainer, train
from edge_deeplab.training.losses import segmentation_loss
from edge_deeplab.training.place import BEST, STATE
from tests.training.support import assert_same_run, log_of, state_of

# Worker processes are forked from a process with threads; Python 3.12 and later warn of that.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

STEPS = 30


class Stopped(Exception):
    """Stands for whatever ends a process."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the next training stop in front of a step."""
    original = engine.Trainer._train_step

    def stopping(self: engine.Trainer, batch: dict[str, Tensor]) -> float:
        if self.progress.step == step:
            raise Stopped
        return original(self, batch)

    monkeypatch.setattr(engine.Trainer, "_train_step", stopping)


# -- what a run writes -----------------------------------------------------------------------------


def test_a_run_writes_what_it_should(finished: Path, config: TrainConfig) -> None:
    assert {p.name for p in finished.iterdir()} - {"changes.patch"} == {
        BEST,
        STATE,
        "metrics.jsonl",
        "config.yaml",
        "environment.json",
        "curves.png",
        "tensorboard",
        "samples",
    }
    assert TrainConfig(**read_config(finished / "config.yaml")) == config
    height, width = read_image(finished / "curves.png").shape[:2]
    assert height > 300
    assert width > 1000
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
    # Photo, truth and answer of two pictures of 64x48, at a longest side of 240.
    assert read_image(finished / "samples" / "000030.jpg").shape == (180 + 18, 2 * (3 * 240 + 10), 3)


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
    assert (tmp_path / "run" / "config.yaml").read_bytes() == (finished / "config.yaml").read_bytes()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("change", ["one less", "another name"])
def test_resuming_with_other_pictures_is_refused(
    tmp_path: Path, people: Path, config: TrainConfig, split: str, change: str
) -> None:
    """Which picture comes when, the number of steps and the rate would all change in silence."""
    root = tmp_path / "people"
    shutil.copytree(people, root)
    settings = dataclasses.replace(config, data=(f"folder:{root}",), epochs=1, val_every=1)
    train(settings, tmp_path / "run")
    train(settings, tmp_path / "run", resume=True)  # the same pictures
    before = (tmp_path / "run" / STATE).read_bytes()
    for part in ("images", "masks"):
        file = root / split / part / "00.png"
        file.rename(file.with_name("zz.png"))
        if change == "one less":
            file.with_name("zz.png").unlink()
    now, then = {"train": (12, 12), "val": (4, 4)}[split]
    now -= change == "one less"
    words = rf"people/{split} holds other pictures \({now}\) than .* was trained with \({then}\); put those"
    with pytest.raises(UserError, match=words):
        train(settings, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / STATE).read_bytes() == before


def test_parts_of_a_batch_may_change_on_resume(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they must when fewer processes go on with the same batch; where parts matter, that is told."""
    for norm, told in (("frozen", False), ("batch", True)):
        settings = dataclasses.replace(config, epochs=1, norm=norm, checkpoint_every=1)
        output = tmp_path / norm
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stop_at(patch, 2)
            train(dataclasses.replace(settings, accumulate=2), output)
        capsys.readouterr()
        train(settings, output, resume=True)
        assert state_of(output)[1]["step"] == "3"
        assert ("--accumulate was 2" in capsys.readouterr().out) == told


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
    data = (*config.data, f"folder:{tmp_path / 'pets'}")
    for names, words in (
        ("background\ncat\ndog\n", "3, not 2"),
        ("background\ncat\n", "id 1 is cat, not person"),
        ("person\nbackground\n", "in another order"),
    ):
        (tmp_path / "pets" / "classes.txt").write_text(names)
        with pytest.raises(UserError, match=f"pets/train has other classes than people/train: {words}"):
            train(dataclasses.replace(config, data=data), tmp_path / "run")


def test_data_sets_that_only_paint_their_classes_differently(
    tmp_path: Path, people: Path, config: TrainConfig
) -> None:
    shutil.copytree(people, tmp_path / "people")
    (tmp_path / "people" / "classes.txt").write_text("background\nperson\n")
    data = (*config.data, f"folder:{tmp_path / 'people'}")
    trainer = Trainer(dataclasses.replace(config, data=data), tmp_path / "run")
    first, second = (split.classes for split in trainer.train_splits)
    assert first != second
    assert trainer.contract.classes == first
    assert len(trainer.samples) == 24


def damage(root: Path, split: str, what: str) -> str:
    """Spoil the sixth picture of train or the third of val; returns how the message starts."""
    name = {"train": "05.png", "val": "02.png"}[split]
    image, mask = (root / split / part / name for part in ("images", "masks"))
    if what == "unreadable":
        image.write_bytes(image.read_bytes()[:-30])
        return f"cannot read {image}: the file is cut short"
    pixels: Any = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    if what == "label id":
        pixels[0, :2] = (7, 9)
        cv2.imwrite(str(mask), pixels)
        return f"{mask} holds "
    cv2.imwrite(str(mask), pixels[:-1])
    return f"photo and mask differ in size: {image} is 64x48, {mask} is 64x47"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("what", ["unreadable", "label id", "size"])
def test_a_bad_training_picture_is_named_in_one_line(
    tmp_path: Path, people: Path, config: TrainConfig, what: str, workers: int
) -> None:
    """Read here or in a worker process, whose exceptions torch would send back with their traceback."""
    spec = three_classes(people, tmp_path / "pets")
    words = damage(tmp_path / "pets", "train", what)
    settings = dataclasses.replace(config, data=(spec,), epochs=1, workers=workers)
    with pytest.raises(UserError) as caught:
        train(settings, tmp_path / "run")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("what", ["unreadable", "label id"])
def test_a_bad_val_picture_is_named_and_the_last_state_stays(
    tmp_path: Path, people: Path, config: TrainConfig, what: str
) -> None:
    spec = three_classes(people, tmp_path / "pets")
    words = damage(tmp_path / "pets", "val", what)
    settings = dataclasses.replace(config, data=(spec,), epochs=1, val_every=1)
    with pytest.raises(UserError) as caught:
        train(settings, tmp_path / "run")
    assert str(caught.value).startswith(words)
    assert state_of(tmp_path / "run")[1]["step"] == "2"
    assert not (tmp_path / "run" / BEST).exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_refused(tmp_path: Path, people: Path, config: TrainConfig, split: str) -> None:
    shutil.copytree(people, tmp_path / "people")
    for part in ("images", "masks"):
        for file in (tmp_path / "people" / split / part).iterdir():
            file.unlink()
    settings = dataclasses.replace(config, data=(f"folder:{tmp_path / 'people'}",))
    with pytest.raises(UserError, match=f"the {split} split is empty"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_killed_worker_is_told_in_one_line(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does it when memory runs out."""
    original, trainer = Samples.__getitem__, os.getpid()

    def dying(self: Samples, key: tuple[int, int]) -> dict[str, Tensor]:
        if os.getpid() != trainer and key[0] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, key)

    monkeypatch.setattr(Samples, "__getitem__", dying)
    with pytest.raises(UserError, match=r"a process that reads pictures was killed.*--resume") as caught:
        train(dataclasses.replace(config, workers=1), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_worker_that_dies_while_it_hands_a_batch_over_is_told_in_one_line(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket is gone before the kernel says that it is; so this one closes the socket and lives."""
    original, trainer = Samples.__getitem__, os.getpid()
    fetched, closed = multiprocessing.Event(), multiprocessing.Event()

    def closing(self: Samples, key: tuple[int, int]) -> dict[str, Tensor]:
        if os.getpid() != trainer and key[0] == 1 and not closed.is_set():
            fetched.wait(60)
            time.sleep(0.5)  # until a thread of the process has announced the batches before this
            resource_sharer.stop(timeout=5)
            closed.set()
        return original(self, key)

    settings = dataclasses.replace(config, workers=1)
    samples = Samples([open_split(spec, "train") for spec in settings.data], settings)
    monkeypatch.setattr(Samples, "__getitem__", closing)
    batches = loader(samples, settings, Batches(len(samples), settings, 0, STEPS))
    next(batches)
    fetched.set()
    assert closed.wait(60)
    with pytest.raises(UserError, match=r"a process that reads pictures was killed.*--resume"):
        next(batches)


# -- trouble on the way ------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the loss be NaN from a step on."""
    calls = iter(range(1000))

    def loss(*arguments: Any) -> Tensor:
        value = segmentation_loss(*arguments)
        return value if next(calls) < after else value * math.nan

    monkeypatch.setattr(objective, "segmentation_loss", loss)


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


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gradient_that_is_no_number_never_reaches_the_weights(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    """The loss itself stays finite: square roots at 0 and the like do that."""
    calls = iter(range(1000))

    def loss(*arguments: Any) -> Tensor:
        value = segmentation_loss(*arguments)
        nothing = (value * 0).abs()
        return value if next(calls) < 3 else value + nothing.sqrt()

    monkeypatch.setattr(objective, "segmentation_loss", loss)
    settings = dataclasses.replace(config, checkpoint_every=1, val_every=100, epochs=25, precision=precision)
    with pytest.raises(UserError, match="the gradient is not finite") as caught:
        train(settings, tmp_path / "run")
    tensors, header = state_of(tmp_path / "run")
    assert all(value.isfinite().all() for value in tensors.values())
    (record,) = [record for record in log_of(tmp_path / "run") if "not_finite" in record]
    assert len(record["pictures"]) == settings.batch
    assert "holds the last good state: resume" in str(caught.value)
    if precision == "fp32":
        assert (header["step"], record["step"]) == ("3", 3)


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


def test_the_batch_is_named(tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of the step whose loss is no number: some in the message, all in the log."""
    with pytest.raises(UserError) as caught:
        poison(monkeypatch, 7)
        train(config, tmp_path / "run")
    (record,) = [record for record in log_of(tmp_path / "run") if "not_finite" in record]
    assert record["step"] == 7
    names = [Path(name).name for name in record["pictures"]]
    wanted = [f"{index:02d}.png" for _, index in next(iter(Batches(12, config, 7, 8)))]
    assert names == wanted
    assert f"at step 7 (epoch 2, pictures {', '.join(names)};" in str(caught.value)
    # A run that goes on leaves the note out again, since the step is done anew.
    monkeypatch.undo()
    train(config, tmp_path / "run", resume=True)
    assert not [record for record in log_of(tmp_path / "run") if "not_finite" in record]


def three_classes(people: Path, path: Path) -> str:
    """The pictures with ids 0, 1 and 2, every other person of either kind."""
    shutil.copytree(people, path)
    (path / "classes.txt").write_text("background\ncat\ndog\n")
    for number, file in enumerate(sorted(path.glob("*/masks/*.png"))):
        mask: Any = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        mask[mask > 0] = 1 + number % 2
        cv2.imwrite(str(file), mask)
    return f"folder:{path}"


def test_a_best_checkpoint_is_written_where_nothing_can_be_scored(
    tmp_path: Path, people: Path, config: TrainConfig
) -> None:
    data = three_classes(people, tmp_path / "pets")
    for file in (tmp_path / "pets" / "val" / "masks").iterdir():
        cv2.imwrite(str(file), np.full((48, 64), 255, np.uint8))
    best = train(dataclasses.replace(config, data=(data,), epochs=2, val_every=1), tmp_path / "run")
    _, contract = load_checkpoint(best)
    assert contract.metrics == {}
    records = [record for record in log_of(tmp_path / "run") if "iou" in record]
    assert [record["step"] for record in records] == [3, 6]
    assert [record["miou"] for record in records] == [None, None]
    assert [record["mean_image_iou"] for record in records] == [None, None]
    # Nothing says which weights are better: the last ones stay.
    last, _ = state_of(tmp_path / "run")
    for name, value in load_file(best).items():
        assert torch.equal(value, last[f"average.{name}"]), name


def test_leftovers_of_a_killed_run_go(tmp_path: Path, config: TrainConfig, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    for left in (tmp_path / "run" / ".part-abc.safetensors", tmp_path / "run" / "samples" / ".part-x.jpg"):
        left.write_bytes(b"half")
    train(config, tmp_path / "run", resume=True)
    assert not list((tmp_path / "run").rglob(".part-*"))


def test_a_state_from_before_a_setting_existed_is_read(
    tmp_path: Path, config: TrainConfig, finished: Path
) -> None:
    """As written by versions that knew no crops, teachers or parts."""
    from safetensors.torch import save_file

    output = tmp_path / "run"
    shutil.copytree(finished, output)
    tensors, header = state_of(finished)
    old = json.loads(header["config"])
    for name in ("crop", "scale", "optimizer", "momentum", "teacher", "qat", "accumulate", "resize", "ohem"):
        del old[name]
    header["config"] = json.dumps(old)
    del header["scaler"]
    save_file(tensors, output / STATE, header)
    train(config, output, resume=True)
    assert_same_run(output, finished)
    with pytest.raises(UserError, match="was trained with other settings"):
        train(dataclasses.replace(config, ohem=0.5), output, resume=True)


# -- other recipes -----------------------------------------------------------------------------------

RECIPES: dict[str, dict[str, Any]] = {
    "papers": {
        "crop": (48, 64),
        "optimizer": "sgd",
        "lr": 0.01,
        "label_aware": 0.5,
        "class_weights": "median",
        "ohem": 0.5,
        "norm": "frozen",
        "output_stride": 8,
        "resize": "letterbox",
    },
    "half": {
        "precision": "fp16",
        "class_weights": "log",
        "accumulate": 2,
        "channels_last": False,
        "crop": (64, 64),
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_stopped_run_of_another_recipe_resumes_to_the_same_weights(
    tmp_path: Path, people: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = three_classes(people, tmp_path / "pets")
    settings = dataclasses.replace(config, data=(data,), epochs=2, val_every=1, **RECIPES[name])
    best = train(settings, tmp_path / "whole")
    model, contract = load_checkpoint(best)
    assert model.architecture.output_stride == (8 if name == "papers" else 16)
    assert contract.resize == settings.resize
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 4)
        train(settings, tmp_path / "run")
    train(settings, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    start = DeepLabV3Plus(model.architecture, 3).state_dict()
    tensors, _ = state_of(tmp_path / "run")
    moved = not torch.equal(
        tensors["model.backbone.stem.1.running_mean"], start["backbone.stem.1.running_mean"]
    )
    assert moved == (settings.norm == "batch")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo looks at all
def test_the_network_can_be_compiled(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced by dynamo and run; generating machine code would take minutes and is torch's own affair."""
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled(self, backend="eager"))
    settings = dataclasses.replace(config, epochs=1, val_every=1)
    train(dataclasses.replace(settings, compile=True), tmp_path / "compiled")
    monkeypatch.undo()
    train(settings, tmp_path / "plain")
    (ours, _), (theirs, _) = state_of(tmp_path / "compiled"), state_of(tmp_path / "plain")
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-5)


def test_val_splits_of_one_name_are_chosen_by_together(
    tmp_path: Path, people: Path, config: TrainConfig
) -> None:
    """Of two data sets whose folders are called alike, neither figure takes the other's place."""
    shutil.copytree(people, tmp_path / "theirs" / people.name)
    both = (f"folder:{people}", f"folder:{tmp_path / 'theirs' / people.name}")
    settings = dataclasses.replace(config, data=both, epochs=1, val_every=1)
    train(settings, tmp_path / "run")
    _, contract = load_checkpoint(tmp_path / "run" / "best.safetensors")
    names = [f"{people.parent.name}/{people.name}/val iou", f"theirs/{people.name}/val iou"]
    assert sorted(contract.metrics) == sorted(names)
