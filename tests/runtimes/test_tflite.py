"""TFLite: every kind of head, float and integer, delegates, and files it must refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.errors import MissingExtra, UserError
from edge_deeplab.runtimes import on_tflite, open_model, tflite_file
from edge_deeplab.runtimes.on_tflite import TfliteRuntime
from edge_deeplab.runtimes.tflite_delegation import Delegation, delegation_of
from edge_deeplab.spec import FORMAT, METADATA_KEY, ContractError, Head, InputContract, InputDType
from tests.runtimes.artefacts import RED_GREEN_BLUE, picture, toy_contract
from tests.runtimes.tflite_toys import OUT_SCALE, OUT_ZERO, toy_tflite

litert = pytest.importorskip("ai_edge_litert.interpreter")

HEADS: list[Head] = ["logits", "logits-full", "probability", "classmap"]
DTYPES: list[InputDType] = ["float32", "uint8", "int8"]
LIBRARY = Path(__file__).with_name("null_delegate.c")


def contract_of(**changes: Any) -> InputContract:
    return toy_contract(layout="NHWC", **changes)


@pytest.fixture
def toy_file(tmp_path: Path) -> Path:
    return toy_tflite(tmp_path / "toy.tflite")


def opened(path: Path, **options: Any) -> TfliteRuntime:
    model = open_model(path, **options)
    assert isinstance(model, TfliteRuntime)
    return model


# -- heads and types -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_bright_is_a_person(tmp_path: Path, head: Head) -> None:
    stride = 4 if head in ("logits", "probability") else 1
    path = toy_tflite(tmp_path / "x.tflite", contract_of(head=head, head_stride=stride))
    frame = np.zeros((128, 192, 3), np.uint8)
    frame[:, 96:] = 255
    with open_model(path) as model:
        result = model.segment(frame)
    np.testing.assert_array_equal(result.labels, (np.arange(192) >= 96) * np.ones((128, 1), np.uint8))
    assert (result.scores is None) == (head == "classmap")
    if result.probability is not None:
        low, high = 1 / (1 + np.exp([4, -4 * 127 / 128]))
        np.testing.assert_allclose(result.probability[0, [0, -1]], [low, high], atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_the_highest_of_four_classes(tmp_path: Path, head: Head) -> None:
    stride = 4 if head in ("logits", "probability") else 1
    contract = contract_of(classes=RED_GREEN_BLUE, head=head, head_stride=stride)
    frame = np.zeros((64, 96, 3), np.uint8)
    kind = (np.arange(96) // 8 % 4).astype(np.uint8)
    for k in (1, 2, 3):
        frame[:, kind == k, 3 - k] = 255
    with open_model(toy_tflite(tmp_path / "x.tflite", contract)) as model:
        labels = model.segment(frame).labels
    inside = np.arange(96) % 8 // 2 % 3 != 0 if stride == 4 else np.ones(96, bool)  # away from the borders
    np.testing.assert_array_equal(labels[:, inside], np.tile(kind[inside], (64, 1)))


@pytest.mark.parametrize("head", ["logits", "logits-full"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_integers_stand_for_real_numbers(tmp_path: Path, dtype: InputDType, head: Head) -> None:
    """Pixels go in untouched, and logits come out as their scale and zero point say."""
    contract = contract_of(dtype=dtype, head=head, head_stride=4 if head == "logits" else 1)
    frame = picture(64, 96)
    with open_model(toy_tflite(tmp_path / "q.tflite", contract)) as quantised:
        result = quantised.segment(frame)
    with open_model(toy_tflite(tmp_path / "f.tflite", contract.replace(dtype="float32"))) as real:
        wanted = real.segment(frame)
    assert result.scores is not None
    assert wanted.scores is not None
    np.testing.assert_allclose(result.scores, wanted.scores, atol=0.6 * OUT_SCALE + 0.02)
    sure = np.abs(wanted.scores) > 0.1
    np.testing.assert_array_equal(result.labels[sure], wanted.labels[sure])
    assert 0.05 < result.labels.mean() < 0.95


@pytest.mark.parametrize("dtype", DTYPES)
def test_infer_takes_what_the_contract_says_and_gives_real_numbers(tmp_path: Path, dtype: InputDType) -> None:
    path = toy_tflite(tmp_path / "x.tflite", contract_of(dtype=dtype))
    gray = {"float32": 0.5, "uint8": 192, "int8": 64}[dtype]
    tensor = np.full((1, 64, 96, 3), gray, dtype)
    with open_model(path) as model:
        output = model.infer(tensor)
        assert (output.dtype, output.shape) == (np.float32, (1, 16, 24, 1))
        np.testing.assert_allclose(output, 2.0, atol=OUT_SCALE / 2)
        two = model.infer(np.concatenate([tensor, tensor * 0]))
        assert two.shape == (2, 16, 24, 1)
        np.testing.assert_array_equal(two[0], output[0])


def test_the_interpreter_alone_gives_the_same(tmp_path: Path) -> None:
    """Nothing but LiteRT and what the documentation says of a file: bytes in, (q - zero) * scale out."""
    path = toy_tflite(tmp_path / "x.tflite", contract_of(dtype="uint8"))
    frame = picture(64, 96)
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    given, answered = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert given["quantization"] == (1 / 128, 128)
    assert answered["quantization"] == (OUT_SCALE, OUT_ZERO + 128)
    interpreter.set_tensor(given["index"], frame[None, ..., ::-1])
    interpreter.invoke()
    scale, zero = answered["quantization"]
    logits = (interpreter.get_tensor(answered["index"])[0, ..., 0].astype(np.float32) - zero) * scale
    labels = cv2.resize(logits, (96, 64), interpolation=cv2.INTER_LINEAR) >= 0
    with open_model(path) as model:
        np.testing.assert_array_equal(model.segment(frame).labels, labels)


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_threads(toy_file: Path, threads: int) -> None:
    with open_model(toy_file, threads=threads) as model:
        assert model.describe()["threads"] == str(threads)


def test_it_says_which_engine_and_what_the_delegate_runs(toy_file: Path) -> None:
    with opened(toy_file, threads=1) as model:
        described = model.describe()
        assert described["engine"].startswith("ai-edge-litert ")
        assert described["delegate"] == "xnnpack, 2 of 2 nodes"
        assert model.delegation.share == 1
        assert set(model.versions()) == {"ai-edge-litert"}


def test_nodes_that_xnnpack_leaves_are_named(tmp_path: Path) -> None:
    path = toy_tflite(
        tmp_path / "x.tflite", contract_of(classes=RED_GREEN_BLUE, head="classmap", head_stride=1)
    )
    with opened(path) as model:
        assert str(model.delegation) == "1 of 3 nodes; not 1 ARG_MAX, 1 CAST"


def test_without_a_delegate(toy_file: Path) -> None:
    frame = picture(64, 96)
    with opened(toy_file, delegate="none") as plain, opened(toy_file) as fast:
        assert plain.describe()["delegate"] == "none"
        assert plain.delegation == Delegation(2, 0, 0, {"AVERAGE_POOL_2D": 1, "CONV_2D": 1})
        np.testing.assert_array_equal(plain.segment(frame).labels, fast.segment(frame).labels)


@pytest.mark.parametrize("name", ["gpu", "nnapi", "edgetpu"])
def test_a_delegate_whose_library_is_missing(toy_file: Path, name: str) -> None:
    library, origin = on_tflite.LIBRARIES[name]
    with pytest.raises(UserError, match=f"the delegate {library} does not load") as caught:
        open_model(toy_file, delegate=name)
    assert f"it comes from {origin}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_delegate_that_does_not_exist(toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no delegate 'warp': neither one of xnnpack, none, gpu.* nor a file"
    ):
        open_model(toy_file, delegate="warp")
    library = tmp_path / "text.so"
    library.write_text("no library")
    with pytest.raises(UserError, match=r"the delegate .*text\.so does not load"):
        open_model(toy_file, delegate=str(library))


def test_an_external_delegate_is_loaded(toy_file: Path, tmp_path: Path) -> None:
    """A real shared library with TFLite's plugin interface, which is asked and takes no node."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build a delegate with")
    library = tmp_path / "libnull.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(LIBRARY)], check=True)
    log = tmp_path / "log"
    frame = picture(64, 96)
    with opened(toy_file, delegate=str(library), delegate_options={"log": str(log)}) as model:
        assert log.read_text() == "created with 1 option\nprepared\n"
        assert model.describe()["delegate"].startswith(f"{library}, 0 of 2 nodes; not 1 AVERAGE")
        with open_model(toy_file) as wanted:
            np.testing.assert_array_equal(model.segment(frame).labels, wanted.segment(frame).labels)


# -- the other interpreter -----------------------------------------------------------------------


def without_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)


def test_no_interpreter_at_all(toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_litert(monkeypatch)
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(MissingExtra, match=r"ai-edge-litert is not installed; cure: .*\[tflite\]"):
        open_model(toy_file)


def test_tflite_runtime_takes_over_and_int8_on_x86_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same interpreter under its old name: tflite-runtime itself needs numpy 1 and Python 3.11."""
    old = types.ModuleType("tflite_runtime.interpreter")
    for name in ("Interpreter", "OpResolverType", "load_delegate"):
        setattr(old, name, getattr(litert, name))
    without_litert(monkeypatch)
    monkeypatch.setitem(sys.modules, "tflite_runtime", types.ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", old)
    monkeypatch.setattr(on_tflite.importlib.metadata, "version", {"tflite-runtime": "2.14.0"}.__getitem__)  # type: ignore[attr-defined]
    contract = contract_of(dtype="uint8", precision="int8")
    path = toy_tflite(tmp_path / "x.tflite", contract)
    monkeypatch.setattr(on_tflite.platform, "machine", lambda: "x86_64")  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="tflite-runtime has no fast INT8 on x86"), open_model(path) as model:
        assert model.describe()["engine"] == "tflite-runtime 2.14.0"
    monkeypatch.setattr(on_tflite.platform, "machine", lambda: "aarch64")  # type: ignore[attr-defined]
    with open_model(path) as model:  # a warning would be an error here
        assert model.segment(picture(20, 30)).labels.shape == (20, 30)


# -- delegation ----------------------------------------------------------------------------------


def node(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
    return {"op_name": name, "inputs": inputs, "outputs": outputs}


def test_partitions_are_walked_between_their_ends() -> None:
    """0 -A-> 1 -B-> 2 -X-> 3 -C-> 4 -Y-> 5, A, B and C delegated in two partitions."""
    chain = [node(name, [k], [k + 1]) for k, name in enumerate("ABXCY")]
    parts = [node("DELEGATE", [0, 90], [2]), node("DELEGATE", [3, 91], [4])]
    found = delegation_of([*chain, *parts])
    assert found == Delegation(nodes=5, delegated=3, partitions=2, left={"X": 1, "Y": 1})
    assert found.share == pytest.approx(0.6)
    assert str(found) == "3 of 5 nodes in 2 partitions; not 1 X, 1 Y"


def test_a_branch_inside_a_partition_counts_once() -> None:
    nodes = [node("A", [0], [1]), node("B", [1], [2]), node("C", [1], [3]), node("D", [2, 3], [4])]
    assert delegation_of([*nodes, node("DELEGATE", [0], [4])]).delegated == 4
    assert delegation_of([]).share == 0


# -- files that are refused ----------------------------------------------------------------------


def refused(path: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        open_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_short(toy_file: Path, share: float) -> None:
    data = toy_file.read_bytes()
    toy_file.write_bytes(data[: int(len(data) * share)])
    refused(toy_file, "damaged")


def test_what_is_cut_short_is_said_in_words(toy_file: Path) -> None:
    """Not in those of ``struct`` ("unpack_from requires a buffer of at least …")."""
    data = toy_file.read_bytes()
    with pytest.raises(UserError, match=r"^it is damaged or no TFLite model: cut short, or changed; copy or"):
        tflite_file.metadata(data[: len(data) // 10], source="it")


@pytest.mark.parametrize("content", [b"hello\n", b"\0\0\0\0TFL3", b"\x10\0\0\0TFL3" + bytes(100)])
def test_something_else_called_tflite(toy_file: Path, content: bytes) -> None:
    toy_file.write_bytes(content)
    refused(toy_file, "damaged or no TFLite model|carries no input contract")


def test_random_damage_never_crashes(toy_file: Path) -> None:
    """Whatever byte is changed: an answer or one clear line. LiteRT checks the tables, we the rest."""
    whole = toy_file.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole), 60):
        data = bytearray(whole)
        data[place] ^= int(random.integers(1, 256))
        try:
            tflite_file.metadata(bytes(data), source="it")
        except UserError as error:
            assert "damaged" in str(error)


def test_somebody_elses_model(tmp_path: Path) -> None:
    refused(
        toy_tflite(tmp_path / "theirs.tflite", metadata={"author": "somebody"}),
        "not one of edge-deeplab's: it carries no input contract, and how to feed it is never guessed",
    )


def test_a_newer_contract(tmp_path: Path) -> None:
    record = json.loads(contract_of().to_json())
    record["format"] = FORMAT + 1
    path = toy_tflite(tmp_path / "x.tflite", metadata={METADATA_KEY: json.dumps(record)})
    with pytest.raises(ContractError, match=rf"format {FORMAT + 1}, this version reads {FORMAT}; cure: pip"):
        open_model(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1}', "\udcff"])
def test_a_damaged_contract(tmp_path: Path, text: str) -> None:
    path = toy_tflite(tmp_path / "x.tflite", metadata={METADATA_KEY: text.encode(errors="replace").decode()})
    refused(path, "damaged input contract")


@pytest.mark.parametrize(
    ("claim", "what"),
    [
        pytest.param({"height": 128}, "input", id="other height"),
        pytest.param({"height": 96, "width": 64}, "input", id="turned"),
        pytest.param({"layout": "NCHW"}, "input", id="other layout"),
        pytest.param({"dtype": "uint8"}, "input", id="other dtype"),
        pytest.param({"classes": RED_GREEN_BLUE}, "output", id="more classes"),
        pytest.param({"head_stride": 8}, "output", id="other stride"),
        pytest.param({"head": "logits-full", "head_stride": 1}, "output", id="full size"),
        pytest.param({"head": "classmap", "head_stride": 1}, "output", id="class map"),
    ],
)
def test_a_contract_that_does_not_fit_the_graph(tmp_path: Path, claim: dict[str, Any], what: str) -> None:
    text = contract_of().replace(**claim).to_json()
    path = toy_tflite(tmp_path / "x.tflite", metadata={METADATA_KEY: text})
    refused(path, rf"its {what} is float32 \[.*\], its contract says")


def test_a_class_map_that_is_claimed_to_be_logits(tmp_path: Path) -> None:
    path = toy_tflite(tmp_path / "x.tflite", contract_of(head="logits-full", head_stride=1), head="classmap")
    refused(path, r"its output is uint8")


@pytest.mark.parametrize(
    "change", [{"mean": (127.0,) * 3}, {"std": (64.0,) * 3}, {"mean": (128.0, 128.0, 100.0)}]
)
def test_a_scale_other_than_the_contracts(tmp_path: Path, change: dict[str, Any]) -> None:
    """The same bytes would mean other colours."""
    text = contract_of(dtype="uint8", **change).to_json()
    path = toy_tflite(tmp_path / "x.tflite", contract_of(dtype="uint8"), metadata={METADATA_KEY: text})
    refused(path, r"its input has scale 0\.0078125 and zero point 128, its contract says \(pixel - ")
