"""Flags that the chosen export would ignore are refused, whatever their value."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_deeplab.cli import parser
from edge_deeplab.cli.cmd_export import complete
from edge_deeplab.cli.export_flags import IN_FILE, LIMITED, refuse_unused
from edge_deeplab.errors import UserError
from edge_deeplab.export import targets
from edge_deeplab.export.trt_request import IN_FILE as FIELDS_IN_FILE
from tests.cli.support import Run


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--target tflite --opset 18", ["--opset has no effect with --target tflite"]),
        ("--target trt --prepare --opset 18", ["--opset has no effect with --target trt"]),
        ("--target onnx --calibration nosuch", ["--calibration has no effect without --int8"]),
        (
            "--target onnx --fp16 --calibration-count 128",
            ["--calibration-count has no effect without --int8"],
        ),
        ("--target onnx --calibration-method minmax", ["--calibration-method has no effect without --int8"]),
        ("--target onnx --calibration-seed 0", ["--calibration-seed has no effect without --int8"]),
        (
            "--target tflite --int8-dynamic --calibration x --scheme s8s8",
            ["--calibration and --scheme have no effect without --int8: leave"],
        ),
        ("--target safetensors --no-remedies", ["--no-remedies has no effect without --int8"]),
        ("--target safetensors --fp16 --diagnose", ["--diagnose has no effect with --target safetensors"]),
        (
            "--target onnx --int8 --max-drop 0.5",
            ["--max-drop has no effect without labelled pictures (--data)"],
        ),
        ("--target onnx --pictures . --max-drop 1", ["--max-drop has no effect without labelled pictures"]),
        ("--target onnx --count 100", ["--count has no effect without --data or --pictures"]),
        ("--target onnx --batch 1,2,4", ["--batch has no effect without --target trt"]),
        ("--target tflite --prepare --dla 0", ["--prepare and --dla have no effect without --target trt"]),
        ("--target onnx --hardware same-gpu", ["--hardware has no effect without --target trt"]),
        (
            "x.onnx --target trt --head logits --dynamic batch",
            ["--head and --dynamic have no effect on a prepared file (prepare the model again with it)"],
        ),
        (
            "x.onnx --target trt --int8 --calibration-count 128",
            ["--calibration-count has no effect on a prepared file without --calibration"],
        ),
        (
            "--target onnx --max-drop 1 --batch 4",
            [
                "--max-drop has no effect without",
                "; --batch has no effect without --target trt: leave it away",
            ],
        ),
    ],
)
def test_a_flag_without_effect(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = [] if flags.startswith("x.onnx") else [checkpoint]
    run("export", *model, *flags.split()).refused(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags",
    [
        "--target safetensors --fp16",
        "--target onnx --opset 17 --diagnose --force",
        "--target onnx --int8 --calibration x --calibration-count 99 --scheme s8s8 --no-remedies",
        "--target tflite --int8 --calibration-method entropy --data x --max-drop 0.3 --count 7",
        "--target tflite --pictures x --count 7 --head classmap --io uint8",
        "--target trt --int8 --batch 1,2,4",
        "x.onnx --target trt --fp16 --batch 1,2,4",
        "x.onnx --target trt --int8 --calibrator entropy --calibration x --calibration-count 64",
    ],
)
def test_flags_with_an_effect(flags: str) -> None:
    complete(parser().parse_args(["export", *flags.split()]))


@pytest.mark.parametrize("name", targets())
def test_nothing_typed_is_nothing_refused(name: str) -> None:
    args = parser().parse_args(["export", "--target", name])
    typed = args.left.settle(args)
    assert typed == {"target": "--target"}
    refuse_unused(args, typed, targets(), args.own)
    assert (args.count, args.calibration_count, args.opset, args.max_drop) == (100, 128, 18, None)


def test_every_flag_of_a_target_is_its_own() -> None:
    """Whatever a target adds, in one file, is refused with the others."""
    args = parser().parse_args(["export", "--target", "safetensors"])
    typed = args.left.settle(args)
    assert set(args.own.values()) <= set(targets())
    for place, name in args.own.items():
        with pytest.raises(UserError, match=rf"--x has no effect without --target {name}:"):
            refuse_unused(args, {**typed, place: "--x"}, targets(), args.own)


def test_what_a_prepared_file_holds_is_what_the_library_refuses_to_change() -> None:
    """Typed, by whatever value; there, by values that differ from the defaults."""
    args = parser().parse_args(["export", "--target", "trt"])
    assert tuple(args.left.flags[place] for place in IN_FILE) == tuple(FIELDS_IN_FILE.values())


def test_the_table_names_flags_that_there_are() -> None:
    args = parser().parse_args(["export", "--target", "onnx"])
    args.left.settle(args)
    assert {place for limited in LIMITED for place in limited.places} <= set(vars(args))
