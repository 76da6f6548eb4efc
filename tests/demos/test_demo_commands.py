"""``edge-deeplab demo image|video|webcam`` as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_deeplab.cli import main
from edge_deeplab.demos.options import MODES
from edge_deeplab.imaging import write_image
from tests.cli.support import Ran, Run
from tests.demos.support import av, frame, frames_of, make_film
from tests.runtimes.artefacts import toy_onnx

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_onnx(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """In this process, as the tests of the other commands do."""

    def command(*arguments: object) -> Ran:
        capfd.readouterr()
        try:
            status = main(["demo", *(str(argument) for argument in arguments)])
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            status = stop.code
        written = capfd.readouterr()
        return Ran(status, written.out, written.err)

    return command


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_film(tmp_path / "film.mp4", 15, sound="aac")


# -- image -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_image(run: Run, toy: Path, tmp_path: Path, mode: str) -> None:
    write_image(tmp_path / "photo.png", frame(3))
    suffix = ".png" if mode in ("cutout", "mask") else ".jpg"
    done = run("image", tmp_path / "photo.png", "--output", tmp_path / "out", "--model", toy, "--mode", mode)
    assert (done.status, done.err) == (0, "")
    found = cv2.imread(str(tmp_path / "out" / f"photo-{mode}{suffix}"), cv2.IMREAD_UNCHANGED)
    assert found is not None
    assert found.shape == (120, 320 if mode == "side-by-side" else 160, 4 if mode == "cutout" else 3)


def test_one_image_into_a_file_with_a_background(run: Run, toy: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", frame(3))
    output = tmp_path / "x.png"
    done = run("image", tmp_path / "photo.png", "--output", output, "--model", toy, "--background", "white")
    assert done.status == 0
    found = cv2.imread(str(output))
    assert found is not None
    assert (found[:10] == 255).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.png", "--output", "y.jpg", "--mode", "cutout"], "keeps no transparency"),
        (["x.png", "--output", "x.png"], "would overwrite"),
        (["x.png", "z.png", "--output", "y.jpg"], "need a folder"),
        (["missing.png", "--output", "y.jpg"], "no such file"),
        (["x.png", "--output", "y.jpg", "--background", "nothing"], "no background"),
        (["x.png", "--output", "y.jpg", "--strength", "9"], "from 0.1 to 5"),
        (["x.png", "--output", "y.jpg", "--model", "nothing"], "no model"),
        (["x.png", "--output", "y.jpg", "--mode", "mask", "--background", "sky"], "is for --mode replace"),
        (["x.png", "--output", "y.jpg", "--background", "sky", "--strength", "2"], "is for --mode blur"),
    ],
)
def test_image_mistakes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "x.png", frame(3))
    write_image(tmp_path / "z.png", frame(3))
    if "z.png" in arguments:
        write_image(tmp_path / "y.jpg", frame(3))
    before = sorted(tmp_path.iterdir())
    done = run("image", *arguments)
    done.refused(words)
    assert sorted(tmp_path.iterdir()) == before


# -- video -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "every"), [(".mp4", 1), (".webm", 1), (".mkv", 3)])
def test_video(run: Run, toy: Path, film: Path, tmp_path: Path, suffix: str, every: int) -> None:
    output = tmp_path / f"out{suffix}"
    done = run("video", film, "--output", output, "--model", toy, "--background", "white", "--every", every)
    assert (done.status, done.err) == (0, "")
    assert "15 frames (replace)" in done.out
    assert "sound kept" in done.out
    found = frames_of(output)
    assert len(found) == 15
    assert found[7][:8].min() > 240  # the new background
    with av.open(str(output)) as container:
        assert len(container.streams.audio) == 1


def test_a_cut_out_film_is_transparent(run: Run, toy: Path, film: Path, tmp_path: Path) -> None:
    done = run("video", film, "--output", tmp_path / "x.webm", "--model", toy, "--mode", "cutout")
    assert done.status == 0
    with av.open(str(tmp_path / "x.webm")) as container:
        assert container.streams.video[0].metadata.get("alpha_mode") == "1"


@pytest.mark.parametrize(
    ("output", "words"),
    [("film.gif", "films are written as"), ("film.mp4", "would overwrite"), ("no.mp4", "no film")],
)
def test_video_mistakes(run: Run, toy: Path, film: Path, tmp_path: Path, output: str, words: str) -> None:
    source = film
    if output == "no.mp4":
        source = tmp_path / "text.mp4"
        source.write_text("no film")
    run("video", source, "--output", tmp_path / output, "--model", toy).refused(words)
    assert {p.name for p in tmp_path.iterdir()} <= {"film.mp4", "text.mp4"}


# -- webcam ----------------------------------------------------------------------------------------


def test_webcam_headless(run: Run, toy: Path, film: Path, tmp_path: Path) -> None:
    record, snapshot = tmp_path / "record.mp4", tmp_path / "snap.png"
    done = run(
        "webcam", film, "--headless", "--model", toy, "--record", record, "--snapshot", snapshot,
        "--mode", "side-by-side", "--mirror", "--threads", 1,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "capture to display p50" in done.out
    assert "dropped" in done.out
    found = frames_of(record)
    assert found
    assert found[0].shape == (120, 320, 3)
    last = cv2.imread(str(snapshot))
    assert last is not None
    assert last.shape == (120, 320, 3)
    assert f"snapshot: {snapshot}" in done.err


def test_webcam_ends_in_time(run: Run, toy: Path, film: Path) -> None:
    done = run("webcam", film, "--headless", "--model", toy, "--loop", "--seconds", "0.5")  # or for ever
    assert done.status == 0


def test_the_log_holds_a_line_a_second(run: Run, toy: Path, film: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    done = run("webcam", film, "--headless", "--model", toy, "--loop", "--seconds", "2.5", "--log", log)
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert 1 <= len(lines) <= 3
    assert lines[-1]["shown"] + lines[-1]["dropped"] <= lines[-1]["captured"]
    assert lines[0]["fps"] > 0
    assert lines[0]["latency_ms"]["p50"] <= lines[0]["latency_ms"]["p99"]
    assert {"inference", "matte", "view"} <= set(lines[0]["stages_ms"])
    first = lines[0]
    assert len(first["pipeline_ms"]) == len(first["frames_ms"])  # the model was asked about each
    assert all(
        0 < model < whole + 0.1 for model, whole in zip(first["pipeline_ms"], first["frames_ms"], strict=True)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_whole_recording(toy: Path, film: Path, tmp_path: Path, number: int) -> None:
    record = tmp_path / "record.mp4"
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_deeplab", "demo", "webcam", str(film), "--headless", "--loop",
         "--model", str(toy), "--record", str(record)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and not any(p.stat().st_size > 100 for p in tmp_path.glob(".part-*")):
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    assert err == "stopped\n"
    assert f"recorded {record}" in out
    assert len(frames_of(record)) > 0
    assert not list(tmp_path.glob(".part-*"))


def test_the_snapshot_of_a_cut_out_is_transparent(run: Run, toy: Path, film: Path, tmp_path: Path) -> None:
    done = run(
        "webcam", film, "--headless", "--model", toy, "--mode", "cutout", "--snapshot", tmp_path / "x.png"
    )
    assert done.status == 0
    found = cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED)
    assert found is not None
    assert found.shape == (120, 160, 4)
    assert np.unique(found[..., 3]).size >= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["97", "--headless"], ["no picture from camera 97", "this computer has"]),
        (["x.mp4", "--headless"], ["no source"]),
        ([__file__, "--headless"], ["cannot read", "no film"]),
        (["http://127.0.0.1:9/x.mjpg", "--headless"], ["no picture from http"]),
        (["{film}", "--headless", "--record", "x.avi"], ["films are written as"]),
        (["{film}", "--headless", "--record", "/proc/x.mp4"], ["cannot write"]),
        (["{film}", "--headless", "--snapshot", "x.xyz"], ["cannot write x.xyz", "use .png"]),
        (["{film}", "--headless", "--snapshot", "/proc/x/x.png"], ["cannot write /proc/x/x.png"]),
        (["{film}", "--headless", "--log", "/proc/x/log"], ["cannot write /proc/x/log"]),
        (["{film}", "--camera-size", "640"], ["WIDTHxHEIGHT"]),
        (["{film}", "--headless", "--camera-size", "640x480"], ["--camera-size is for cameras"]),
        (["{film}", "--headless", "--mode", "mask", "--strength", "2"], ["--strength is for --mode blur"]),
        (["{film}", "--rate", "fast"], ["must be a number"]),
        (["{film}", "--every", "0"], ["at least 1"]),
    ],
)
def test_webcam_mistakes(run: Run, toy: Path, film: Path, arguments: list[str], words: list[str]) -> None:
    filled = [a.format(film=film) for a in arguments]
    run("webcam", *filled, "--model", toy).refused(*words)


def test_no_screen_is_said_in_one_line(toy: Path, film: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_deeplab", "demo", "webcam", str(film), "--model", str(toy)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("edge-deeplab: no window:")
    assert "--headless" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [(None, "without Tk, and this OpenCV"), ("tk", "without Tk;"), ("opencv", "this OpenCV has no windows")],
)
def test_no_window_is_said_in_one_line(
    run: Run, toy: Path, film: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    wanted = ["--window", kind] if kind else []
    run("webcam", film, "--model", toy, *wanted).refused("no window", words, "--headless")


def test_no_virtual_camera_is_said_in_one_line(run: Run, toy: Path, film: Path) -> None:
    pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed")
    if list(Path("/sys/class/video4linux").glob("*")):
        pytest.skip("this computer has video devices")
    run("webcam", film, "--headless", "--model", toy, "--virtual-camera").refused(
        "no virtual camera", "v4l2loopback"
    )


@pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="no screen; run under xvfb-run to include it")
@pytest.mark.parametrize("kind", ["tk", "opencv"])
def test_a_real_window(run: Run, toy: Path, film: Path, kind: str) -> None:
    if kind == "opencv" and not cv2.currentUIFramework():
        pytest.skip("this OpenCV has no windows")
    done = run("webcam", film, "--model", toy, "--window", kind)
    assert done.status == 0, done.err
    assert "frames in" in done.out
