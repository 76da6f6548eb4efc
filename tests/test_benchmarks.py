"""The benchmark scripts: their timing, what they pass on, and that they start."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edge_deeplab.bench.peers import KNOWN
from edge_deeplab.cli import parser

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = (
    "peers",
    "harness",
    "depthwise",
    "training_step",
    "architectures",
    "aarch64",
    "web_demo",
    "web_pictures",
    "exports",
    "export_all",
    "heads",
    "random_checkpoint",
    "soak",
    "webcam",
    "everything",
    "steadiness",
    "edges",
    "answers",
)


@pytest.fixture(autouse=True)
def scripts_import_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when they are run: their own folder comes first on the path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def measuring() -> ModuleType:
    return importlib.import_module("measuring")


@pytest.fixture
def peers() -> ModuleType:
    return importlib.import_module("peers")


def script(name: str) -> ModuleType:
    """A script that needs torch."""
    pytest.importorskip("torch", reason="torch is not installed")
    return importlib.import_module(name)


# -- measuring -------------------------------------------------------------------------------------


def test_everyone_has_one_timed_turn_a_round_after_a_lead_in(measuring: ModuleType) -> None:
    turns: list[tuple[str, int]] = []

    def note(name: str, number: int) -> None:
        turns.append((name, number))

    names = ("a", "b", "c")
    calls = {name: lambda number, name=name: note(name, number) for name in names}
    times = measuring.interleaved(calls, rounds=5, warmup=2, lead_in=1)
    assert {name: len(times[name]) for name in names} == dict.fromkeys(names, 5)
    assert all((times[name] > 0).all() for name in names)
    assert turns[::2] == turns[1::2]  # lead-in and timed call, back to back
    rounds = [turns[2 * k : 2 * k + 6 : 2] for k in range(0, 21, 3)]
    assert [{number for _, number in r} for r in rounds] == [{k} for k in range(-2, 5)]
    assert all({name for name, _ in r} == set(names) for r in rounds)
    assert len({tuple(name for name, _ in r) for r in rounds}) > 1  # not always the same order


# -- peers -------------------------------------------------------------------------------------------


def test_all_peers_all_data_and_the_users_own_options(peers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "peers").mkdir()
    for file in KNOWN:
        (tmp_path / "peers" / file).write_bytes(b"x")
    words = peers.arguments(tmp_path, ["portrait"], ["--rounds", "5"])
    args = parser().parse_args(words)
    assert args.models == ["portrait"]
    assert [Path(p).name for p in args.peer] == list(KNOWN)
    assert args.data == [f"folder:{tmp_path / 'data' / name}" for name in peers.DATA]
    assert args.rounds == 5


def test_a_missing_peer_is_one_line(
    peers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers.main(["--shared", str(tmp_path)]) == 2
    assert "is missing" in capsys.readouterr().err


def test_absent_folder_is_one_line(
    peers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers.main(["--shared", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("peers: no folder ") and said.err.count("\n") == 1
    assert "--shared" in said.err and not said.out


def test_artefacts_that_are_there_are_taken_and_a_failed_export_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = importlib.import_module("everything")
    for name in everything.EXPORTS:
        (tmp_path / f"none-{name}-logits.{name.partition('-')[0]}").write_bytes(b"x")
    monkeypatch.setattr(everything.sys, "executable", "/nowhere/python")  # nothing is exported
    found = everything.artefacts("none", tmp_path, tmp_path)
    assert [Path(path).name for path in found][::5] == [
        "none-onnx-fp16-logits.onnx",
        "none-tflite-int8-logits.tflite",
    ]
    monkeypatch.undo()
    (tmp_path / "none-onnx-fp16-logits.onnx").unlink()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    assert everything.artefacts("none", tmp_path, tmp_path) == found[1:]
    assert "left out: none-onnx-fp16-logits.onnx could not be exported" in capfd.readouterr().err


# -- depthwise and training step ---------------------------------------------------------------------


def test_cases_are_the_strided_and_dilated_depthwise_layers_of_the_variant() -> None:
    depthwise = script("depthwise")
    found = depthwise.cases("lite", 256, 256)
    assert found.total() == 3 + 3 + 3  # strided blocks, blocks 15 to 17, atrous branches
    assert {c.dilation[0] for c in found} == {1, 2, 6, 12, 18}
    strided = {(c.channels, c.height) for c in found if c.stride[0] == 2}
    assert strided == {(96, 129), (144, 65), (192, 33)}  # SAME padding included


def test_stock_takes_the_place_of_our_backward_and_leaves_it() -> None:
    depthwise = script("depthwise")
    import torch

    from edge_deeplab.models.layers import Conv2d

    layer, x = Conv2d(4, 4, 3, groups=4, dilation=2), torch.zeros(1, 4, 8, 8)
    with depthwise.depthwise_by(depthwise.stock):
        assert "_Depthwise" not in layer(x).grad_fn.name()
    assert "_Depthwise" in layer(x).grad_fn.name()


@pytest.mark.parametrize("name", ["shipped", "all stock"])
def test_a_training_step_changes_the_weights(name: str, tmp_path: Path) -> None:
    training_step = script("training_step")
    import torch

    options = argparse.Namespace(variant="nano", size=(64, 64), batch=2, threads=1)
    setting = training_step.SETTINGS[name]
    trainer = training_step.make_trainer(setting, options, tmp_path)
    channels_last = trainer.networks.model.backbone.stem[0].weight.is_contiguous(
        memory_format=torch.channels_last
    )
    assert channels_last == setting.channels_last
    before = trainer.networks.average.classifier.weight.clone()
    assert trainer._train_step(training_step.synthetic_batch(options)) > 0
    assert not torch.equal(trainer.networks.average.classifier.weight, before)


def test_settings_differ_from_the_shipped_one() -> None:
    training_step = script("training_step")
    shipped, *others = training_step.SETTINGS.values()
    assert all(setting != shipped for setting in others)
    assert all(len(dataclasses.astuple(setting)) == 4 for setting in others)


def test_the_plain_loop_learns_and_its_time_adds_up(tmp_path: Path) -> None:
    training_peer = script("training_peer")
    pytest.importorskip("segmentation_models_pytorch", reason="the peer is not installed")
    import torch

    options = argparse.Namespace(variant="nano", size=(64, 64), batch=2, threads=1)
    batch = importlib.import_module("training_step").synthetic_batch(options)
    loop = training_peer.PlainLoop(training_peer.LOOPS["plain, channels-last"])
    weight = loop.model.segmentation_head[0].weight
    before = weight.detach().clone()
    shares = training_peer.profile(lambda: loop.step(batch))
    assert not torch.equal(weight, before)
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.__getitem__) == "convolutions"
    assert shares["batch norm"] > 0


# -- all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str) -> None:
    if name in ("depthwise", "training_step", "architectures"):
        pytest.importorskip("torch", reason="torch is not installed")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
