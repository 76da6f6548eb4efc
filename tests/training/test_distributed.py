"""Two real processes under torchrun, with gloo: the same run as one process makes, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_deeplab.errors import UserError
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.config_file import write_config
from edge_deeplab.training.dataset import Batches
from edge_deeplab.training.distributed import World, find_device
from edge_deeplab.training.engine import Trainer, train
from edge_deeplab.training.run_folder import BEST, STATE
from tests.training.support import log_of, state_of

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

SLOWLY = (
    "import time\n"
    "from edge_deeplab.training import engine\n"
    "step = engine.Trainer._train_step\n"
    "engine.Trainer._train_step = lambda self, batch: (time.sleep(0.2), step(self, batch))[1]\n"
    "from edge_deeplab.cli import main\n"
    "import sys\n"
    "raise SystemExit(main(sys.argv[1:]))\n"
)
"""The command line with a pause before every step, so that there is time to interfere."""


@pytest.fixture
def shared(config: TrainConfig) -> TrainConfig:
    """What two processes can do exactly as one: batch norm does not look at the batch."""
    return dataclasses.replace(config, epochs=2, norm="frozen", val_every=1, workers=1, lr=2e-3)


POISONED = (
    "import sys\n"
    "from edge_deeplab.training import objective\n"
    "loss, calls = objective.segmentation_loss, iter(range(1000))\n"
    "objective.segmentation_loss = lambda *a: loss(*a) * (1 if next(calls) < 3 else float('nan'))\n"
    "from edge_deeplab.cli import main\n"
    "raise SystemExit(main(sys.argv[1:]))\n"
)
"""The command line with a loss that is no number from the fourth step on."""


TELLING_RANGES = (
    "import json, sys\n"
    "from pathlib import Path\n"
    "from edge_deeplab.training import engine\n"
    "validate = engine.validate\n"
    "def telling(model, contract, splits, world):\n"
    "    ranges = [model.ranges.low.tolist(), model.ranges.high.tolist()]\n"
    "    with (Path(sys.argv[0]).parent / f'ranges-{world.rank}').open('a') as file:\n"
    "        file.write(json.dumps(ranges) + '\\n')\n"
    "    return validate(model, contract, splits, world)\n"
    "engine.validate = telling\n"
    "from edge_deeplab.cli import main\n"
    "raise SystemExit(main(sys.argv[1:]))\n"
)
"""The command line; every process writes down the activation ranges that it scores with, a line each time."""


OTHER_PICTURES = (
    "import dataclasses, os, sys\n"
    "from edge_deeplab import data\n"
    "opened = data.open_splits\n"
    "def fewer(specs, split):\n"
    "    splits = opened(specs, split)\n"
    "    if os.environ['RANK'] == '1':\n"
    "        splits = [dataclasses.replace(one, pairs=one.pairs[1:]) for one in splits]\n"
    "    return splits\n"
    "data.open_splits = fewer\n"
    "from edge_deeplab.cli import main\n"
    "raise SystemExit(main(sys.argv[1:]))\n"
)
"""The command line on two machines: the second one's data lack a picture."""


def start(config: TrainConfig, folder: Path, *more: str, program: str = "") -> subprocess.Popen[str]:
    """Start ``edge-deeplab train``, or a program around it, in two processes; its words go to ``folder``."""
    folder.mkdir(exist_ok=True)
    write_config(folder / "settings.yaml", config)
    (folder / "program.py").write_text(program)
    command = [str(folder / "program.py")] if program else ["-m", "edge_deeplab"]
    words = ["train", "--config", str(folder / "settings.yaml"), "--output", str(folder / "run"), *more]
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.check=0", "OMP_NUM_THREADS": "1"}
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            [*TORCHRUN, *command, *words], stdout=out, stderr=err, text=True, env=environment
        )


def words_of(folder: Path) -> list[str]:
    """Our own messages, without torchrun's; one may stand behind the other process's progress bar."""
    return re.findall(r"edge-deeplab: .*", (folder / "err").read_text())


def run_two(config: TrainConfig, folder: Path, *more: str, program: str = "") -> int:
    return start(config, folder, *more, program=program).wait(timeout=900)


def assert_close(ours: Path, theirs: Path, tolerance: float) -> None:
    (a, header_a), (b, header_b) = state_of(ours), state_of(theirs)
    assert a.keys() == b.keys()
    assert header_a["step"] == header_b["step"]
    assert float(header_a["best"]) == pytest.approx(float(header_b["best"]), abs=1e-6)
    for name in a:
        assert float((a[name].double() - b[name].double()).abs().max()) <= tolerance, name
    ours_log, theirs_log = log_of(ours), log_of(theirs)
    assert [record["step"] for record in ours_log] == [record["step"] for record in theirs_log]
    for mine, its in zip(ours_log, theirs_log, strict=True):
        for key in {"loss", "foreground_iou", "miou", "pixel_accuracy"} & mine.keys():
            assert mine[key] == pytest.approx(its[key], abs=1e-6), key


# -- the same as one process -------------------------------------------------------------------------


def test_two_processes_make_the_run_of_one(tmp_path: Path, shared: TrainConfig) -> None:
    train(shared, tmp_path / "one")
    assert run_two(shared, tmp_path / "two") == 0, (tmp_path / "two" / "err").read_text()
    assert words_of(tmp_path / "two") == []
    assert (tmp_path / "two" / "out").read_text().count("best model") == 1
    assert_close(tmp_path / "two" / "run", tmp_path / "one", 2e-6)


def test_a_run_of_two_goes_on_as_a_run_of_one(tmp_path: Path, shared: TrainConfig) -> None:
    train(shared, tmp_path / "one")
    process = start(dataclasses.replace(shared, checkpoint_every=1), tmp_path / "two", program=SLOWLY)
    try:
        state = tmp_path / "two" / "run" / STATE
        wait_for(state, process, tmp_path / "two")
    finally:
        process.terminate()
        process.wait(timeout=120)
    assert 1 <= int(state_of(tmp_path / "two" / "run")[1]["step"]) < 6
    train(shared, tmp_path / "two" / "run", resume=True)
    assert_close(tmp_path / "two" / "run", tmp_path / "one", 2e-6)


def test_a_run_of_one_goes_on_as_a_run_of_two(
    tmp_path: Path, shared: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(shared, tmp_path / "one")
    saved = Trainer._save

    def stop(self: Trainer) -> None:
        saved(self)
        raise KeyboardInterrupt

    (tmp_path / "two").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_save", stop)
        train(shared, tmp_path / "two" / "run")
    assert state_of(tmp_path / "two" / "run")[1]["step"] == "2"
    assert run_two(shared, tmp_path / "two", "--resume") == 0, (tmp_path / "two" / "err").read_text()
    assert_close(tmp_path / "two" / "run", tmp_path / "one", 2e-6)


def test_with_statistics_of_their_own_two_processes_are_one_with_two_parts(
    tmp_path: Path, shared: TrainConfig
) -> None:
    """Batch norm sees the same two pictures at a time either way, so the weights agree.

    The running statistics do not: one process follows both halves of a batch, the first of two only its own.
    """
    # SGD: where two pictures leave a norm hardly any gradient, Adam would blow its rounding up to full steps.
    settings = dataclasses.replace(shared, norm="batch", optimizer="sgd", lr=0.01)
    train(dataclasses.replace(settings, accumulate=2), tmp_path / "one")
    assert run_two(settings, tmp_path / "two") == 0, (tmp_path / "two" / "err").read_text()
    (a, _), (b, _) = state_of(tmp_path / "two" / "run"), state_of(tmp_path / "one")
    assert a.keys() == b.keys()
    apart = {name for name in a if float((a[name].double() - b[name].double()).abs().max()) > 2e-5}
    assert apart
    assert all("running_" in name or "num_batches" in name for name in apart), apart


def test_two_processes_score_the_same_rounded_network(tmp_path: Path, shared: TrainConfig) -> None:
    """Each follows the ranges of its own pictures; what is scored is one network, that of the state file."""
    train(dataclasses.replace(shared, epochs=1), tmp_path / "float")
    start = str(tmp_path / "float" / BEST)
    settings = dataclasses.replace(shared, qat=True, init=start, epochs=2, lr=1e-4, warmup=0)
    assert run_two(settings, tmp_path / "two", program=TELLING_RANGES) == 0
    first, second = ((tmp_path / "two" / f"ranges-{rank}").read_text().splitlines() for rank in range(2))
    assert len(first) == 2  # at the first, ranges still move
    assert first == second
    tensors, _ = state_of(tmp_path / "two" / "run")
    assert json.loads(first[-1]) == [tensors["ranges.low"].tolist(), tensors["ranges.high"].tolist()]


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_same_step(tmp_path: Path, shared: TrainConfig, parts: int) -> None:
    settings = dataclasses.replace(shared, workers=0)
    train(settings, tmp_path / "whole")
    train(dataclasses.replace(settings, accumulate=parts), tmp_path / "parts")
    assert_close(tmp_path / "parts", tmp_path / "whole", 2e-6)


def test_every_process_has_its_share_of_every_batch(config: TrainConfig) -> None:
    place = torch.device("cpu")
    whole = list(Batches(14, config, 0, 6))
    shares = [list(Batches(14, config, 0, 6, World(place, rank, 2))) for rank in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    assert all(len(batch) == 2 for share in shares for batch in share)


# -- how it ends -------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The training processes that torchrun started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return sorted(found)


def wait_for(path: Path, process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, (folder / "err").read_text()
        assert time.monotonic() < deadline, "nothing after ten minutes"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_all_with_one_message(tmp_path: Path, shared: TrainConfig, victim: int) -> None:
    settings = dataclasses.replace(shared, epochs=200, workers=1)
    process = start(settings, tmp_path, program=SLOWLY)
    try:
        wait_for(tmp_path / "run" / STATE, process, tmp_path)
        time.sleep(0.3)
        ranks = children(process.pid)
        assert len(ranks) == 2
        os.kill(ranks[victim], signal.SIGKILL)
        assert process.wait(timeout=120) != 0
    finally:
        process.kill()
    (message,) = words_of(tmp_path)
    assert "one of the run's 2 processes has ended" in message
    assert "--resume" in message
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < deadline, "a process stayed"
        time.sleep(0.1)
    # What it left is whole, and one process can go on with it.
    tensors, header = state_of(tmp_path / "run")
    assert int(header["step"]) >= 2
    assert all(value.isfinite().all() for value in tensors.values())


def test_an_error_in_one_process_is_told_once(tmp_path: Path, people: Path, shared: TrainConfig) -> None:
    shutil.copytree(people, tmp_path / "people")
    path = tmp_path / "people" / "train" / "images" / "05.png"
    path.write_bytes(path.read_bytes()[:-30])
    settings = dataclasses.replace(shared, data=(f"folder:{tmp_path / 'people'}",))
    assert run_two(settings, tmp_path / "two") != 0
    (message,) = words_of(tmp_path / "two")
    assert "05.png: the file is cut short" in message


def test_other_pictures_on_another_machine_are_told_at_once(tmp_path: Path, shared: TrainConfig) -> None:
    assert run_two(shared, tmp_path / "two", program=OTHER_PICTURES) != 0
    (message,) = words_of(tmp_path / "two")
    assert "people/train: process 0 sees 12 pictures, process 1 sees 11, and not the same ones" in message


def test_a_state_that_not_all_machines_see(
    tmp_path: Path, shared: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others would begin at step 0 while the first goes on."""
    world = World(torch.device("cpu"), 0, 2)
    answers = {int: lambda step: [step + 6, step], list: lambda listings: [listings, listings]}
    monkeypatch.setattr(World, "gather", lambda _, value: answers[type(value)](value))
    with pytest.raises(UserError, match=r"they are at steps 6, 0\); give an --output that all machines"):
        Trainer(shared, tmp_path / "run", world=world)


def test_a_loss_that_is_no_number_is_told_once(tmp_path: Path, shared: TrainConfig) -> None:
    """Every process finds it; the message and the log name the pictures of the whole batch."""
    assert start(shared, tmp_path / "two", program=POISONED).wait(timeout=900) != 0
    (message,) = words_of(tmp_path / "two")
    names = [f"{index:02d}.png" for _, index in next(iter(Batches(12, shared, 3, 4)))]
    assert f"the loss is nan at step 3 (epoch 1, pictures {', '.join(names)};" in message
    (record,) = [record for record in log_of(tmp_path / "two" / "run") if "not_finite" in record]
    assert [Path(name).name for name in record["pictures"]] == names
    tensors, header = state_of(tmp_path / "two" / "run")
    assert header["step"] == "3"
    assert all(value.isfinite().all() for value in tensors.values())


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 5, "norm": "frozen"}, "--batch 5 cannot be split evenly over 2 processes"),
        ({"batch": 2, "norm": "batch"}, "every part of a batch needs two pictures for batch norm"),
        ({"norm": "sync"}, "--norm sync needs CUDA"),
    ],
)
def test_settings_that_two_processes_cannot_take(
    tmp_path: Path, config: TrainConfig, changes: dict[str, Any], words: str
) -> None:
    world = World(torch.device("cpu"), 0, 2)
    with pytest.raises(UserError, match=words):
        Trainer(dataclasses.replace(config, **changes), tmp_path / "run", world=world)


@pytest.mark.parametrize("name", ["meta", "cuda:99", "nonsense", ""])
def test_devices_that_cannot_be_used(name: str) -> None:
    with pytest.raises(UserError, match=f"device '{name}' cannot be used: ."):
        find_device(name)
