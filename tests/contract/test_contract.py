"""docs/contract.md: its numbers are the package's, and those of two implementations written from the page."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.runtimes import open_model
from edge_deeplab.spec import InputContract
from tests.contract import make_vectors, reference
from tests.contract.figure import figure

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "contract"
VECTORS: dict[str, Any] = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))

# Elsewhere OpenCV takes kernels of the processor's vendor, which round otherwise: by 1, here and there.
on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="OpenCV's bytes are compared on x86 only"
)

tensors = pytest.mark.parametrize("vector", VECTORS["tensors"], ids=lambda vector: vector["name"])
masks = pytest.mark.parametrize("vector", VECTORS["masks"], ids=lambda vector: vector["name"])


def sha(data: NDArray[Any] | bytes) -> str:
    return hashlib.sha256(
        data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
    ).hexdigest()


def frame_of(vector: dict[str, Any]) -> NDArray[Any]:
    frame = reference.pattern(vector["frame"]["height"], vector["frame"]["width"])
    assert sha(frame) == vector["frame"]["sha256"]
    return frame


def output_of(vector: dict[str, Any]) -> NDArray[Any]:
    shape = vector["output"]["shape"]
    answer = reference.output(vector["contract"]["head"], *([1, *shape] if len(shape) == 2 else shape))
    assert sha(answer) == vector["output"]["sha256"]
    return answer


# -- the package -------------------------------------------------------------------------------------


def test_the_page_shows_what_is_in_the_file() -> None:
    assert make_vectors.page(VECTORS) == make_vectors.PAGE.read_text(encoding="utf-8")


def test_the_figure_is_drawn_by_its_formula() -> None:
    found = cv2.imread(str(FOLDER / "figure.png"))
    assert found is not None
    assert np.array_equal(found, figure())


def test_what_is_called_portraits_is_portraits() -> None:
    """New weights may take another input: the copies of it must follow."""
    size = {side: VECTORS["network"]["contract"][side] for side in ("height", "width")}
    named = [v for v in (*VECTORS["tensors"], *VECTORS["masks"]) if "as `portrait`" in v["name"]]
    assert len(named) == 2
    for vector in named:
        assert {side: vector["contract"][side] for side in size} == size
    assert named[1]["output"]["shape"] == VECTORS["network"]["logits"]["shape"][1:]
    cpp, kotlin = ((FOLDER / name).read_text(encoding="utf-8") for name in ("contract.hpp", "Contract.kt"))
    assert f"int height = {size['height']}, width = {size['width']};" in cpp
    assert all(f"val {side}: Int = {pixels}," in kotlin for side, pixels in size.items())


@on_x86
def test_the_vectors_are_what_the_package_computes() -> None:
    found = json.loads(json.dumps(make_vectors.vectors()))
    assert found["tensors"] == VECTORS["tensors"]
    strip = [{**v, "mask": {**v["mask"], "scores": None}} for v in found["masks"]]
    assert strip == [{**v, "mask": {**v["mask"], "scores": None}} for v in VECTORS["masks"]]
    for ours, theirs in zip(found["masks"], VECTORS["masks"], strict=True):
        assert np.allclose(ours["mask"]["scores"], theirs["mask"]["scores"], atol=1e-5)


def test_the_network() -> None:
    vector = VECTORS["network"]
    frame = cv2.imread(str(FOLDER / vector["frame"]["file"]))
    assert frame is not None
    assert sha(frame) == vector["frame"]["sha256"]  # type: ignore[arg-type]
    with open_model(vector["model"], threads=1) as model:
        stale = "portrait has new weights: run python -m tests.contract.make_vectors"
        assert model.contract.provenance.weights_sha256 == vector["weights_sha256"], stale
        assert make_vectors.record(model.contract) == _tuples(vector["contract"])
        tensor = reference.tensor(frame, vector["contract"])
        assert sha(tensor) == vector["tensor"]["sha256"]
        logits = model.infer(tensor)
    for *at, value in vector["logits"]["samples"]:
        assert abs(logits[tuple(at)] - value) < vector["logits"]["tolerance"]
    labels, _ = reference.mask(logits[0], vector["contract"], *frame.shape[:2])
    there = np.array([[int(digit) for digit in row] for row in vector["mask"]["rows"]])
    near = vector["mask"]["within_tolerance"]
    assert np.abs(np.bincount(labels.ravel()) - vector["mask"]["pixels"]).max() <= near
    assert (labels[::24, ::8] != there).sum() <= near
    assert 0.1 < labels.mean() < 0.5


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


# -- plain numpy, from the page alone ----------------------------------------------------------------------


def test_the_reference_knows_nothing_of_the_package() -> None:
    tree = ast.parse((ROOT / "tests/contract/reference.py").read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import)
            else [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert imported == {"__future__", "collections", "typing", "numpy"}


@tensors
def test_reference_tensor(vector: dict[str, Any]) -> None:
    tensor = reference.tensor(frame_of(vector), vector["contract"])
    assert list(tensor.shape) == vector["tensor"]["shape"]
    for *at, value in vector["tensor"]["samples"]:
        assert tensor[tuple(at)] == value
    assert sha(tensor) == vector["tensor"]["sha256"]


@masks
def test_reference_mask(vector: dict[str, Any]) -> None:
    size = vector["frame"]["height"], vector["frame"]["width"]
    labels, scores = reference.mask(output_of(vector), vector["contract"], *size)
    assert sha(labels) == vector["mask"]["sha256"]
    assert np.bincount(labels.ravel()).tolist() == vector["mask"]["pixels"]
    for *at, value in vector["mask"]["scores"]:
        assert scores is not None
        assert abs(scores[0][tuple(at)] - value) < 1e-5


@on_x86
@pytest.mark.parametrize("number", range(24))
def test_the_page_holds_for_other_sizes(number: int, contract: InputContract) -> None:
    """Random sizes, both ways of placing, into 64x96: bytes as OpenCV makes them here."""
    rng = np.random.default_rng(number)
    h, w = (int(n) for n in rng.integers(4, 500, 2)) if number % 3 else (64 * (number % 5 + 1), 96 * 3)
    frame = rng.integers(0, 256, (h, w, 3), np.uint8)
    made = contract.replace(resize=("stretch", "letterbox")[number % 2], mean=(123.6, 116.5, 104.4))
    wanted = imaging.preprocess(frame, made)
    assert np.array_equal(reference.tensor(frame, make_vectors.record(made)), wanted)


# -- C++ and Kotlin ------------------------------------------------------------------------------------


HERE = Path(__file__).resolve().parent


def compiled(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def cpp(folder: Path) -> list[str]:
    """Compile the header with what runs it; the command that starts it."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    target = str(folder / "check")
    strict = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-I", str(FOLDER)]
    # The sanitiser's library is not installed everywhere.
    for options in (["-fsanitize=undefined", "-fno-sanitize-recover=all"], []):
        done = compiled([compiler, *strict, *options, str(HERE / "check.cpp"), "-o", target])
        if done.returncode == 0:
            return [target]
    pytest.fail(done.stderr)


def kotlin(folder: Path) -> list[str]:
    """The same for Kotlin."""
    compiler, java = shutil.which("kotlinc"), shutil.which("java")
    if compiler is None or java is None:
        pytest.skip("no Kotlin compiler")
    target = str(folder / "check.jar")
    sources = [str(FOLDER / "Contract.kt"), str(HERE / "Check.kt")]
    done = compiled([compiler, "-Werror", *sources, "-include-runtime", "-d", target])
    if done.returncode:
        pytest.fail(done.stderr)
    return [java, "-cp", target, "CheckKt"]


@pytest.fixture(scope="module", params=[cpp, kotlin], ids=["C++", "Kotlin"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if sys.byteorder != "little":
        pytest.skip("the vectors are little endian")
    return request.param(tmp_path_factory.mktemp("program"))


def computed(
    program: list[str], given: NDArray[Any], kind: str, *sizes: int, contract: dict[str, Any]
) -> bytes:
    flags = (contract["resize"] == "letterbox", contract["channels"] == "BGR", contract["layout"] == "NHWC")
    words = [
        kind, *sizes, contract["height"], contract["width"], *map(int, flags), contract["dtype"],
        contract["head"], contract["threshold"], *contract["mean"], *contract["std"],
    ]  # fmt: skip
    return subprocess.run(
        [*program, *map(str, words)], input=given.tobytes(), capture_output=True, check=True, timeout=300
    ).stdout


@tensors
def test_copied_tensor(program: list[str], vector: dict[str, Any]) -> None:
    frame = frame_of(vector)
    data = computed(program, frame, "tensor", *frame.shape[:2], contract=vector["contract"])
    assert sha(data) == vector["tensor"]["sha256"]


@masks
def test_copied_mask(program: list[str], vector: dict[str, Any]) -> None:
    answer = output_of(vector)
    size = vector["frame"]["height"], vector["frame"]["width"]
    shape = (1, *answer.shape) if answer.ndim == 2 else answer.shape
    data = computed(program, answer, "mask", *size, *shape, contract=vector["contract"])
    assert sha(data) == vector["mask"]["sha256"]
    if answer.ndim == 3:
        swapped = {**vector["contract"], "layout": "NHWC"}
        last = np.ascontiguousarray(np.moveaxis(answer, 0, -1))
        assert computed(program, last, "mask", *size, *shape, contract=swapped) == data
