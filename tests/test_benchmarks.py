"""The benchmark scripts: their arithmetic, the decoding of every peer, and that they start."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge_deeplab.evaluation import evaluate

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SHARED = BENCHMARKS.parent.parent / "shared"
SCRIPTS = ("peers", "depthwise", "training_step")

needs_shared = pytest.mark.skipif(
    not (SHARED / "peers").is_dir(), reason="no ../shared with peers and data beside the checkout"
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


def noisy_pairs(rng: np.random.Generator, ratio: float, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Times whose quotient has the median ``ratio``, both slowed threefold from the middle on."""
    drift = np.where(np.arange(rounds) < rounds // 2, 1.0, 3.0)
    base = drift * rng.lognormal(0, 0.05, rounds)
    return ratio * drift * rng.lognormal(0, 0.05, rounds), base


def test_ratio_of_exact_pairs_is_exact(measuring: ModuleType) -> None:
    base = np.array([1.0, 5.0, 2.0, 9.0])
    found = measuring.paired_ratio(2.5 * base, base)
    assert (found.value, found.low, found.high) == (2.5, 2.5, 2.5)
    assert str(found) == "2.50 (2.50–2.50)"


def test_drift_common_to_a_round_cancels(measuring: ModuleType, rng: np.random.Generator) -> None:
    found = measuring.paired_ratio(*noisy_pairs(rng, 1.4, 200))
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(1.4, rel=0.03)
    assert found.high - found.low < 0.08


def test_interval_covers_the_truth_about_19_times_in_20(
    measuring: ModuleType, rng: np.random.Generator
) -> None:
    intervals = [measuring.paired_ratio(*noisy_pairs(rng, 1.4, 60), resamples=400) for _ in range(300)]
    covered = np.mean([i.low <= 1.4 <= i.high for i in intervals])
    assert 0.90 <= covered <= 0.99


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


def test_tables(measuring: ModuleType) -> None:
    rows = [["model", "ms"], ["portrait", "7.1"], ["x", "120.0"]]
    assert measuring.as_text(rows) == "model        ms\nportrait    7.1\nx         120.0"
    assert measuring.as_markdown(rows) == "| model | ms |\n| --- | ---: |\n| portrait | 7.1 |\n| x | 120.0 |"


# -- peers -------------------------------------------------------------------------------------------


def test_voc_person_agrees_with_argmax(peers: ModuleType, rng: np.random.Generator) -> None:
    raw = rng.standard_normal((1, 9, 7, 21)).astype(np.float32)
    raw[..., 15] += 1
    expected = raw[0].argmax(-1) == 15
    assert expected.any()
    assert np.array_equal(peers.voc_person(raw) > 0, expected)


def test_two_logits_and_two_planes_agree(peers: ModuleType, rng: np.random.Generator) -> None:
    raw = rng.standard_normal((1, 9, 7, 2)).astype(np.float32)
    margin = peers.two_logits(raw)
    assert np.array_equal(peers.two_planes(raw.transpose(0, 3, 1, 2)), margin)
    share = np.exp(raw[0, ..., 1]) / np.exp(raw[0]).sum(-1)
    assert np.array_equal(margin > 0, share > 0.5)


# IoU of the first eight pictures of eg/val; a wrong scale, channel order or output plane shows.
FIRST_EIGHT = {
    "slim 512": 0.971,
    "sinet 320": 0.958,
    "mnv3 256": 0.956,
    "mediapipe 256": 0.9525,
    "aiseg 513": 0.930,
    "google 257": 0.865,
}


def test_every_peer_has_an_expectation(peers: ModuleType) -> None:
    assert [peer.name for peer in peers.PEERS] == list(FIRST_EIGHT)


@needs_shared
@pytest.mark.parametrize("name", FIRST_EIGHT)
def test_peer_is_fed_and_read_rightly(peers: ModuleType, name: str) -> None:
    peer = next(p for p in peers.PEERS if p.name == name)
    for library in ("ai_edge_litert",) if peer.file.endswith(".tflite") else ("onnx", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    split = peers.splits(SHARED, 8)[0]
    contender = peers.open_peer(peer, SHARED, 1)
    assert evaluate(contender.segment, split, boundary=False).foreground_iou == pytest.approx(
        FIRST_EIGHT[name], abs=0.002
    )


def test_absent_folder_is_one_line(
    peers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers.main(["--shared", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("peers: no folder ") and said.err.count("\n") == 1
    assert "--shared" in said.err and not said.out


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


# -- all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str) -> None:
    if name != "peers":
        pytest.importorskip("torch", reason="torch is not installed")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--rounds" in done.stdout and "--threads" in done.stdout
