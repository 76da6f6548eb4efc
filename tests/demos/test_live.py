"""The live loop: newest first, nothing piles up, and a camera may come and go."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.demos.live import sources
from edge_deeplab.demos.live.app import App
from edge_deeplab.demos.live.hud import draw
from edge_deeplab.demos.live.loop import Answer, Live, Settings
from edge_deeplab.demos.live.mailbox import Mailbox
from edge_deeplab.demos.live.recorder import Recorder
from edge_deeplab.demos.live.sources import Camera, Film, Pictures, Source, open_source
from edge_deeplab.demos.live.statistics import Histogram, Rate
from edge_deeplab.demos.live.virtual_camera import VirtualCamera
from edge_deeplab.demos.live.window import Window
from edge_deeplab.demos.options import MODES
from edge_deeplab.demos.views import EFFECTS, View, open_background
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, write_image
from edge_deeplab.runtimes import Runtime, open_model
from tests.demos.support import frame, frames_of, make_film
from tests.runtimes.artefacts import toy_onnx

PATIENCE_S = 60
"""How long a loaded machine may take for one thing."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with open_model(toy_onnx(tmp_path_factory.mktemp("toy") / "toy.onnx"), threads=1) as opened:
        yield opened.warmup(1)


class Script(Source):
    """A camera that gives what it is told, None for "gone".

    With ``turns`` every frame waits until :meth:`go_on` was called for the one before: nothing is dropped
    then, however the threads are scheduled.
    """

    live = True

    def __init__(self, frames: list[Frame | None], back: bool = True, *, turns: bool = False) -> None:
        super().__init__("the camera")
        self.frames, self.back, self.asked = frames, back, 0
        self._turns = threading.Semaphore(1) if turns else None

    def go_on(self) -> None:
        assert self._turns
        self._turns.release()

    def read(self) -> Frame | None:
        if self._turns:
            self._turns.acquire(timeout=PATIENCE_S)
        time.sleep(0.002)
        return self.frames.pop(0) if self.frames else None

    def reopen(self) -> bool:
        self.asked += 1
        return self.back and bool(self.frames)

    def close(self) -> None:
        pass


# -- mailbox -------------------------------------------------------------------------------------


def test_the_newest_wins_and_what_gave_way_is_counted() -> None:
    box: Mailbox[int] = Mailbox()
    for number in range(5):
        box.put(number)
    assert box.take(0) == 4
    assert box.take(0) is None
    assert box.dropped == 4
    box.put(9)
    box.close()
    assert not box.ended
    assert box.take() == 9
    assert box.take() is None
    assert box.ended


def test_closing_wakes_whoever_waits() -> None:
    box: Mailbox[int] = Mailbox()
    threading.Timer(0.05, box.close).start()
    assert box.take() is None


# -- loop ----------------------------------------------------------------------------------------


def collect(live: Live, source: Script | None = None) -> list[Answer]:
    """All answers; ``source`` is told that it may go on after each."""
    found = []
    while not live.ended:
        answer = live.next(timeout=1)
        if answer is not None:
            found.append(answer)
            if source:
                source.go_on()
    return found


def test_every_answer_belongs_to_its_frame(model: Runtime) -> None:
    source = Script([frame(number) for number in range(20)], back=False)
    with Live(source, model, Settings(wait=0)) as live:
        answers = collect(live)
    assert live.captured == 20
    assert len(answers) + live.dropped == 20
    assert answers
    for answer in answers:
        disc = answer.frame[..., 0] > 150
        assert ((answer.alpha >= 0.5) == disc).mean() > 0.97
    assert [a.taken for a in answers] == sorted(a.taken for a in answers)


def test_a_slow_model_gets_the_newest_frame(model: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = model.segment
    source = Script([np.full((60, 80, 3), number, np.uint8) for number in range(100)], back=False)

    def slow(picture: Frame) -> object:
        wanted = len(source.frames) - 10
        while len(source.frames) > max(0, wanted):  # ten more come in meanwhile
            time.sleep(0.001)
        return segment(picture)

    monkeypatch.setattr(model, "segment", slow)
    with Live(source, model, Settings(wait=0)) as live:
        answers = collect(live)
    numbers = [int(a.frame[0, 0, 0]) for a in answers]
    assert numbers == sorted(numbers)
    assert live.dropped == 100 - len(numbers)
    assert live.dropped > 50
    assert numbers[-1] == 99  # the last one is not lost behind a queue


def test_in_between_the_answer_is_carried_on(model: Runtime) -> None:
    source = Script([frame(number) for number in range(12)], back=False, turns=True)
    with Live(source, model, Settings(every=3, wait=0)) as live:
        answered = [answer.times is not None for answer in collect(live, source)]
    assert answered == [True, False, False] * 4


def test_settings_change_while_it_runs(model: Runtime) -> None:
    settings = Settings(every=3, wait=0)
    source = Script([frame(0)] * 4, back=False, turns=True)
    with Live(source, model, settings) as live:
        first = live.next(timeout=PATIENCE_S)
        settings.mirror = True
        source.go_on()
        second, *_ = collect(live, source)
    assert first is not None
    assert np.array_equal(first.frame, frame(0))
    assert np.array_equal(second.frame, frame(0)[:, ::-1])
    # An answer for the other side is not carried on, nor averaged with.
    assert second.times is not None
    assert ((second.alpha >= 0.5) == (second.frame[..., 0] > 150)).mean() > 0.97


def test_a_camera_that_comes_back(model: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_deeplab.demos.live.loop.RETRY_S", 0.01)
    said: list[str] = []
    source = Script([frame(0), frame(1), None, frame(2), frame(3)])
    settings = Settings(wait=PATIENCE_S)

    def back() -> bool:
        settings.wait = 0  # the second time
        return Script.reopen(source)

    source.reopen = back  # type: ignore[method-assign]
    with Live(source, model, settings, said.append) as live:
        answers = collect(live)
    assert live.captured == 4
    assert np.array_equal(answers[-1].frame, frame(3))
    assert said == [
        f"the camera gives no more pictures; waiting {PATIENCE_S} s for it",
        "the camera is back",
        "the camera has ended",
    ]


def test_an_error_in_a_thread_is_the_caller_s(model: Runtime) -> None:
    broken = Script([frame(0), np.zeros((4, 4, 3), np.float32)])  # type: ignore[list-item]
    with Live(broken, model, Settings(wait=0)) as live, pytest.raises(UserError, match="uint8"):
        while True:
            live.next(timeout=1)


def test_leaving_early_stops_the_threads(model: Runtime) -> None:
    before = threading.active_count()
    with Live(Script([frame(0)] * 10_000), model, Settings()) as live:
        assert live.next(timeout=PATIENCE_S) is not None
    assert threading.active_count() == before


# -- sources -------------------------------------------------------------------------------------


def test_a_film_is_played_at_its_pace_and_again(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", 6, rate=50)
    film = open_source(str(path))
    assert isinstance(film, Film)
    assert film.rate == pytest.approx(50)
    begin = time.perf_counter()
    assert sum(film.read() is not None for _ in range(6)) == 6
    assert time.perf_counter() - begin >= 0.09  # five steps of 20 ms; the first frame is there at once
    assert film.read() is None
    film.close()
    looped = open_source(str(path), loop=True, rate=1000)
    assert sum(looped.read() is not None for _ in range(20)) == 20
    looped.close()


def test_nothing_is_decoded_while_the_frame_before_is_segmented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera gives its frame when it is due; so must a film and pictures, or the model takes longer."""
    write_image(tmp_path / "0.png", frame(0))
    seen: list[str] = []
    monkeypatch.setattr(sources.Pace, "wait", lambda self: seen.append("due"))
    monkeypatch.setattr(sources, "read_image", lambda path: (seen.append("decoded"), frame(0))[1])
    film = open_source(str(make_film(tmp_path / "film.mp4", 2)))
    decode, film._capture = film._capture, Decoder(seen)  # type: ignore[attr-defined]
    for source in (open_source(str(tmp_path)), film):
        assert source.read() is not None
        source.close()
    decode.release()
    assert seen == ["due", "decoded"] * 2


class Decoder:
    """A film's decoder that tells when it works."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def read(self) -> tuple[bool, Frame]:
        self.seen.append("decoded")
        return True, frame(0)

    def release(self) -> None:
        pass


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", frame(number))
    source = open_source(str(tmp_path), rate=1000)
    assert isinstance(source, Pictures)
    assert [source.read() is not None for _ in range(4)] == [True, True, True, False]
    looped = open_source(str(tmp_path), rate=1000, loop=True)
    assert all(looped.read() is not None for _ in range(7))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("film.mp4", "no source"),
        ("97", r"no picture from camera 97: this computer has"),
        ("/dev/video97", "no picture from /dev/video97"),
        ("videotestsrc ! videoconvert ! appsink", "no picture from videotestsrc"),
    ],
)
def test_what_cannot_be_opened(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_source(text)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_film_behind_a_url_is_played_at_its_pace(tmp_path: Path) -> None:
    """And not as fast as a server sends it, nor waited for at its end as a camera would be."""
    make_film(tmp_path / "film.mp4", 12, rate=50)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    film = open_source(f"http://127.0.0.1:{server.server_port}/film.mp4", loop=True)
    begin = time.perf_counter()
    assert sum(film.read() is not None for _ in range(20)) == 20
    assert time.perf_counter() - begin >= 0.3
    assert isinstance(film, Film)
    assert not film.live
    film.close()
    server.shutdown()
    server.server_close()


class Driver:
    """Stands where ``cv2.VideoCapture`` does: no camera is here. Notes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: dict[int, float] = {}
        self.pictures: list[np.ndarray] = [frame(0)[..., 0], np.dstack([frame(1), frame(1)[..., 0]])]

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def set(self, key: int, value: float) -> bool:
        self.asked[key] = value
        return True

    def get(self, key: int) -> float:
        return -1.0  # what drivers say that do not know

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self.pictures.pop(0)) if self.pictures else (False, None)

    def release(self) -> None:
        pass


def test_what_a_camera_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(sources, "_capture", lambda _: driver)
    camera = open_source("0", size=(1280, 720), rate=60)
    assert driver.asked == {
        cv2.CAP_PROP_BUFFERSIZE: 1,
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"MJPG"),
        cv2.CAP_PROP_FRAME_WIDTH: 1280,
        cv2.CAP_PROP_FRAME_HEIGHT: 720,
        cv2.CAP_PROP_FPS: 60,
    }
    assert camera.rate == 60
    for _ in range(2):  # gray, and four channels
        found = camera.read()
        assert found is not None
        assert found.shape == (120, 160, 3)
    assert camera.read() is None


def test_a_camera_has_no_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_capture", lambda _: Driver())
    with pytest.raises(UserError, match="--loop is for films and folders; camera 0"):
        open_source("0", loop=True)


def test_a_camera_that_is_not_told_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(sources, "_capture", lambda _: driver)
    assert open_source("/dev/video3").rate == sources.RATE
    assert driver.asked == {cv2.CAP_PROP_BUFFERSIZE: 1}


def test_what_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("no film")
    with pytest.raises(UserError, match="cannot read"):
        open_source(str(tmp_path / "x.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        open_source(str(tmp_path / "empty"))


class Stream:
    """A network camera: MJPEG over HTTP, as many frames a connection as it is told."""

    def __init__(self, frames: int) -> None:
        self.left = frames
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for number in range(outer.left):
                    data = cv2.imencode(".jpg", frame(number))[1].tobytes()
                    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
                    self.wfile.write(head + data + b"\r\n")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/x.mjpg"

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_network_camera_that_goes_and_comes_back(model: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """For real: the connection ends, and a new one is made."""
    monkeypatch.setattr("edge_deeplab.demos.live.loop.RETRY_S", 0.05)
    said: list[str] = []
    with Stream(30) as stream:
        camera = open_source(stream.url)
        assert isinstance(camera, Camera)
        with Live(camera, model, Settings(wait=PATIENCE_S), said.append) as live:
            while "back" not in "".join(said) and not live.ended:
                live.next(timeout=0.2)
            stream.left = 0
            live.settings.wait = 0.2
            collect(live)
        camera.close()
    assert any("is back" in line for line in said)
    assert live.captured > 30
    assert said[-1].endswith("has ended")


# -- recording, figures, screen --------------------------------------------------------------------


def test_the_recorder_keeps_times_and_ends_with_a_film(tmp_path: Path) -> None:
    with Recorder(tmp_path / "film.mp4", 30) as recorder:
        for number in range(20):
            recorder.write(frame(number), 100 + number / 30)
            time.sleep(0.005)
    assert recorder.frames + recorder.dropped == 20
    assert len(frames_of(tmp_path / "film.mp4")) == recorder.frames


def test_a_recorder_that_fails_says_so_and_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise UserError("cannot write film.mp4: the disk is full")

    recorder = Recorder(tmp_path / "film.mp4", 30)
    monkeypatch.setattr(recorder._writer, "write", broken)
    with pytest.raises(UserError, match="the disk is full"), recorder:
        for number in range(200):
            recorder.write(frame(number), number / 30)
            time.sleep(0.001)
    assert list(tmp_path.iterdir()) == []


def test_histogram_percentiles(rng: np.random.Generator) -> None:
    values = rng.gamma(4, 5, 5000)
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.count == 5000
    for percent in (5, 50, 95, 99):
        assert histogram.percentile(percent) == pytest.approx(np.percentile(values, percent), abs=0.3)
    assert np.isnan(Histogram().percentile(50))
    histogram.add(1e9)
    assert histogram.percentile(100) == pytest.approx(2000)


def test_rate() -> None:
    rate = Rate()
    assert rate.value == 0
    for number in range(50):
        rate.tick(number / 25)
    assert rate.value == pytest.approx(25)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (480, 640), (480, 1280), (2160, 3840), (60, 80)])
def test_text_is_readable_and_leaves_the_picture_alone(height: int, width: int) -> None:
    picture = np.full((height, width, 3), 200, np.uint8)
    top = ["30.0 fps   latency 41 ms", "preprocess 1.0   inference 8.0   postprocess 0.4   matte 1.9 ms"]
    shown = draw(picture, top, ["Q quit"])
    assert (picture == 200).all()
    assert shown.shape == picture.shape
    middle = shown[int(height * 0.45) : int(height * 0.55)]
    if height < 100:  # too small for any text, but no reason to fail
        return
    assert (middle == 200).all()
    assert shown.max() == 255  # the text
    assert (shown[:, -3:][: height // 20] < 255).all()  # and nothing of it cut off at the right


def test_every_mode_has_a_key_and_an_effect() -> None:
    assert set(MODES) == {*EFFECTS, "side-by-side"}
    assert len(set(MODES.values())) == len(MODES)


class Screen(Window):
    """Remembers what it is shown; keys are pressed one a call."""

    def __init__(self, keys: str) -> None:
        self.keys = list(keys)
        self.shown: list[Frame] = []

    def show(self, picture: Frame) -> None:
        self.shown.append(picture)

    def key(self) -> str:
        return self.keys.pop(0) if self.keys and self.shown else ""

    def close(self) -> None:
        self.open = False


def test_keys(model: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings, said = Settings(), []
    view = View("blur", open_background("00b140"))
    screen = Screen("xrcmsbftehp" + "q")
    with Live(Script([frame(0)] * 10_000), model, settings) as live:
        app = App(live, view, screen, say=said.append)
        app.run(lambda: False)
    assert not screen.keys
    assert view.mode == "blur"
    assert (settings.mirror, settings.smooth, settings.refine) == (True, False, False)
    (snapshot,) = tmp_path.glob("edge-deeplab-*.png")
    assert said == [f"snapshot: {snapshot.name}"]
    assert app.figures.shown == len(screen.shown)
    assert app.figures.latency.count == app.figures.shown
    assert any(s.shape == (120, 320, 3) for s in screen.shown)  # side by side


def test_a_snapshot_that_cannot_be_written_does_not_end_it(
    model: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/proc")
    screen, said = Screen("pmq"), []
    with Live(Script([frame(0)] * 10_000), model, Settings()) as live:
        App(live, View("blur", open_background("sky")), screen, say=said.append).run(lambda: False)
    assert not screen.keys
    assert len(said) == 1
    assert said[0].startswith("cannot write edge-deeplab-")


def test_a_closed_window_ends_it(model: Runtime) -> None:
    screen = Screen("")
    with Live(Script([frame(0)] * 10_000), model, Settings()) as live:
        app = App(live, View("mask", open_background("sky")), screen)
        key = screen.key

        def closed() -> str:
            if app.figures.shown:
                screen.close()
            return key()

        screen.key = closed  # type: ignore[method-assign]
        app.run(lambda: False)
    assert app.figures.shown > 0


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode: str) -> None:
    view = View(mode, open_background("white"))
    alpha = (frame(0)[..., 0] > 150).astype(np.float32)
    shown = view(frame(0), alpha)
    assert shown.shape == (120, 320 if mode == "side-by-side" else 160, 3)
    if mode == "replace":
        assert (shown[alpha == 0] == 255).all()


def test_a_film_as_background(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", 10, rate=10)
    background = open_background(str(path))
    frames = frames_of(path)
    for seconds in (0.0, 0.3, 0.35, 0.9, 1.2):  # the last one: played again
        found = background.at(seconds, 120, 160)
        wanted = frames[int(seconds * 10) % 10]
        assert np.abs(found.astype(int) - wanted).mean() < 3, seconds
    assert background.at(100.0, 60, 60).shape == (60, 60, 3)
    background.close()


@pytest.mark.parametrize("text", ["nothing.png", "#12345", "00g140"])
def test_backgrounds_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="no background"):
        open_background(text)


# -- virtual camera ------------------------------------------------------------------------------


class Loopback:
    """Stands where pyvirtualcam's camera does: there is no v4l2loopback here."""

    device = "/dev/video9"

    def __init__(self, width: int, height: int, fps: float, *, fmt: str, device: str | None) -> None:
        self.width, self.height, self.fps, self.fmt, self.wanted = width, height, fps, fmt, device
        self.sent: list[Frame] = []
        self.open = True

    def send(self, picture: Frame) -> None:
        assert picture.shape == (self.height, self.width, 3)
        self.sent.append(picture)

    def close(self) -> None:
        self.open = False


def test_a_virtual_camera_keeps_its_first_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Loopback] = []

    def camera(*args: Any, **options: Any) -> Loopback:
        made.append(Loopback(*args, **options))
        return made[0]

    module = SimpleNamespace(Camera=camera, PixelFormat=SimpleNamespace(BGR="bgr"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    with VirtualCamera("", 25) as virtual:
        virtual.write(frame(0), 0.0)
        virtual.write(np.hstack([frame(0), frame(1)]), 0.04)  # side by side is wider
    (loopback,) = made
    assert (loopback.fps, loopback.fmt, loopback.wanted) == (25, "bgr", None)
    assert len(loopback.sent) == 2
    assert np.array_equal(loopback.sent[0], frame(0))
    assert not loopback.open
    assert capsys.readouterr().out == "virtual camera: /dev/video9\n"
