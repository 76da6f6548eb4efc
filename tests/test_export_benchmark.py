"""The benchmark of all artefacts: what it exports, whom it times, and its tables."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from edge_deeplab.bench.record import Accuracy
from edge_deeplab.cli import parser
from edge_deeplab.cli.cmd_export import complete
from edge_deeplab.errors import UserError
from edge_deeplab.zoo import find, shipped
from tests.bench.conftest import make_entry, make_result

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

pytestmark = pytest.mark.skipif("portrait" not in shipped(), reason="portrait is not shipped")


@pytest.fixture(autouse=True)
def scripts_import_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when they are run: their own folder comes first on the path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def grid() -> Any:
    return importlib.import_module("export_grid")


@pytest.fixture
def shown() -> Any:
    return importlib.import_module("export_tables")


@pytest.fixture
def model(grid: Any) -> Any:
    path = find("portrait", prefer=(".safetensors",))
    return grid.Model("portrait", "portrait", path, "folder:data/eg", "folder:data/eg")


def report(iou: float = 0.965, **changes: Any) -> dict[str, Any]:
    return {
        "bytes": 2_670_000,
        "head": "logits",
        "iou_reference": 0.9672,
        "iou_artefact": iou,
        "agreement": 0.9979,
        "quantization": None,
        **changes,
    }


# -- exporting -----------------------------------------------------------------------------------


def test_heads_are_tried_where_they_decide(grid: Any) -> None:
    found = grid.cases(list(grid.EXPORTS), grid.HEADS)
    assert len(found) == len(set(found)) == 4 * 4 + 4
    assert ("tflite-fp16", "logits") in found
    assert ("tflite-fp16", "classmap") not in found
    assert {name for name, head in found if head == "logits"} == set(grid.EXPORTS)


def test_models_get_the_pictures_that_have_their_classes(grid: Any, tmp_path: Path) -> None:
    (ours,) = grid.models(["portrait"], tmp_path, tmp_path, None)
    assert (ours.data, ours.trained) == (f"folder:{tmp_path}/data/eg", True)
    (camvid,) = grid.models([str(BENCHMARKS / "camvid/camvid.safetensors")], tmp_path, tmp_path, None)
    assert (camvid.title, camvid.data) == ("camvid", f"camvid:{tmp_path}/data/camvid")
    with pytest.raises(UserError, match="no model 'portrayt'"):
        list(grid.models(["portrayt"], tmp_path, tmp_path, None))


def test_without_pictures_models_get_what_comes_with_them(
    grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``everything.py`` calls it."""
    exports = importlib.import_module("exports")
    asked: list[tuple[Any, str]] = []

    def export(model: Any, name: str, head: str, output: Path, *, views: str, **_: Any) -> Any:
        asked.append((model, views))
        return grid.Export(model.title, name, head, output / "x.onnx", 0, 1.0, 1.0, report())

    monkeypatch.setattr(exports, "export", export)
    flags = ["--only", "onnx-int8", "--heads", "logits", "--shared", str(tmp_path), "--output", str(tmp_path)]
    assert exports.main(["portrait", "--packaged", "--export-only", *flags]) == 0
    ((model, views),) = asked
    assert (model.data, model.calibration, views) == ("", "", "")


def test_an_export_is_the_users_command_and_watched(
    grid: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of the interpreter stands a script that writes what an export writes."""
    python, stand_in = sys.executable, tmp_path / "python"
    stand_in.write_text(
        f"#!{python}\n"
        "import json, pathlib, sys\n"
        "words = sys.argv[1:]\n"
        "path = pathlib.Path(words[words.index('--output') + 1])\n"
        "path.write_bytes(b'model')\n"
        "path.with_name(path.name + '.report.json').write_text(json.dumps({'words': words}))\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    made = grid.export(model, "tflite-int8", "classmap", tmp_path, pictures=7, views="pictures")
    words = made.report["words"]
    assert words[:4] == ["-m", "edge_deeplab", "export", "portrait"]
    assert " --target tflite --int8 --io uint8 --head classmap --count 7 " in " ".join(words)
    assert words[words.index("--calibration") + 1] == words[words.index("--data") + 1] == model.data
    assert (made.path.name, made.status) == ("portrait-tflite-int8-classmap.tflite", 0)
    assert made.seconds > 0
    assert made.peak_mb > 1
    stand_in.write_text(f"#!{python}\nprint('edge-deeplab: no such thing')\nraise SystemExit(2)\n")
    again = grid.export(model, "tflite-int8", "classmap", tmp_path, pictures=7, views="", reuse=True)
    assert again == made
    with pytest.raises(UserError, match="ended with status 2"):
        grid.export(model, "tflite-int8", "classmap", tmp_path, pictures=7, views="")


@pytest.mark.parametrize("pictures", ["", "folder:data/eg"], ids=["packaged", "labelled"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "random"])
def test_no_export_is_given_a_flag_that_it_refuses(
    grid: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: bool, pictures: str
) -> None:
    """Random weights get none of the remedies, but only INT8 has any to leave away."""
    typed: list[list[str]] = []

    def stop(command: list[str], **_: Any) -> Any:
        typed.append(command[3:])
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", stop)
    asked = dataclasses.replace(model, trained=trained, data=pictures, calibration=pictures)
    for name, head in grid.cases(list(grid.EXPORTS), grid.HEADS):
        with pytest.raises(KeyboardInterrupt):
            grid.export(asked, name, head, tmp_path, pictures=7, views="")
    assert len(typed) == 20
    for words in typed:
        complete(parser().parse_args(words))


# -- tables --------------------------------------------------------------------------------------


def test_the_tables(grid: Any, shown: Any, model: Any) -> None:
    paths = {name: Path(f"{name}.x") for name in ("tflite-fp32", "tflite-int8", "onnx-int8")}
    made = [
        grid.Export("portrait", "tflite-fp32", "logits", paths["tflite-fp32"], 0, 10.0, 900.0, report(0.967)),
        grid.Export("portrait", "tflite-int8", "logits", paths["tflite-int8"], 0, 20.0, 1600.0, report()),
        grid.Export("portrait", "onnx-int8", "logits", paths["onnx-int8"], 1, 5.0, 700.0, None),
    ]
    rounds = [[8.0, 8.2], [9.0, 9.1], [8.0, 8.4]]

    def entry(name: str, factor: float, **changes: Any) -> Any:
        return make_entry(name, [[v * factor for v in turn] for turn in rounds], **changes)

    scored = (Accuracy("eg/val", 150, 0.959, 0.96, 0.8),)
    result = make_result(
        entry("portrait: pytorch, 1 thread", 4.0),
        entry("portrait: tflite-fp32 logits, 1 thread", 2.0),
        entry("portrait: tflite-int8 logits, 1 thread", 1.0),
        entry("mnv3 256, 1 thread", 1.25, peer=True, threads=1, accuracy=scored),
    )
    found = {table.title: table.rows for table in shown.tables([model], made, result)}
    own = found["portrait: every artefact"]
    assert {len(row) for row in own} == {len(own[0])}
    assert [row[0] for row in own[1:]] == ["PyTorch fp32", "tflite-fp32", "tflite-int8", "onnx-int8"]
    assert own[1][own[0].index("IoU")] == "0.9672"
    assert own[3][own[0].index("labels as PyTorch's")] == "99.79%"
    assert own[4][-1] == "refused"
    beside = found["INT8 beside the peers, 1 thread, whole pipeline"]
    assert beside[0][1] == "mnv3 256"
    assert beside[1] == ["portrait tflite-int8", "0.80 (0.80–0.80), +0.60"]
    faster = found["INT8 against fp32, 1 thread, model alone"]
    assert faster[1] == ["portrait, tflite", "logits", "2.00 (2.00–2.00)", "2.00 (2.00–2.00)"]
    assert found["Exporting"][-1] == ["all 3 of portrait with the default head", "35.0", "1600"]
    text = shown.markdown(shown.tables([model], made, None))
    assert "Peers" not in text
    assert "| tflite-int8 | logits | 2.7 |" in text


def test_a_run_without_times(grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    exports = importlib.import_module("exports")
    made = grid.Export("portrait", "onnx-fp32", "logits", tmp_path / "a.onnx", 0, 3.0, 500.0, report())
    monkeypatch.setattr(exports, "export", lambda *_, **__: made)
    monkeypatch.setattr(exports, "models", lambda *_: iter([model]))
    flags = ["--shared", str(tmp_path), "--output", str(tmp_path / "out"), "--export-only"]
    assert exports.main([*flags, "--only", "onnx-fp32", "--heads", "logits"]) == 0
    record = json.loads((tmp_path / "out/exports.json").read_text())
    assert record["exports"][0]["path"] == "a.onnx"
    assert "onnx-fp32" in (tmp_path / "out/exports.md").read_text()
