"""Other people's models: how each kind of output is read, and that the known ones answer rightly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.bench.peers import KNOWN, Peer, class_ahead, plane_of, reader, two_logits
from edge_deeplab.bench.record import Contender, PeerInput
from edge_deeplab.bench.subject import open_subject
from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation import evaluate
from tests.runtimes.artefacts import picture

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(
    not (SHARED / "peers").is_dir(), reason="no ../shared with peers and data beside the checkout"
)


# -- reading -----------------------------------------------------------------------------------


def test_a_class_is_ahead_where_argmax_says_so(rng: np.random.Generator) -> None:
    raw = rng.standard_normal((9, 7, 21)).astype(np.float32)
    raw[..., 15] += 1
    expected = raw.argmax(-1) == 15
    assert expected.any()
    assert np.array_equal(class_ahead(raw, 15) > 0, expected)


def test_both_layouts_are_read_alike(rng: np.random.Generator) -> None:
    raw = rng.standard_normal((1, 9, 7, 21)).astype(np.float32)
    for output in ("class:15", "two-logits"):
        channels = raw if output == "class:15" else raw[..., :2]
        last, cut = reader(output, True, (9, 7))
        first, same = reader(output, False, (9, 7))
        assert np.array_equal(last(channels), first(channels.transpose(0, 3, 1, 2)))
        assert cut == same == 0


def test_two_logits_are_the_logit_of_their_softmax(rng: np.random.Generator) -> None:
    planes = rng.standard_normal((2, 9, 7)).astype(np.float32)
    share = np.exp(planes[1]) / np.exp(planes).sum(0)
    assert np.array_equal(two_logits(planes) > 0, share > 0.5)


@pytest.mark.parametrize("shape", [(1, 12, 8, 1), (1, 1, 12, 8), (1, 96), (1, 6, 4, 1), (1, 24)])
def test_one_score_a_pixel_in_any_shape(shape: tuple[int, ...]) -> None:
    plane = plane_of(np.zeros(shape, np.float32), 12, 8)
    assert plane.shape in ((12, 8), (6, 4))
    assert plane.size == np.prod(shape)


def test_what_is_no_plane_is_refused() -> None:
    with pytest.raises(UserError, match="is not one score a pixel"):
        plane_of(np.zeros((1, 12, 8, 3), np.float32), 12, 8)


# -- feeding -----------------------------------------------------------------------------------


def tiny_onnx(path: Path, weights_as_inputs: bool = False) -> Path:
    """(1, 3, 8, 12) -> two planes: minus and plus the third channel."""
    onnx = pytest.importorskip("onnx")
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[:, 2, 0, 0] = (-1, 1)
    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    inputs = [info("x", kind, [1, 3, 8, 12])] + [info("w", kind, [2, 3, 1, 1])] * weights_as_inputs
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        inputs,
        [info("y", kind, [1, 2, 8, 12])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("channels", "plane"), [("RGB", 0), ("BGR", 2)])
@pytest.mark.parametrize("std", [(64.0,), (32.0, 64.0, 128.0)])
def test_the_tensor_is_what_the_options_say(
    tmp_path: Path, channels: Any, plane: int, std: tuple[float, ...]
) -> None:
    pytest.importorskip("onnxruntime")
    peer = Peer(
        str(tiny_onnx(tmp_path / "p.onnx")), PeerInput((100.0, 120.0, 140.0), std, channels, "two-logits"), 1
    )
    frame = picture(30, 40)
    peer.fill(frame)
    small: Any = cv2.resize(frame, (12, 8), interpolation=cv2.INTER_LINEAR)
    expected = ((small[..., plane] - 140.0) / std[-1]).astype(np.float32)
    assert np.allclose(peer.engine.source()[2], expected, atol=1e-5)
    labels, times = peer.segment(frame)
    assert (labels.shape, labels.dtype) == ((30, 40), np.uint8)
    scores = cv2.resize(2 * expected, (40, 30), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(labels, scores > 0)
    assert times.total > 0


def test_weights_listed_as_inputs_are_taken_out(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = PeerInput((128.0,), (128.0,), output="two-logits")
    plain = Peer(str(tiny_onnx(tmp_path / "a.onnx")), options, 1)
    odd = Peer(str(tiny_onnx(tmp_path / "b.onnx", weights_as_inputs=True)), options, 1)
    assert "weights" not in plain.engine.used
    assert "folded" in odd.engine.used["weights"]
    frame = picture(30, 40)
    assert np.array_equal(plain.segment(frame)[0], odd.segment(frame)[0])


def test_bytes_are_quantised_in_one_look_up() -> None:
    """An integer input: q = round(((byte - mean) / std) / scale) + zero."""
    peer = Peer.__new__(Peer)
    scale, zero = 1 / 128, -3

    class Engine:
        quantized = (scale, zero)

        def source(self) -> Any:
            return np.zeros((8, 12, 3), np.int8)

    peer.engine = Engine()  # type: ignore[assignment]
    mean, std = np.array([127.5]), np.array([127.5])
    peer._factor, peer._offset = (1 / std).astype(np.float32), (mean / std).astype(np.float32)
    table = peer._bytes_table().view(np.int8)[:, 0]
    expected = np.clip(np.rint((np.arange(256) / 127.5 - 1) / scale) + zero, -128, 127)
    assert table.shape == (256, 3)
    assert np.abs(table - expected[:, None]).max() <= 1  # halves may round either way in float32
    assert (table[0], table[255]) == (pytest.approx([-128] * 3), pytest.approx([125] * 3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (PeerInput((1.0, 2.0), (1.0,)), "mean needs one value or three, not 2"),
        (PeerInput((1.0,), (0.0,)), "std must not be 0"),
        (PeerInput(output="mask"), "output='mask' is none of"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: PeerInput, words: str) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match=words):
        Peer(str(tiny_onnx(tmp_path / "p.onnx")), options, 1)


@pytest.mark.parametrize(("name", "library"), [("x.onnx", "onnxruntime"), ("x.tflite", "ai_edge_litert")])
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, library: str) -> None:
    pytest.importorskip(library)
    (tmp_path / name).write_bytes(b"nothing at all")
    with pytest.raises(UserError, match="damaged or no") as refused:
        Peer(str(tmp_path / name), PeerInput(), 1)
    assert "\n" not in str(refused.value)


def test_a_peer_takes_no_options_of_ours(tmp_path: Path) -> None:
    contender = Contender("p", str(tmp_path / "p.onnx"), 1, {"size": [8, 12]}, PeerInput())
    with pytest.raises(UserError, match="a peer takes no size"):
        open_subject(contender)


# -- the known ones --------------------------------------------------------------------------------

# IoU of the first eight pictures of eg/val; a wrong scale, channel order or output plane shows.
FIRST_EIGHT = {
    "slim_reshape_v2_512.tflite": 0.971,
    "sinet_320.onnx": 0.958,
    "mnv3_seg_float.tflite": 0.956,
    "mediapipe_selfie_segmentation_256.tflite": 0.9525,
    "deeplab_mnv2_dm05_aiseg_513.tflite": 0.930,
    "google_deeplabv3_257_mv_gpu.tflite": 0.865,
}


def test_every_peer_has_an_expectation() -> None:
    assert list(KNOWN) == list(FIRST_EIGHT)


@needs_shared
@pytest.mark.parametrize("file", FIRST_EIGHT)
def test_a_peer_is_fed_and_read_rightly(file: str) -> None:
    for library in ("ai_edge_litert",) if file.endswith(".tflite") else ("onnx", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    split = open_split(f"folder:{SHARED / 'data' / 'eg'}", "val")
    split = dataclasses.replace(split, pairs=split.pairs[:8])
    peer = Peer(str(SHARED / "peers" / file), KNOWN[file][1], 1)
    scores = evaluate(lambda frame: peer.segment(frame)[0], split, boundary=False)
    assert scores.foreground_iou == pytest.approx(FIRST_EIGHT[file], abs=0.002)
