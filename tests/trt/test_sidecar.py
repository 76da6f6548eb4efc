"""What stands beside an engine is checked before TensorRT sees a byte of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_deeplab.errors import UserError
from edge_deeplab.runtimes import open_model
from edge_deeplab.runtimes.trt_sidecar import (
    HostError,
    Sidecar,
    SidecarError,
    read_engine,
    sidecar_path,
    version_of,
    write_sidecar,
)
from tests.runtimes.artefacts import toy_contract

ENGINE = b"an engine, as far as anybody can tell"


def sidecar(**changes: Any) -> Sidecar:
    record: dict[str, Any] = {
        "engine_sha256": hashlib.sha256(ENGINE).hexdigest(),
        "prepared_sha256": "0" * 64,
        "tensorrt": "10.3.0.30",
        "compute_capability": "8.7",
        "gpu": "Orin",
        "hardware": "same-gpu",
        "version_compatible": False,
        "dla_core": None,
        "batch": (1, 1, 1),
        "contract": toy_contract(),
        "build": {"graph": "int8", "words": "größer"},
    }
    return Sidecar(**{**record, **changes})


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "x.engine"
    path.write_bytes(ENGINE)
    write_sidecar(path, sidecar())
    return path


def test_there_and_back(engine: Path) -> None:
    data, record = read_engine(engine)
    assert data == ENGINE
    assert record == sidecar()
    assert sidecar_path(engine).name == "x.engine.json"


def edit(engine: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = sidecar_path(engine)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda r: r.update(compute_capability="8.9"), id="another GPU"),
        pytest.param(lambda r: r.update(tensorrt="11.4.0"), id="another version"),
        pytest.param(lambda r: r["contract"].update(mean=[0, 0, 0]), id="another mean"),
        pytest.param(lambda r: r["contract"].update(threshold=0.1), id="another threshold"),
        pytest.param(lambda r: r.pop("gpu"), id="less"),
        pytest.param(lambda r: r.update(more=1), id="more"),
        pytest.param(lambda r: r.update(sha256="0" * 64), id="another hash"),
    ],
)
def test_a_changed_sidecar_is_noticed(engine: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(engine, change)
    with pytest.raises(SidecarError, match=r"x\.engine\.json was changed after it was written") as caught:
        open_model(engine)
    assert "copy engine and sidecar together, or build the engine again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "not JSON", "[]", "{}", '{"sha256": 1}', "\xff\xfe", "null"], ids=lambda text: repr(text)
)
def test_what_is_no_sidecar(engine: Path, text: str) -> None:
    sidecar_path(engine).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"x\.engine\.json.* (damaged|empty)"):
        open_model(engine)


def test_a_record_that_was_hashed_but_makes_no_sense(engine: Path) -> None:
    """By a program that computes the hash too, and gets the rest wrong."""
    from edge_deeplab.runtimes import trt_sidecar

    path = sidecar_path(engine)
    record = json.loads(path.read_text())
    del record["sha256"]
    for name, value in (("hardware", "any"), ("tensorrt", "ten"), ("batch", [1]), ("contract", {})):
        broken = {**record, name: value}
        path.write_text(json.dumps({**broken, "sha256": trt_sidecar._digest(broken)}))
        with pytest.raises(UserError, match="damaged"):
            open_model(engine)


def test_a_newer_sidecar(engine: Path) -> None:
    edit(engine, lambda r: r.update(format=2))
    with pytest.raises(SidecarError, match="has format 2, this version reads 1; cure: pip install -U"):
        open_model(engine)


def test_no_sidecar(engine: Path) -> None:
    sidecar_path(engine).unlink()
    with pytest.raises(SidecarError, match=r"has no x\.engine\.json beside it"):
        open_model(engine)


@pytest.mark.parametrize("data", [ENGINE[:-1], ENGINE + b"!", b"another engine"])
def test_another_engine_than_the_sidecar_describes(engine: Path, data: bytes) -> None:
    engine.write_bytes(data)
    with pytest.raises(SidecarError, match=r"damaged or not the engine that x\.engine\.json describes"):
        open_model(engine)


def test_an_empty_engine(engine: Path) -> None:
    engine.write_bytes(b"")
    with pytest.raises(UserError, match=r"the file is empty \(0 bytes\)"):
        open_model(engine)


# -- this machine --------------------------------------------------------------------------------

HERE = {"tensorrt": "10.3.0.30", "capability": (8, 7), "gpu": "Orin"}


def fits(record: Sidecar, **here: Any) -> list[str]:
    return record.check_host("x.engine", **{**HERE, **here})


def test_the_machine_that_built_it() -> None:
    assert fits(sidecar()) == []


@pytest.mark.parametrize(
    ("built", "here", "lean", "runs"),
    [
        ("10.3.0.30", "10.3.0.30", False, True),
        ("10.3.0.30", "10.3.0", False, True),  # packages that leave the build number away
        ("8.6.1", "8.6.1.post1", False, True),
        ("10.3.0.30", "10.3.0.26", False, False),
        ("10.3.0", "10.4.0", False, False),
        ("10.3.0", "11.4.0.106", False, False),
        ("10.3.0", "10.16.1.11", True, True),
        ("10.16.1", "10.3.0", True, False),
        ("10.3.0", "11.4.0", True, True),
        ("8.6.1", "10.3.0", True, True),
        ("8.6.1", "11.4.0", True, False),
        ("11.4.0", "10.16.1", True, False),
    ],
)
def test_versions(built: str, here: str, lean: bool, runs: bool) -> None:
    record = sidecar(tensorrt=built, version_compatible=lean)
    if runs:
        assert fits(record, tensorrt=here) == []
        return
    with pytest.raises(HostError, match=rf"built by TensorRT {built}, here is {here}") as caught:
        fits(record, tensorrt=here)
    assert "build it again here from its prepared ONNX file" in str(caught.value)


@pytest.mark.parametrize(
    ("hardware", "here", "runs"),
    [
        ("same-gpu", (8, 7), True),
        ("same-gpu", (8, 9), False),
        ("same-compute-capability", (8, 7), True),
        ("same-compute-capability", (9, 0), False),
        ("ampere-plus", (8, 0), True),
        ("ampere-plus", (12, 0), True),
        ("ampere-plus", (7, 5), False),
    ],
)
def test_gpus(hardware: str, here: tuple[int, int], runs: bool) -> None:
    record = sidecar(hardware=hardware)
    if runs:
        assert fits(record, capability=here) == []
        return
    with pytest.raises(HostError, match=rf"compute capability {here[0]}\.{here[1]}\)") as caught:
        fits(record, capability=here, gpu="another")
    assert "was built on Orin (compute capability 8.7)" in str(caught.value)


def test_a_cousin_of_the_gpu_is_a_doubt() -> None:
    (doubt,) = fits(sidecar(), gpu="Orin Nano")
    assert "built on Orin" in doubt
    assert "here is Orin Nano" in doubt
    assert fits(sidecar(hardware="same-compute-capability"), gpu="Orin Nano") == []


def test_versions_are_numbers() -> None:
    assert version_of("10.3.0.30") == (10, 3, 0, 30)
    assert version_of("8.6.1.post1") == (8, 6, 1)
    for text in ("", "10", "10.3", "x.y.z"):
        with pytest.raises(ValueError, match="is no version"):
            version_of(text)
