"""Settings from a file and from the command line, and what is refused before anything is read."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edge_deeplab.cli import main, parser
from edge_deeplab.cli.cmd_train import COMMAND
from edge_deeplab.errors import UserError
from edge_deeplab.training import engine
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.config_file import FIELDS, HELP, read_config, write_config


def written(path: Path, text: str) -> Path:
    file = path / "settings.yaml"
    file.write_text(text)
    return file


def test_every_setting_is_documented() -> None:
    assert HELP.keys() == FIELDS.keys()
    assert all(len(words) > 10 or name == "momentum" for name, words in HELP.items())


def test_a_written_file_reads_back(tmp_path: Path) -> None:
    config = TrainConfig(
        data=("voc:a b", "folder:ümlaut"),
        size=(360, 480),
        crop=(288, 384),
        scale=(0.75, 1.5),
        lr=1e-5,
        qat=True,
        output_stride=8,
        license="non-commercial: CamVid",
    )
    write_config(tmp_path / "x.yaml", config)
    assert TrainConfig(**read_config(tmp_path / "x.yaml")) == config
    plain = TrainConfig(data=("folder:x",))
    write_config(tmp_path / "y.yaml", plain)
    assert TrainConfig(**read_config(tmp_path / "y.yaml")) == plain


def test_numbers_and_sizes_as_people_write_them(tmp_path: Path) -> None:
    """YAML 1.1 takes 2e-3 for text."""
    path = written(
        tmp_path, "data: folder:x\nlr: 2e-3\nema: 0\nsize: 360x480\ncrop: [64, 96]\nscale: [1, 2]\n"
    )
    assert read_config(path) == {
        "data": ("folder:x",),
        "lr": 0.002,
        "ema": 0.0,
        "size": (360, 480),
        "crop": (64, 96),
        "scale": (1.0, 2.0),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", "there is no setting 'epoch'; did you mean epochs?"),
        ("zzz: 3", "there is no setting 'zzz'; there are: data, name"),
        ("epochs: many", "epochs must be a whole number, not 'many'"),
        ("epochs: 2.5", "epochs must be a whole number, not 2.5"),
        ("epochs: true", "epochs must be a whole number, not True"),
        ("lr: fast", "lr must be a number, not 'fast'"),
        ("lr: .nan", "lr must be a number, not nan"),
        ("qat: 1", "qat must be true or false, not 1"),
        ("name: 3", "name must be text, not 3"),
        ("optimizer: adam", "optimizer must be one of adamw, sgd, not 'adam'"),
        ("output_stride: 4", "output_stride must be one of 0, 8, 16, 32, not 4"),
        ("size: 12", r"size must be \[HEIGHT, WIDTH\] or HEIGHTxWIDTH"),
        ("size: [12, 64]", r"size must be \[HEIGHT, WIDTH\]"),
        ("size: [256.9, 256]", r"size must be \[HEIGHT, WIDTH\]"),
        ("size: [true, 256]", r"size must be \[HEIGHT, WIDTH\]"),
        ("scale: 2", "scale must be a list of two numbers"),
        ("data: 5", "data must be text or a list of texts"),
        ("- data", "must hold settings, one `name: value` a line"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_file_that_is_off_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_config(written(tmp_path, text))
    assert "settings.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": ()}, "--data"),
        ({"batch": 1}, "--batch must be at least 2"),
        ({"batch": 6, "accumulate": 4}, "--batch must be a multiple of --accumulate"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"val_every": 0}, "--val-every must be at least 1"),
        ({"lr": 0.0}, "--lr"),
        ({"lr": float("nan")}, "--lr"),
        ({"weight_decay": -1.0}, "--weight-decay must be a number of at least 0"),
        ({"ema": 1.0}, "--ema"),
        ({"ohem": 0.0}, "--ohem"),
        ({"label_aware": 1.5}, "--label-aware must lie between 0 and 1"),
        ({"scale": (2.0, 1.0)}, "--scale"),
        ({"scale": (0.5, float("inf"))}, "--scale"),
        ({"backdrop": 0.7}, "--backdrop"),
        ({"qat": True}, "--qat fine-tunes trained weights"),
        ({"teacher": "x", "distill_kl": 0.0}, "--teacher has no say"),
        ({"temperature": 0.0}, "--temperature"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(TrainConfig(data=("folder:x",)), **changes).check()


UNHEARD: list[tuple[str, str]] = [
    ("--scale 0.5 2", "--scale has no say here; it counts only with --crop"),
    ("--label-aware 0.3", "--label-aware has no say here; it counts only with --crop"),
    ("--jitter 0.3", "--jitter has no say here; it counts only with --crop"),
    ("--crop 48x64 --strong 0.4", "--strong has no say here; it counts only without --crop"),
    ("--crop 48x64 --mild-tail 0.2", "--mild-tail has no say here; it counts only without --crop"),
    ("--strong 0 --backdrop 0.2", "--backdrop has no say here; it counts only with --strong above 0"),
    ("--momentum 0.9", "--momentum has no say here; it counts only with --optimizer sgd"),
    ("--temperature 4", "--temperature has no say here; it counts only with --teacher"),
    ("--distill-kl 1", "--distill-kl has no say here; it counts only with --teacher"),
    ("--boundary-weight 1 --boundary-width 5", "--boundary-width has no say here; it counts only with"),
    ("--qat --init x --norm batch", "--norm has no say here; it counts only without --qat"),
    ("--qat --init x --precision bf16", "--precision has no say here; it counts only without --qat"),
]


@pytest.mark.parametrize(("words", "message"), UNHEARD)
def test_an_option_without_a_say_is_refused(
    tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    output = tmp_path / "run"
    assert main(["train", "--data", f"folder:{people}", "--output", str(output), *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not output.exists()


def test_dice_and_backdrops_are_for_two_classes() -> None:
    config = TrainConfig(data=("folder:x",))
    for name in ("dice", "backdrop"):
        config.check_heard([name], binary=True)
        with pytest.raises(UserError, match=f"--{name} has no say here; it counts only with two classes"):
            config.check_heard([name], binary=False)


def test_what_a_file_holds_may_have_no_say(tmp_path: Path, people: Path, trained: list[TrainConfig]) -> None:
    """A run's config.yaml holds every setting; only what is asked for here is looked at."""
    write_config(tmp_path / "config.yaml", TrainConfig(data=(f"folder:{people}",)))
    seen: list[set[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            engine, "train", lambda config, output, *, resume, given: (seen.append(given), output)[1]
        )
        assert COMMAND.run(given("--config", str(tmp_path / "config.yaml"), "--crop", "48x64")) == 0
    assert seen == [{"crop"}]
    TrainConfig(data=("folder:x",), crop=(48, 64)).check_heard(seen[0], binary=False)


def test_the_defaults_can_work() -> None:
    TrainConfig(data=("folder:x",)).check()


# -- command line ------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The settings that training was called with."""
    seen: list[TrainConfig] = []

    def train(config: TrainConfig, output: Path, *, resume: bool, given: set[str]) -> Path:
        seen.append(config)
        return output

    monkeypatch.setattr(engine, "train", train)
    return seen


def given(*words: str) -> argparse.Namespace:
    return parser().parse_args(["train", *words])


def test_options_go_before_the_file_and_the_file_before_defaults(
    tmp_path: Path, trained: list[TrainConfig]
) -> None:
    path = written(tmp_path, "data: [folder:a, folder:b]\nepochs: 7\nlr: 0.1\nqat: false\nsize: 64x96\n")
    assert COMMAND.run(given("--config", str(path), "--lr", "0.2", "--scale", "1", "1.5")) == 0
    (config,) = trained
    assert config == TrainConfig(
        data=("folder:a", "folder:b"), epochs=7, lr=0.2, size=(64, 96), scale=(1.0, 1.5)
    )


def test_every_option_reaches_its_setting(trained: list[TrainConfig]) -> None:
    words = (
        "--data folder:a folder:b --crop 64x96 --optimizer sgd --output-stride 8 --no-channels-last --compile"
    )
    assert COMMAND.run(given(*words.split())) == 0
    (config,) = trained
    assert config == TrainConfig(
        data=("folder:a", "folder:b"),
        crop=(64, 96),
        optimizer="sgd",
        output_stride=8,
        channels_last=False,
        compile=True,
    )


def test_no_data_is_said(trained: list[TrainConfig]) -> None:
    with pytest.raises(UserError, match="--data KIND:PATH"):
        COMMAND.run(given("--epochs", "3"))
    assert trained == []


def test_only_the_command_itself_restarts(
    monkeypatch: pytest.MonkeyPatch, trained: list[TrainConfig]
) -> None:
    """A program that calls the command line as a function is not replaced by another process."""
    import os
    import sys

    replaced: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, words, environment: replaced.append(words))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for program, restarts in [
        ("/home/me/my_program.py", False),
        ("-c", False),
        ("/usr/lib/python3/pytest/__main__.py", False),
        ("/usr/bin/edge-deeplab", True),
        ("/x/edge_deeplab/__main__.py", True),
    ]:
        replaced.clear()
        monkeypatch.setattr(sys, "argv", [program, "train", "--data", "folder:x"])
        COMMAND.run(given("--data", "folder:x"))
        assert bool(replaced) == (restarts and sys.platform == "linux"), program
