"""From a prepared file to a verified engine, on the double: as on a board, without torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.cli import main
from edge_deeplab.errors import MissingExtra, UserError
from edge_deeplab.export import Options, VerificationError, export_model
from edge_deeplab.export.calibration import Calibration
from edge_deeplab.export.trt_beside import export_beside
from edge_deeplab.export.trt_settings import TrtSettings
from edge_deeplab.files import sha256
from edge_deeplab.imaging import write_image
from edge_deeplab.runtimes import open_model
from edge_deeplab.runtimes.trt_sidecar import read_engine
from edge_deeplab.zoo import shipped
from tests.runtimes.artefacts import picture
from tests.trt.double import TensorRTDouble
from tests.trt.toys import toy_prepared

ROOT = Path(__file__).resolve().parents[2]

FILES = ["toy.engine", "toy.engine.json", "toy.engine.report.json", "toy.onnx"]


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A folder to work in."""
    folder = tmp_path / "board"
    folder.mkdir()
    return folder


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(16):
        write_image(folder / f"{number:02d}.png", picture(40, 50, seed=number))
    return folder


def export(folder: Path, *flags: object, graph: str = "fp32", **changes: Any) -> int:
    prepared = toy_prepared(folder / "toy.onnx", graph, **changes)
    output = folder / "toy.engine"
    return main(["export", str(prepared), "--target", "trt", "--output", str(output), *map(str, flags)])


# -- engines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["fp32", "fp16", "int8"])
def test_an_engine_is_verified_and_has_its_sidecar(trt: TensorRTDouble, board: Path, graph: str) -> None:
    assert export(board, graph=graph) == 0
    assert everything(board) == FILES
    _, record = read_engine(board / "toy.engine")
    assert record.prepared_sha256 == sha256(board / "toy.onnx")
    assert (record.tensorrt, record.compute_capability, record.gpu) == (trt.__version__, "8.7", "Orin")
    assert record.contract.precision == graph
    assert record.build["graph"] == graph
    report = json.loads((board / "toy.engine.report.json").read_text())
    assert (report["passed"], report["precision"], report["target"]) == (True, graph, "trt")
    assert report["sha256"] == sha256(board / "toy.engine")
    assert report["versions"]["tensorrt"] == trt.__version__
    assert report["reference"] == "ONNX Runtime"  # there is no PyTorch on the board
    with open_model(board / "toy.engine") as engine, open_model(board / "toy.onnx") as reference:
        frame = picture(50, 70)
        np.testing.assert_array_equal(engine.segment(frame).labels, reference.segment(frame).labels)


def test_the_precision_may_be_said_again(trt: TensorRTDouble, board: Path) -> None:
    """As one would, on the board: ``--int8`` needs no pictures where the ranges are in the graph."""
    assert export(board, "--int8", graph="int8") == 0
    _, record = read_engine(board / "toy.engine")
    assert record.contract.precision == "int8"


def test_the_engine_is_named_after_the_file(
    trt: TensorRTDouble, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(board)
    toy_prepared(Path("toy.onnx"))
    assert main(["export", "toy.onnx", "--target", "trt"]) == 0
    assert everything(board) == FILES


def test_a_range_of_batches(trt: TensorRTDouble, board: Path) -> None:
    assert export(board, "--batch", "1,2,4", dynamic=("batch",)) == 0
    _, record = read_engine(board / "toy.engine")
    assert record.batch == (1, 2, 4)
    with open_model(board / "toy.engine") as model:
        assert model.describe()["batch"] == "1 to 4, built for 2"
        assert len(model.segment_batch([picture(20, 30)] * 6)) == 6


def test_a_dynamic_batch_has_a_default(trt: TensorRTDouble, board: Path) -> None:
    assert export(board, dynamic=("batch",)) == 0
    assert read_engine(board / "toy.engine")[1].batch == (1, 1, 8)


def test_a_batch_for_a_file_without_one(
    trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(board, "--batch", "1,2,4") == 2
    assert "prepared with a fixed batch of 1: leave --batch away" in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


def test_flags_reach_the_sidecar(trt: TensorRTDouble, board: Path) -> None:
    cache = board / "times"
    flags = ("--hardware", "ampere-plus", "--version-compatible", "--workspace", 256, "--timing-cache", cache)
    assert export(board, *flags) == 0
    _, record = read_engine(board / "toy.engine")
    assert (record.hardware, record.version_compatible) == ("ampere-plus", True)
    assert record.build["workspace MiB"] == 256
    assert cache.is_file()


# -- calibrators ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["entropy", "minmax"])
def test_tensorrts_own_ranges(
    trt: TensorRTDouble, board: Path, calibration: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    status = export(board, "--int8", "--calibrator", method, "--calibration", calibration)
    if trt.major >= 11:
        assert status == 2
        assert "has no calibrators; leave --calibrator away" in capsys.readouterr().err
        assert everything(board) == ["toy.onnx"]
        return
    assert status == 0
    _, record = read_engine(board / "toy.engine")
    assert record.build["calibration"]["calibrator"] == method
    assert record.build["calibration"]["files"] == [f"{n:02d}.png" for n in range(16)]
    quantized = record.contract.quantization
    assert quantized is not None
    assert (quantized.method, quantized.pictures) == (method, 16)


def test_a_calibrator_without_pictures(
    trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(board, "--int8", "--calibrator", "entropy") == 2
    words = "has no calibrators" if trt.major >= 11 else "give --int8 and --calibration DIR or KIND:PATH"
    assert words in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


def test_pictures_for_a_calibrator_are_doubted(
    trt: TensorRTDouble, board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if trt.major >= 11:
        pytest.skip("TensorRT 11 has no calibrators")
    (tmp_path / "gray").mkdir()
    for level in range(16):
        write_image(tmp_path / "gray" / f"{level}.png", np.full((40, 50, 3), 100 + level, np.uint8))
    assert export(board, "--int8", "--calibrator", "minmax", "--calibration", tmp_path / "gray") == 0
    err = capsys.readouterr().err
    assert "16 of 16 show hardly anything" in err
    assert "in 16 of 16 the float model does not find both classes" in err


def test_a_calibrator_for_a_dynamic_batch(trt: TensorRTDouble, board: Path, calibration: Path) -> None:
    if trt.major >= 11:
        pytest.skip("TensorRT 11 has no calibrators")
    flags = ("--int8", "--calibrator", "entropy", "--calibration", calibration, "--batch", "1,4,8")
    assert export(board, *flags, dynamic=("batch",)) == 0
    assert read_engine(board / "toy.engine")[1].batch == (1, 4, 8)


# -- FP16 beside INT8 ----------------------------------------------------------------------------


def test_an_fp16_engine_beside_the_int8_one(
    trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = toy_prepared(board / "half.onnx", "fp16")
    assert export(board, "--beside-fp16", half, graph="int8") == 0
    beside = [f"toy-fp16.engine{end}" for end in ("", ".json", ".report.json")]
    assert everything(board) == sorted([*FILES, "half.onnx", *beside])
    report = json.loads((board / "toy.engine.report.json").read_text())
    (note,) = [line for line in report["notes"] if "p50" in line]
    assert "INT8" in note
    assert "FP16" in note
    assert note in capsys.readouterr().err
    with open_model(board / "toy-fp16.engine") as model:
        assert model.contract.precision == "fp16"


def test_int8_that_is_slower_is_warned_of(
    trt: TensorRTDouble, board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_deeplab.export import trt_beside

    monkeypatch.setattr(trt_beside, "_times", lambda *_: [2.0, 1.5])
    half = toy_prepared(board / "half.onnx", "fp16")
    assert export(board, "--beside-fp16", half, graph="int8") == 0
    err = capsys.readouterr().err
    assert "INT8 is the slower one here: INT8 2.00 ms, FP16 1.50 ms (p50 of 60, in turns" in err
    assert f"use {board / 'toy-fp16.engine'}" in err


def test_an_int8_graph_cannot_become_an_fp16_engine(
    trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(board, "--beside-fp16", graph="int8") == 2
    assert "name the FP16 one, --beside-fp16 PREPARED.onnx" in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


def test_a_range_of_batches_is_refused_before_the_fp16_engine_is_built(
    trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = toy_prepared(board / "half.onnx", "fp16", dynamic=("batch",))
    assert export(board, "--beside-fp16", half, "--batch", "1,2,4", graph="int8") == 2
    assert "toy.onnx was prepared with a fixed batch of 1" in capsys.readouterr().err
    assert "Builder" not in trt.names()
    assert everything(board) == ["half.onnx", "toy.onnx"]


def test_what_is_for_int8_does_not_reach_a_prepared_fp16_file(tmp_path: Path) -> None:
    """It has its head and size, and INT8's layers in float are not its own."""
    asked: list[tuple[str, Path, Options]] = []
    settings = TrtSettings(beside="half.onnx", workspace_mib=64)
    options = Options(
        head="classmap", size=(64, 64), precision="int8", keep_float=("a",), remedies=False, settings=settings
    )
    left = export_beside("portrait", tmp_path / "x.engine", options, lambda *again: asked.append(again))
    plain = TrtSettings(workspace_mib=64)
    assert asked == [
        ("half.onnx", tmp_path / "x-fp16.engine", Options(precision="fp16", settings=plain)),
    ]
    rival = dataclasses.replace(settings, rival=tmp_path / "x-fp16.engine")
    assert left == dataclasses.replace(options, settings=rival)


def test_fp16_beside_fp16_makes_no_sense(
    trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = toy_prepared(board / "half.onnx", "fp16")
    assert export(board, "--beside-fp16", half, graph="fp16") == 2
    assert "--beside-fp16 goes with an INT8 engine" in capsys.readouterr().err
    assert everything(board) == ["half.onnx", "toy.onnx"]


# -- what fails leaves nothing -------------------------------------------------------------------


def test_where_tensorrt_is_missing(
    board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, with the way that needs none and the package that brings it."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert export(board) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for words in ("TensorRT is not installed", "--prepare", "python3-libnvinfer", "edge-deeplab[trt]"):
        assert words in err
    assert everything(board) == ["toy.onnx"]


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipped model, and a failure as soon as it is opened."""
    pytest.importorskip("torch")
    if "portrait" not in shipped():
        pytest.skip("portrait is not shipped")
    from edge_deeplab.models import checkpoint

    def opened(*_: object) -> None:
        raise AssertionError("minutes of work, in vain")

    monkeypatch.setattr(checkpoint, "load_checkpoint", opened)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_model_is_not_opened_in_vain(board: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    pictures = Calibration("nothing", ())
    with pytest.raises(MissingExtra, match="--prepare"):
        export_model(
            "portrait", "trt", board / "x.engine", Options(precision=precision, calibration=pictures)
        )
    assert everything(board) == []


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        ({}, {"diagnose": True}, "an engine cannot be looked into layer by layer: leave --diagnose away"),
        ({}, {"dynamic": ("size",)}, "give --size instead of --dynamic size"),
        ({"timing_cache": "{file}/times"}, {}, "cannot write {file}/times"),
        ({"timing_cache": "{file}/.."}, {}, "cannot write {file}/.."),
        ({"dla_core": 0}, {}, "a DLA computes in FP16 or INT8"),
        ({"calibrator": "entropy"}, {}, "give --int8 and --calibration DIR or KIND:PATH"),
        ({"calibrator": "entropy"}, {"precision": "int8"}, "give --int8 and --calibration DIR or KIND:PATH"),
        ({"calibrator": "entropy"}, {"precision": "int8", "keep_float": ("a",)}, "leave it or --calibrator"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    trt: TensorRTDouble,
    board: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    options: dict[str, Any],
    words: str,
) -> None:
    if trt.major >= 11 and words.startswith("give --int8"):
        words = "has no calibrators"
    (tmp_path / "file").write_bytes(b"x")
    given = {k: v.format(file=tmp_path / "file") if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(UserError) as caught:
        export_model("portrait", "trt", board / "x.engine", Options(**options, settings=TrtSettings(**given)))
    assert words.format(file=tmp_path / "file") in str(caught.value)
    assert everything(board) == []


@pytest.mark.usefixtures("unread")
def test_no_gpu_is_said_at_once(trt: TensorRTDouble, board: Path) -> None:
    trt.cuda._devices = 0
    with pytest.raises(UserError, match="there is no GPU 0"):
        export_model("portrait", "trt", board / "x.engine")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"calibrator": "entropy"}, "leave --calibrator away, or prepare without --int8"),
        (
            {"workspace_mib": 9, "hardware": "ampere-plus"},
            "--prepare builds no engine: give --workspace, --hardware when building it",
        ),
        ({"timing_cache": "times"}, "give --timing-cache when building it"),
        ({"dla_core": 0}, "give --dla when building it"),
        ({"version_compatible": True}, "give --version-compatible when building it"),
        (
            {"batch": (1, 2, 4)},
            "give --batch when building it; for a range of batches give --dynamic batch here",
        ),
    ],
)
def test_what_only_a_build_uses_is_refused_with_prepare(
    board: Path, settings: dict[str, Any], words: str
) -> None:
    """A file that is named INT8, judged as INT8 and float32 inside was the worst of these."""
    options = Options(precision="int8", settings=TrtSettings(prepare=True, **settings))
    with pytest.raises(UserError) as caught:
        export_model("portrait", "trt", board / "x.onnx", options)
    assert words in str(caught.value)
    assert everything(board) == []


@pytest.mark.parametrize("step", ["builder", "parse", "build", "runtime", "context", "enqueue"])
def test_a_failed_step_leaves_nothing(
    trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    trt.refuse[step] = "no, because"
    assert export(board) == 2
    err = capsys.readouterr().err
    assert "no, because" in err
    assert err.count("\n") == 1
    assert everything(board) == ["toy.onnx"]


def test_no_gpu_leaves_nothing(trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trt.cuda._devices = 0
    assert export(board) == 2
    assert "there is no GPU 0: CUDA sees 0" in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch, trt: TensorRTDouble) -> TensorRTDouble:
    """TensorRT that computes something else."""
    from tests.trt import double

    run = double.IExecutionContext._run

    def inverted(self: Any, shape: tuple[int, ...]) -> None:
        import ctypes

        run(self, shape)
        address = self._addresses["logits"]
        size = int(np.prod(shape)) // 3 // 16 * 4
        values = np.frombuffer(ctypes.string_at(address, size), np.float32)
        ctypes.memmove(address, (-values).tobytes(), size)

    monkeypatch.setattr(double.IExecutionContext, "_run", inverted)
    return trt


def test_a_wrong_engine_is_removed(
    wrong: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(board) == 1
    assert "was not written: only" in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


def test_a_wrong_engine_does_not_replace_a_good_one(
    trt: TensorRTDouble, board: Path, request: pytest.FixtureRequest
) -> None:
    assert export(board) == 0
    before = {path.name: path.read_bytes() for path in board.iterdir()}
    request.getfixturevalue("wrong")
    with pytest.raises(VerificationError):
        export_model(str(board / "toy.onnx"), "trt", board / "toy.engine")
    assert {path.name: path.read_bytes() for path in board.iterdir()} == before


def test_force_keeps_it_with_its_sidecar(wrong: TensorRTDouble, board: Path) -> None:
    assert export(board, "--force") == 1
    assert everything(board) == FILES


def test_ctrl_c_leaves_nothing(trt: TensorRTDouble, board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.trt import double

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(double.Builder, "_progress", stop)
    assert export(board) == 130
    assert everything(board) == ["toy.onnx"]


def test_a_full_disk_leaves_nothing(
    trt: TensorRTDouble,
    board: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy_prepared(board / "toy.onnx")
    with full_disk(500):
        status = main(
            ["export", str(board / "toy.onnx"), "--target", "trt", "--output", str(board / "toy.engine")]
        )
    assert status == 2
    assert "cannot write" in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch", "4,2,1"], "batches must be 1 or more and must not fall"),
        (["--batch", "many"], "give MIN,BEST,MAX, e.g. 1,4,16"),
        (["--batch", "0"], "batches must be 1 or more"),
        (["--workspace", "0"], "--workspace 0 is too small"),
        (["--dla", "-1"], "--dla -1 is too small"),
        (["--dla", "0"], "a DLA computes in FP16 or INT8"),
        (["--prepare", "--output", "x.onnx"], "is prepared already; leave --prepare away"),
        (["--fp16", "--output", "x.trt"], "must end in .engine"),
        (["--int8"], "the graph has no INT8 ranges: prepare it with --int8"),
        (["--head", "classmap"], "--head has no effect on a prepared file (prepare the model again with it)"),
        (["--size", "64x64", "--io", "uint8"], "--size and --io have no effect on a prepared file"),
        (["--dynamic", "batch", "--layout", "NCHW"], "--dynamic and --layout have no effect on a prepared"),
        (
            ["--int8", "--keep-float", "head", "--no-remedies"],
            "--keep-float and --no-remedies have no effect on a prepared file",
        ),
        (["--int8", "--scheme", "s8s8"], "--scheme has no effect on a prepared file"),
        (["--diagnose"], "leave --diagnose away, or diagnose the file that it is built from"),
        (["--timing-cache", "."], "cannot write .: it is a folder"),
    ],
)
def test_wrong_flags(
    trt: TensorRTDouble,
    board: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(board)
    try:
        status = export(board, *flags)
    except SystemExit as stop:
        status = int(stop.code or 0)
    err = capsys.readouterr().err
    assert status == 2
    assert words in err
    assert err.count("\n") == 1
    assert everything(board) == ["toy.onnx"]


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"head": "classmap"}, "--head"),
        ({"input_dtype": "uint8"}, "--io"),
        ({"remedies": False}, "--no-remedies"),
    ],
)
def test_a_prepared_file_is_not_changed_by_the_library_either(
    trt: TensorRTDouble, board: Path, options: dict[str, Any], flag: str
) -> None:
    toy_prepared(board / "toy.onnx")
    with pytest.raises(UserError, match=f"is prepared and cannot be changed by {flag}: leave that away"):
        export_model(str(board / "toy.onnx"), "trt", board / "toy.engine", Options(**options))
    assert everything(board) == ["toy.onnx"]


def test_pictures_for_a_file_that_has_its_ranges(
    trt: TensorRTDouble, board: Path, calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(board, "--int8", "--calibration", calibration, graph="int8") == 2
    assert "has its INT8 ranges already: leave --calibration away" in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


def test_a_method_beside_tensorrts_own(
    trt: TensorRTDouble, board: Path, calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--int8", "--calibrator", "entropy", "--calibration", calibration)
    assert export(board, *flags, "--calibration-method", "percentile") == 2
    assert "is the method: leave --calibration-method percentile away" in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


def test_another_onnx_file_is_not_built(
    trt: TensorRTDouble, board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.runtimes.artefacts import toy_onnx

    path = toy_onnx(board / "toy.onnx")
    assert main(["export", str(path), "--target", "trt", "--output", str(board / "toy.engine")]) == 2
    assert "was not prepared for TensorRT" in capsys.readouterr().err
    assert everything(board) == ["toy.onnx"]


# -- without torch -------------------------------------------------------------------------------

BOARD = """
import sys
from tests.trt.cuda_double import CudaDouble, modules
from tests.trt.double import TensorRTDouble  # has its own onnx
from edge_deeplab.cli import main
for name in ("torch", "torchvision", "safetensors", "onnx", "onnxscript", "onnxsim"):
    sys.modules[name] = None
cuda = CudaDouble()
sys.modules.update({**modules(cuda), "tensorrt": TensorRTDouble("10.3.0", cuda)})
raise SystemExit(main(sys.argv[1:]))
"""


def test_the_board_needs_neither_torch_nor_onnx(board: Path, tmp_path: Path) -> None:
    toy_prepared(board / "toy.onnx", "int8")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", BOARD, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=board,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        )

    done = command("export", "toy.onnx", "--target", "trt")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert everything(board) == FILES
    done = command("info", "toy.engine")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "runs in TensorRT" in done.stdout
    assert "compute capability 8.7" in done.stdout


def test_the_flags_become_a_record() -> None:
    assert Options().settings is None
    assert TrtSettings().hardware == "same-gpu"
    with pytest.raises(UserError, match="must end in"):
        export_model("portrait", "trt", "x.engine", Options(settings=TrtSettings(prepare=True)))
