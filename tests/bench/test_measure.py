"""The parts that open models: the shared loop, accuracy, providers, PyTorch's modes, frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_deeplab.bench.accuracy import with_accuracy
from edge_deeplab.bench.frames import decode, frames_from
from edge_deeplab.bench.loop import measure_frames
from edge_deeplab.bench.providers import fallback_text, inspect_session, node_shares
from edge_deeplab.bench.record import Contender, PeerInput
from edge_deeplab.bench.subject import import_library, open_subject
from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation import evaluate
from edge_deeplab.imaging import write_image
from edge_deeplab.runtimes import open_model
from tests.bench.conftest import make_entry, make_result
from tests.bench.test_peers import tiny_onnx
from tests.conftest import MakePeople
from tests.runtimes.artefacts import picture, toy_contract, toy_onnx

# -- the loop ------------------------------------------------------------------------------------


def test_the_loop_times_every_frame_and_its_stages(toy: Path) -> None:
    frames = [picture(40, 60, seed=k) for k in range(7)]
    with open_model(toy, threads=1) as model:
        found = measure_frames(model, frames, warmup=2)
        with pytest.raises(ValueError, match="no frames"):
            measure_frames(model, [])
    assert set(found) == {"preprocess", "inference", "postprocess", "pipeline"}
    assert all(s.count == 7 for s in found.values())
    inside = sum(found[k].mean or 0 for k in ("preprocess", "inference", "postprocess"))
    assert 0 < inside <= (found["pipeline"].mean or 0)


def test_the_stages_explain_nearly_all_of_the_pipeline(toy: Path) -> None:
    """What a runtime's own ``Times`` say, as demos show them, is the pipeline that the benchmark reports."""
    with open_model(toy, threads=1) as model:
        found = measure_frames(model, [picture(480, 640, seed=k) for k in range(30)])
    inside = sum(found[k].p50 or 0 for k in ("preprocess", "inference", "postprocess"))
    assert inside == pytest.approx(found["pipeline"].p50, rel=0.1)


# -- accuracy ------------------------------------------------------------------------------------


def test_accuracy_is_the_shared_evaluation(toy: Path, tmp_path: Path, make_people: MakePeople) -> None:
    split = open_split(f"folder:{make_people(tmp_path / 'people', train=1, val=3)}", "val")
    contenders = [
        Contender("one", str(toy), 1),
        Contender("two", str(toy), 2),
        Contender("engine", str(tmp_path / "gone.engine")),
        Contender("failed", str(toy)),
    ]
    turns = [[1.0] * 5] * 4
    entries = [make_entry(c.name, turns) for c in contenders]
    entries[3] = replace(entries[3], error="it broke")
    asked: list[str] = []

    def bar(items: range, *, text: str) -> range:
        asked.append(text)
        return items

    found = with_accuracy(make_result(*entries), contenders, [split], bar).entries
    with open_model(toy) as model:
        expected = evaluate(lambda frame: model.segment(frame).labels, split)
    assert found[0].accuracy[0].foreground_iou == expected.foreground_iou
    assert found[0].accuracy[0].boundary_iou == expected.boundary_iou[1]
    assert found[1].accuracy == found[0].accuracy
    assert asked == [f"one on {split.name}"]  # threads change no mask
    assert "accuracy not measured" in found[2].marks[-1].text
    assert str(tmp_path) not in found[2].marks[-1].text
    assert found[3].accuracy == ()


def test_peers_are_scored_too(tmp_path: Path, make_people: MakePeople) -> None:
    pytest.importorskip("onnxruntime")
    split = open_split(f"folder:{make_people(tmp_path / 'people', train=1, val=2)}", "val")
    peer = Contender(
        "p",
        str(tiny_onnx(tmp_path / "p.onnx")),
        1,
        peer=PeerInput((128.0,), (128.0,), "RGB", "two-logits"),
    )
    result = make_result(make_entry("p", [[1.0] * 5] * 4))
    (entry,) = with_accuracy(result, [peer], [split], lambda items, *, text: items).entries
    assert 0 < (entry.accuracy[0].foreground_iou or 0) < 1


def test_other_classes_lose_no_timing(tmp_path: Path, make_people: MakePeople, toy: Path) -> None:
    split = open_split(f"folder:{make_people(tmp_path / 'people', train=1, val=1)}", "val")
    split = replace(split, classes=(*split.classes, split.classes[0]))
    result = make_result(make_entry("toy", [[1.0] * 5] * 4))
    (entry,) = with_accuracy(
        result, [Contender("toy", str(toy))], [split], lambda items, *, text: items
    ).entries
    assert entry.stages == result.entries[0].stages
    assert "has 2 classes" in entry.marks[-1].text


def test_a_library_that_breaks_loses_no_timing(
    tmp_path: Path, make_people: MakePeople, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: object, frame: object) -> None:
        raise RuntimeError("CUDA error:\nout of memory")

    split = open_split(f"folder:{make_people(tmp_path / 'people', train=1, val=1)}", "val")
    monkeypatch.setattr("edge_deeplab.bench.subject.Ours.segment", breaks)
    result = make_result(make_entry("toy", [[1.0] * 5] * 4))
    (entry,) = with_accuracy(
        result, [Contender("toy", str(toy))], [split], lambda items, *, text: items
    ).entries
    assert entry.stages == result.entries[0].stages
    assert entry.marks[-1].text == "accuracy not measured: RuntimeError: CUDA error: out of memory"


# -- what was used ---------------------------------------------------------------------------------


def test_nodes_of_each_provider(toy: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    shares = node_shares(str(toy), ["CPUExecutionProvider"])
    if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        assert shares == {}
        return
    assert set(shares) == {"CPUExecutionProvider"}
    assert shares["CPUExecutionProvider"] >= 1


@pytest.mark.parametrize(
    ("asked", "present", "shares", "words"),
    [
        (["cpu"], ["CPUExecutionProvider"], {"CPUExecutionProvider": 90}, ""),
        (["cuda", "cpu"], ["CPUExecutionProvider"], {"CPUExecutionProvider": 90}, "did not start"),
        (
            ["cuda", "cpu"],
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            {"CUDAExecutionProvider": 80, "CPUExecutionProvider": 10},
            "CUDAExecutionProvider got 80 of 90 nodes only",
        ),
        (
            ["CUDAExecutionProvider"],
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            {"CUDAExecutionProvider": 90},
            "",
        ),
        (["tensorrt", "cpu"], ["TensorrtExecutionProvider", "CPUExecutionProvider"], {}, ""),
    ],
)
def test_a_fallback_is_told(asked: list[str], present: list[str], shares: dict[str, int], words: str) -> None:
    found = fallback_text(asked, present, shares)
    assert (words in found) if words else found == ""


def test_a_real_session_is_inspected(toy: Path) -> None:
    contender = Contender("toy", str(toy), 1, {"providers": ["cpu"]})
    with open_model(toy) as model:
        assert "fallback" not in inspect_session(model, contender)
        lost = replace(contender, options={"providers": ["cuda", "cpu"]})
        assert "CUDAExecutionProvider was asked for" in inspect_session(model, lost)["fallback"]


def test_options_reach_the_runtime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    contract = toy_contract(dynamic=("height", "width"))
    path = toy_onnx(tmp_path / "dynamic.onnx", contract)
    facts = open_subject(Contender("d", str(path), 2, {"size": [96, 128], "providers": ["cpu"]})).facts()
    assert facts.input == (96, 128)
    assert facts.used["threads"] == "2"
    with pytest.raises(UserError, match="fixed input"):
        open_subject(Contender("f", str(toy_onnx(tmp_path / "fixed.onnx")), 1, {"size": [96, 128]}))
    with pytest.raises(UserError, match=r"no runtime opens .*\.pb"):
        import_library(Contender("x", str(tmp_path / "x.pb")))


# -- PyTorch ---------------------------------------------------------------------------------------


def test_eager_mode_answers_as_the_runtime_does(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edge_deeplab.bench.torch_modes import open_mode
    from tests.runtimes.artefacts import nano_checkpoint

    path = str(nano_checkpoint(tmp_path))
    frame = picture(50, 70)
    with open_mode(path, mode="eager", threads=1) as mode, open_model(path, threads=1) as plain:
        assert np.array_equal(mode.segment(frame).labels, plain.segment(frame).labels)
        assert mode.describe()["mode"] == "eager"
        assert getattr(mode, "accelerator_ms", 1) is None
    subject = open_subject(Contender("m", path, 1, {"mode": "eager", "size": [96, 128]}))
    assert subject.facts().input == (96, 128)
    assert subject.segment(frame)[0].shape == (50, 70)
    for options, words in (
        ({"mode": "cuda-graph"}, "needs a GPU: give --torch-device cuda"),
        ({"mode": "fast"}, "no mode 'fast'; PyTorch runs eager, compiled, cuda-graph"),
    ):
        with pytest.raises(UserError, match=words):
            open_mode(path, threads=1, **options)


def test_modes_are_for_checkpoints(toy: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(UserError, match="does not run in PyTorch"):
        open_subject(Contender("toy", str(toy), 1, {"mode": "eager"}))


# -- frames ----------------------------------------------------------------------------------------


def test_a_picture_becomes_four_frames(tmp_path: Path) -> None:
    write_image(tmp_path / "p.png", picture(300, 200))
    frames = decode(frames_from(tmp_path / "p.png", 48, 64))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    mirrored = cv2.flip(frames[0], 1)
    assert np.abs(mirrored.astype(int) - frames[1]).mean() < 3
    assert len({frame.tobytes() for frame in frames}) == 4


def test_a_folder_of_pictures_and_of_videos(tmp_path: Path) -> None:
    pictures, videos = tmp_path / "pictures", tmp_path / "videos"
    videos.mkdir()
    for k in range(10):
        write_image(pictures / f"{k}.png", picture(50, 70, seed=k))
    assert len(frames_from(pictures, 48, 64)) == 8
    path = videos / "clip.avi"
    clip = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))  # type: ignore[attr-defined]
    if not clip.isOpened():
        pytest.skip("this OpenCV writes no MJPG")
    for k in range(20):
        clip.write(picture(48, 64, seed=k))
    clip.release()
    assert len(frames_from(path, 48, 64)) == 8
    (first,) = decode(frames_from(videos, 48, 64))
    assert np.abs(first.astype(int) - picture(48, 64, seed=0)).mean() < 20


def test_what_holds_no_frames(tmp_path: Path) -> None:
    (tmp_path / "x.mkv").write_bytes(b"nothing")
    for source, words in (
        (tmp_path / "gone.mkv", "no such file"),
        (tmp_path / "x.mkv", "neither a picture nor a video"),
        (tmp_path / "gone.png", "cannot read"),
    ):
        with pytest.raises(UserError, match=words):
            frames_from(source, 48, 64)


def test_a_job_with_odd_frames(frames: tuple[str, ...], tmp_path: Path) -> None:
    write_image(tmp_path / "p.png", picture(50, 70))
    for odd, words in (
        ((*frames, "bm90aGluZw=="), "frame 3 of the job is no picture"),
        ((*frames, *frames_from(tmp_path / "p.png", 48, 64)), "all of one size"),
        ((), "all of one size"),
    ):
        with pytest.raises(UserError, match=words):
            decode(odd)
