"""The embedding examples as somebody who copies them would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.demos import embed_jetson
from edge_deeplab.export.sample import SAMPLE
from edge_deeplab.imaging import Frame, read_image
from edge_deeplab.runtimes import open_model
from tests.demos import support
from tests.runtimes.artefacts import toy_onnx

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_onnx(tmp_path_factory.mktemp("toy") / "toy.onnx")


def run(example: str, *arguments: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"edge_deeplab.demos.{example}", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **options)


def read(path: Path) -> Frame:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image  # type: ignore[return-value]


# -- ten lines in a script -------------------------------------------------------------------------


def test_script(tmp_path: Path) -> None:
    done = run("embed_script", SAMPLE, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+% person, \d+\.\d ms\n", done.stdout)
    photo, cutout, blurred = read_image(SAMPLE), read(tmp_path / "cutout.png"), read(tmp_path / "blurred.jpg")
    assert cutout.shape == (*photo.shape[:2], 4)
    assert blurred.shape == photo.shape
    sharp = [np.abs(cv2.Laplacian(image, cv2.CV_64F)) for image in (photo, blurred)]
    person, rest = cutout[..., 3] > 250, cutout[..., 3] < 5
    assert person.any()
    assert rest.any()
    assert sharp[1][rest].mean() < 0.5 * sharp[0][rest].mean()
    assert sharp[1][person].mean() > 0.5 * sharp[0][person].mean()


def test_the_script_is_ten_lines() -> None:
    text = (ROOT / "demos/embed_script.py").read_text(encoding="utf-8")
    code = text.partition('"""\n\n')[2].splitlines()
    assert len([line for line in code if line and not line.startswith(("import", "from"))]) <= 10


# -- the window ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """The screen there is, or one without glass."""
    if os.environ.get("DISPLAY"):
        yield os.environ["DISPLAY"]
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("no screen and no Xvfb (apt-get install xvfb)")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        number = pipe.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait(timeout=20)


def test_window(screen: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tkinter = pytest.importorskip("tkinter", reason="this Python has no Tk")
    embed_tk = pytest.importorskip("edge_deeplab.demos.embed_tk")
    bright = np.full((90, 120, 3), 20, np.uint8)
    bright[:, 60:] = 230  # the toy model takes what is bright for people
    cv2.imwrite(str(tmp_path / "photo.png"), bright)
    root = tkinter.Tk(screenName=screen)

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition() and time.monotonic() < deadline:
            root.update()
            time.sleep(0.01)
        assert condition()

    with open_model(toy, threads=1) as model:
        desktop = embed_tk.Desktop(root, model)
        desktop.save(str(tmp_path / "early.png"))  # nothing to save yet
        desktop.open(str(tmp_path / "photo.png"))
        until(lambda: desktop.result is not None)
        assert "%" in desktop.message.get()
        for mode in embed_tk.MODES:
            desktop.mode.set(mode)
            desktop.show()
            root.update()
        desktop.mode.set("mask")
        desktop.show()
        desktop.save(str(tmp_path / "mask.png"))
        desktop.open(str(tmp_path / "missing.png"))
        until(lambda: "no such file" in desktop.message.get())
        desktop.save(str(tmp_path / "x.nonsense"))
        assert "cannot write" in desktop.message.get()
        desktop.mode.set("cutout")
        desktop.show()
        desktop.save(str(tmp_path / "cutout.png"))
        monkeypatch.setattr(embed_tk, "read_image", lambda _: 1 / 0)  # a bug, said aloud
        desktop.open(str(tmp_path / "photo.png"))
        until(lambda: "division by zero" in desktop.message.get())
        desktop.close()
    cutout = read(tmp_path / "cutout.png")
    assert cutout.shape == (90, 120, 4)
    assert cutout[45, 10, 3] < 30 < 220 < cutout[45, 110, 3]
    mask = read(tmp_path / "mask.png")
    assert mask.shape[:2] == (90, 120)
    assert mask[45, 10].max() < 30 < 220 < mask[45, 110].min()
    assert not (tmp_path / "early.png").exists()


def test_a_window_without_a_screen(tmp_path: Path) -> None:
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    nowhere = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = run("embed_tk", cwd=tmp_path, env=nowhere)
    assert done.returncode == 2
    assert done.stderr.startswith("embed_tk: ")
    assert done.stderr.count("\n") == 1


# -- the camera ------------------------------------------------------------------------------------


def test_jetson_on_a_film(toy: Path, tmp_path: Path) -> None:
    film = support.make_film(tmp_path / "film.mp4", 31)
    done = run("embed_jetson", "--source", film, "--model", toy, "--frames", 100, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rate, total = done.stdout.splitlines()
    percent = re.fullmatch(r"[\d.]+ frames a second, (\d+)% person", rate)
    assert percent
    assert 5 < int(percent[1]) < 30  # a disc of 60 pixels in 120x160
    assert total == "31 frames"


def has_gstreamer(python: str) -> bool:
    question = "import cv2; print('GStreamer:                   YES' in cv2.getBuildInformation())"
    try:
        done = subprocess.run([python, "-c", question], capture_output=True, text=True, timeout=60)
    except OSError:
        return False
    return done.stdout.strip() == "True"


def test_jetson_without_gstreamer_says_so(toy: Path, tmp_path: Path) -> None:
    if has_gstreamer(sys.executable):
        pytest.skip("this OpenCV has GStreamer")
    done = run("embed_jetson", "--model", toy, cwd=tmp_path)
    assert done.returncode == 2
    assert "without GStreamer" in done.stderr
    assert done.stderr.count("\n") == 1


GRAB = """
import cv2, sys
camera = cv2.VideoCapture(sys.argv[1], cv2.CAP_GSTREAMER)
for _ in range(5):
    there, frame = camera.read()
    assert there
    print(*frame.shape, frame.dtype, len({tuple(p) for p in frame[100, ::10]}))
"""


def test_the_pipelines_in_a_real_gstreamer(tmp_path: Path) -> None:
    """With whatever OpenCV here has GStreamer: Debian's, as a rule."""
    python = next((p for p in (sys.executable, "/usr/bin/python3") if has_gstreamer(p)), None)
    if python is None:
        pytest.skip(
            "no OpenCV with GStreamer here (apt-get install python3-opencv gstreamer1.0-plugins-base)"
        )
    for pipeline in (embed_jetson.test_pipeline(), on_a_pc(embed_jetson.csi_pipeline(flip=2))):
        done = subprocess.run(
            [python, "-c", GRAB, pipeline], capture_output=True, text=True, timeout=300, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 5
        assert all(line.startswith("480 640 3 uint8 ") for line in lines)
        assert int(lines[-1].split()[-1]) >= 7  # the test picture's seven bars


def on_a_pc(pipeline: str) -> str:
    """The camera's pipeline with what only a Jetson has replaced by its nearest relative."""
    for there, here in (
        (r"nvarguscamerasrc sensor-id=\d+", "videotestsrc is-live=true"),
        (r"\(memory:NVMM\)", ""),
        (r"nvvidconv flip-method=\d+", "videoconvert ! videoscale"),
    ):
        pipeline, count = re.subn(there, here, pipeline)
        assert count == 1
    return pipeline
