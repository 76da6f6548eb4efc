"""ONNX Runtime: every kind of head, its options, and files it must refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab.errors import UserError
from edge_deeplab.runtimes import on_onnxruntime, open_model
from edge_deeplab.spec import FORMAT, METADATA_KEY, ContractError, Head, InputContract
from tests.runtimes.artefacts import RED_GREEN_BLUE, picture, toy_contract, toy_onnx

ort = pytest.importorskip("onnxruntime")

HEADS: list[Head] = ["logits", "logits-full", "probability", "classmap"]


def striped() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Columns of 8 pixels in black, red, green and blue, 64x96 BGR."""
    frame = np.zeros((64, 96, 3), np.uint8)
    for column in range(96):
        kind = column // 8 % 4
        if kind:
            frame[:, column, 3 - kind] = 255
    return frame


# -- heads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_bright_is_a_person(tmp_path: Path, head: Head) -> None:
    stride = 4 if head in ("logits", "probability") else 1
    path = toy_onnx(tmp_path / "x.onnx", toy_contract(head=head, head_stride=stride))
    frame = np.zeros((128, 192, 3), np.uint8)
    frame[:, 96:] = 255
    with open_model(path) as model:
        result = model.segment(frame)
    wanted = np.zeros((128, 192), np.uint8)
    wanted[:, 96:] = 1
    np.testing.assert_array_equal(result.labels, wanted)
    assert (result.scores is None) == (head == "classmap")
    if head != "classmap":
        assert result.probability is not None
        low, high = 1 / (1 + np.exp([4, -4 * 127 / 128]))
        np.testing.assert_allclose(result.probability[0, [0, -1]], [low, high], atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_the_highest_of_four_classes(tmp_path: Path, head: Head) -> None:
    stride = 4 if head in ("logits", "probability") else 1
    contract = toy_contract(classes=RED_GREEN_BLUE, head=head, head_stride=stride)
    with open_model(toy_onnx(tmp_path / "x.onnx", contract)) as model:
        result = model.segment(striped())
    wanted = (np.arange(96) // 8 % 4).astype(np.uint8)
    inside = np.arange(96) % 8 // 2 % 3 != 0 if stride == 4 else np.ones(96, bool)  # away from the borders
    np.testing.assert_array_equal(result.labels[:, inside], np.tile(wanted[inside], (64, 1)))
    assert result.scores is None
    assert result.probability is None
    np.testing.assert_array_equal(result.alpha, np.where(result.labels > 0, 255, 0))


@pytest.mark.parametrize("head", ["logits", "probability"])
@pytest.mark.parametrize("threshold", [0.1, 0.7, 0.95])
def test_the_threshold_of_the_contract_counts(tmp_path: Path, head: Head, threshold: float) -> None:
    path = toy_onnx(tmp_path / "x.onnx", toy_contract(head=head, threshold=threshold))
    ramp = np.broadcast_to(np.linspace(0, 255, 96).astype(np.uint8), (64, 96))
    with open_model(path) as model:
        result = model.segment(np.ascontiguousarray(ramp))
    assert result.probability is not None
    clear = np.abs(result.probability - threshold) > 1e-5
    np.testing.assert_array_equal(result.labels[clear], (result.probability >= threshold)[clear])
    assert 0 < result.labels.mean() < 1


def test_letterbox_and_bgr_come_from_the_contract(tmp_path: Path) -> None:
    contract = toy_contract(classes=RED_GREEN_BLUE, resize="letterbox", channels="BGR")
    frame = np.zeros((50, 50, 3), np.uint8)
    frame[..., 0] = 255  # blue, which is the first channel of a BGR model and so its class 1
    with open_model(toy_onnx(tmp_path / "x.onnx", contract)) as model:
        np.testing.assert_array_equal(model.segment(frame).labels, np.ones((50, 50), np.uint8))
        rgb = np.ascontiguousarray(frame[..., ::-1])
        np.testing.assert_array_equal(model.segment(rgb, channels="RGB").labels, np.ones((50, 50), np.uint8))


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_reach_the_session(toy: Path, threads: int) -> None:
    with open_model(toy, threads=threads) as model:
        assert model.session.get_session_options().intra_op_num_threads == threads  # type: ignore[attr-defined]
        assert model.describe() == {"providers": "CPUExecutionProvider", "threads": str(threads)}


@pytest.mark.parametrize("exact", [True, False])
def test_integers_are_exact_on_processors_without_vnni(
    toy: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    """Only there: the exact product is slower wherever it is asked for."""
    monkeypatch.setattr(on_onnxruntime, "multiplies_bytes_exactly", lambda: exact)
    with open_model(toy) as model:
        settings = model.session.get_session_options()  # type: ignore[attr-defined]
    if exact:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            settings.get_session_config_entry("session.x64quantprecision")
    else:
        assert settings.get_session_config_entry("session.x64quantprecision") == "1"


@pytest.mark.parametrize(
    ("flags", "exact"), [("avx2 avx512_vnni", True), ("avx_vnni", True), ("avx2 fma", False), (None, False)]
)
def test_vnni_is_read_from_the_processors_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, exact: bool
) -> None:
    monkeypatch.setattr(on_onnxruntime.platform, "machine", lambda: "x86_64")
    told = tmp_path / f"cpuinfo {flags}"
    if flags is not None:
        told.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    assert on_onnxruntime.multiplies_bytes_exactly(told) == exact
    monkeypatch.setattr(on_onnxruntime.platform, "machine", lambda: "aarch64")
    assert on_onnxruntime.multiplies_bytes_exactly(tmp_path / f"arm {flags}")


def test_threads_are_the_runtimes_choice_by_default(toy: Path) -> None:
    with open_model(toy) as model:
        assert model.describe()["threads"] == "all"


@pytest.mark.parametrize("providers", ["cpu", ["cpu"], ["CPUExecutionProvider"], ("CPU",)])
def test_providers_by_short_or_full_name(toy: Path, providers: Any) -> None:
    with open_model(toy, providers=providers) as model:
        assert model.describe()["providers"] == "CPUExecutionProvider"


@pytest.mark.parametrize("provider", ["warp", "TensorrtExecutionProvider", "tensorrt"])
def test_a_provider_that_is_not_there(toy: Path, provider: str) -> None:
    full = "TensorrtExecutionProvider" if provider != "warp" else "warp"
    if full in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has {full}")
    with pytest.raises(UserError, match=rf"has no {full}; it has .*CPUExecutionProvider"):
        open_model(toy, providers=[provider, "cpu"])


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 160)])
def test_a_dynamic_file_takes_any_size_of_multiples_of_32(tmp_path: Path, size: tuple[int, int]) -> None:
    path = toy_onnx(tmp_path / "x.onnx", toy_contract(dynamic=("height", "width")))
    frame = picture(75, 110)
    with open_model(path, size=size) as model:
        assert (model.contract.height, model.contract.width) == size
        result = model.segment(frame)
        assert result.labels.shape == (75, 110)
        assert model.infer(np.zeros((1, 3, *size), np.float32)).shape == (1, 1, size[0] // 4, size[1] // 4)
    with open_model(path) as model:
        assert (model.contract.height, model.contract.width) == (64, 96)


@pytest.mark.parametrize("size", [(33, 64), (64, 100), (0, 32), (16, 32), (-32, 32)])
def test_other_sizes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = toy_onnx(tmp_path / "x.onnx", toy_contract(dynamic=("height", "width")))
    with pytest.raises(UserError, match="multiples of 32"):
        open_model(path, size=size)


def test_a_fixed_file_says_how_to_get_another_size(toy: Path) -> None:
    with pytest.raises(UserError, match=r"fixed input of 64x96; export it with --dynamic size"):
        open_model(toy, size=(128, 128))


# -- files that are refused ----------------------------------------------------------------------


def refused(path: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        open_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_cut_short(toy: Path, share: float) -> None:
    data = toy.read_bytes()
    toy.write_bytes(data[: int(len(data) * share)])
    refused(toy, "damaged or no ONNX model|not one of edge-deeplab's")


def test_empty(toy: Path) -> None:
    toy.write_bytes(b"")
    refused(toy, "empty")


@pytest.mark.parametrize("content", [b"hello\n", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)])
def test_something_else_called_onnx(toy: Path, content: bytes) -> None:
    toy.write_bytes(content)
    refused(toy, "damaged or no ONNX model")


def test_somebody_elses_model(tmp_path: Path) -> None:
    refused(
        toy_onnx(tmp_path / "theirs.onnx", metadata={"author": "somebody"}),
        "not one of edge-deeplab's: it carries no input contract, and how to feed it is never guessed",
    )


def test_a_newer_contract(tmp_path: Path) -> None:
    record = json.loads(toy_contract().to_json())
    record["format"] = FORMAT + 1
    path = toy_onnx(tmp_path / "x.onnx", metadata={METADATA_KEY: json.dumps(record)})
    with pytest.raises(ContractError, match=rf"format {FORMAT + 1}, this version reads {FORMAT}; cure: pip"):
        open_model(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 1, "name": "x"}'])
def test_a_damaged_contract(tmp_path: Path, text: str) -> None:
    refused(toy_onnx(tmp_path / "x.onnx", metadata={METADATA_KEY: text}), "damaged input contract")


def tampered(**changes: Any) -> InputContract:
    return toy_contract().replace(**changes)


@pytest.mark.parametrize(
    ("claim", "what"),
    [
        pytest.param(tampered(height=128), "input", id="other height"),
        pytest.param(tampered(height=96, width=64), "input", id="turned"),
        pytest.param(tampered(layout="NHWC"), "input", id="other layout"),
        pytest.param(tampered(dtype="uint8"), "input", id="other dtype"),
        pytest.param(tampered(classes=RED_GREEN_BLUE), "output", id="more classes"),
        pytest.param(tampered(head_stride=8), "output", id="other stride"),
        pytest.param(tampered(head="logits-full", head_stride=1), "output", id="full size"),
        pytest.param(tampered(head="classmap", head_stride=1), "output", id="class map"),
    ],
)
def test_a_contract_that_does_not_fit_the_graph(tmp_path: Path, claim: InputContract, what: str) -> None:
    path = toy_onnx(tmp_path / "x.onnx", toy_contract(), metadata={METADATA_KEY: claim.to_json()})
    refused(path, rf"its {what} is tensor\(float\) .*, its contract says")


def test_a_class_map_that_is_claimed_to_be_logits(tmp_path: Path) -> None:
    claim = toy_contract(head="logits-full", head_stride=1)
    path = toy_onnx(tmp_path / "x.onnx", claim, head="classmap")
    refused(path, r"its output is tensor\(uint8\)")
