"""``edge-deeplab eval`` in two real processes under torchrun, with gloo: one process's figures, told once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.cli import main
from edge_deeplab.data import Pair, Split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation.shares import Alone, check_same_pictures
from edge_deeplab.imaging import write_image
from edge_deeplab.runtimes import open_model
from tests.cli.support import strictly
from tests.runtimes.artefacts import RED_GREEN_BLUE, toy_contract, toy_onnx

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@dataclass(frozen=True)
class Ran:
    """What two processes said; of standard error our own lines only, without torchrun's report."""

    status: int
    out: str
    words: list[str]


def run_two(*arguments: object) -> Ran:
    command = [sys.executable, *TORCHRUN, "-m", "edge_deeplab", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    return Ran(done.returncode, done.stdout, re.findall(r"edge-deeplab: .*", done.stderr))


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """Five pictures of four colours in noise, so that every one has an IoU of its own; shares of 3 and 2."""
    data = tmp_path / "stripes"
    for index in range(5):
        rng = np.random.default_rng(index)
        mask = np.roll(np.tile(np.arange(96) // 24, (64, 1)), 7 * index, axis=1).astype(np.uint8)
        image = np.zeros((64, 96, 3), np.uint8)
        for k in (1, 2, 3):
            image[mask == k, 3 - k] = 255
        mask[rng.random(mask.shape) < 0.04 * (index + 1)] = 3
        mask[:4] = 255
        write_image(data / "val" / "images" / f"{index}.png", image)
        write_image(data / "val" / "masks" / f"{index}.png", mask)
    (data / "classes.txt").write_text("nothing\nred\ngreen\nblue\n")
    return data


def test_two_processes_score_an_artefact_as_one(
    stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Confusion, boundaries, trimap, bootstrap interval, worst pictures: everything, to the last digit."""
    contract = toy_contract(classes=RED_GREEN_BLUE, head="logits-full", head_stride=1)
    model = toy_onnx(tmp_path / "x.onnx", contract)
    # The second set has one picture: the second process has none of it to score.
    single = tmp_path / "single"
    shutil.copytree(stripes, single)
    for path in single.glob("val/*/[1-4].png"):
        path.unlink()
    words = ["eval", str(model), "--data", f"folder:{stripes}", f"folder:{single}", "--threads", "1"]

    def files(name: str) -> list[str]:
        place = tmp_path / name
        return [f"--json={place}.json", f"--trimap={place}.png", f"--worst={place}.jpg"]

    assert main([*words, *files("one")]) == 0
    alone = capsys.readouterr().out
    two = run_two(*words, *files("two"))
    assert (two.status, two.words) == (0, [])
    assert two.out == alone
    one, both = (strictly((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert both == one
    low, high = one["results"][0]["interval_95"]
    assert low < one["results"][0]["miou"] < high
    assert (tmp_path / "two.jpg").read_bytes() == (tmp_path / "one.jpg").read_bytes()
    assert (tmp_path / "two.png").read_bytes() == (tmp_path / "one.png").read_bytes()


def test_two_processes_score_a_checkpoint_in_all_ways_as_one(
    people: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(checkpoint), "--data", f"folder:{people}", "--grid", "--threads", "1"]
    assert main([*words, "--json", str(tmp_path / "one.json")]) == 0
    alone = capsys.readouterr().out
    two = run_two(*words, "--json", tmp_path / "two.json")
    assert (two.status, two.words, two.out) == (0, [], alone)
    one, both = (strictly((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert both == one
    assert len(one["results"]) == 12


def test_two_processes_record_once(people: Path, checkpoint: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(checkpoint, mine)
    two = run_two("eval", mine, "--data", f"folder:{people}", "--record", "--json", tmp_path / "x.json")
    assert (two.status, two.words) == (0, [])
    (result,) = strictly((tmp_path / "x.json").read_text())["results"]
    with open_model(mine) as model:
        assert model.contract.metrics["people/val iou"] == round(result["foreground_iou"], 4)


def test_what_is_wrong_in_one_share_is_told_once(toy: Path, people: Path, tmp_path: Path) -> None:
    path = people / "val" / "images" / "2.png"  # the second of two, so the second process's
    path.write_bytes(path.read_bytes()[:-30])
    two = run_two("eval", toy, "--data", f"folder:{people}", "--json", tmp_path / "x.json")
    assert two.status != 0
    (message,) = two.words
    assert "2.png: the file is cut short" in message
    assert not (tmp_path / "x.json").exists()


def test_other_pictures_in_another_process_are_refused() -> None:
    def split(*names: str) -> Split:
        return Split("x/val", tuple(Pair(Path(name), Path(name)) for name in names))

    class Two(Alone):
        def gather(self, value: Any) -> list[Any]:
            return [value, [split("a.png", "c.png").listing]]

    check_same_pictures([split("a.png", "c.png")], Two())
    with pytest.raises(UserError, match="x/val: process 0 sees 2 pictures, process 1 sees 2, and not"):
        check_same_pictures([split("a.png", "b.png")], Two())


@pytest.mark.parametrize("words", [("--provider", "cuda"), ("--delegate", "gpu")])
def test_artefacts_on_one_accelerator_are_refused(toy: Path, people: Path, words: tuple[str, ...]) -> None:
    two = run_two("eval", toy, "--data", f"folder:{people}", *words)
    assert two.status != 0
    (message,) = two.words
    assert "under torchrun artefacts run on CPUs" in message
