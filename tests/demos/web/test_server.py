"""The server behind the page: frames over a WebSocket, and who is let in."""

from __future__ import annotations

import json
import ssl
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import Frame, Labels, alpha_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime, open_model
from tests.demos.web.support import alphas, make_certificate, served
from tests.demos.web.test_page import saved
from tests.runtimes.artefacts import RED_GREEN_BLUE, picture, toy_contract, toy_onnx

pytest.importorskip("starlette", reason="the extra `web` is not installed")
pytest.importorskip("websockets", reason="the extra `web` is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_websocket

from edge_deeplab.demos.web.app import Site, is_loopback
from edge_deeplab.demos.web.live import (
    MOST_BYTES,
    MOST_CLIENTS,
    MOST_PIXELS,
    PROTOCOL,
    Live,
    jpeg_size,
)

TOKEN = "a-token"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with open_model(toy_onnx(tmp_path / "toy.onnx"), threads=1) as model:
        yield model


@pytest.fixture
def live(runtime: Runtime) -> Live:
    return Live(runtime)


@pytest.fixture
def address(live: Live) -> Iterator[str]:
    """A server on loopback with the toy as its runtime."""
    with served(Site("toy", {"toy": Path("toy.onnx")}, live)) as url:
        yield url


@pytest.fixture
def guarded(live: Live, tmp_path: Path) -> Iterator[str]:
    """One that asks for a token."""
    with served(Site("toy", {"toy": tmp_path / "toy.onnx"}, live, TOKEN)) as url:
        yield url


def connect(address: str, *, protocols: list[str] | None = None, **options: Any) -> Any:
    url = address.replace("http", "ws", 1) + "/segment"
    patience = {"open_timeout": 120, "close_timeout": 120}
    return connect_websocket(url, subprotocols=protocols or [PROTOCOL], max_size=None, **patience, **options)


def jpeg(frame: Frame) -> bytes:
    return cv2.imencode(".jpg", frame)[1].tobytes()


def message(number: int, data: bytes) -> bytes:
    """A frame of a stream at 30 a second."""
    return struct.pack("<Id", number, number * 1000 / 30) + data


def read(answer: bytes) -> tuple[int, tuple[float, ...], Labels]:
    """Number, milliseconds of each stage, and the alpha."""
    alpha = cv2.imdecode(np.frombuffer(answer[16:], np.uint8), cv2.IMREAD_UNCHANGED)
    return (
        int.from_bytes(answer[:4], "little"),
        struct.unpack("<3f", answer[4:16]),
        np.asarray(alpha, np.uint8),
    )


# -- frames and masks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quality", [{}, {"smooth": False, "refine": True}, {"smooth": False, "refine": False}]
)
@pytest.mark.parametrize("classes", [2, 4])
def test_the_answer_is_that_of_runtime_and_matte(
    tmp_path: Path, classes: int, quality: dict[str, bool]
) -> None:
    contract = toy_contract() if classes == 2 else toy_contract(classes=RED_GREEN_BLUE)
    frames = [jpeg(picture(120, 200, seed=seed)) for seed in (1, 1, 2)]
    with open_model(toy_onnx(tmp_path / "toy.onnx", contract), threads=1) as model:
        with served(Site("toy", {}, Live(model))) as url, connect(url) as socket:
            hello = json.loads(socket.recv())
            if quality:
                socket.send(json.dumps({"type": "restart", **quality}))
            answers = []
            for number, data in enumerate(frames):
                socket.send(message(number, data))
                answers.append(read(socket.recv()))
        matte = Matte(**quality)
        for number, data in enumerate(frames):
            frame = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), 1), np.uint8)
            alpha = alpha_image(matte.update(frame, model.segment(frame).logits, 1 / 30))
            assert answers[number][0] == number
            assert all(t > 0 for t in answers[number][1])
            assert np.array_equal(answers[number][2], alpha)
    assert hello["type"] == "hello"
    assert hello["contract"] == contract.to_json()
    assert hello["title"].startswith("server: ONNX Runtime")


def test_the_newest_frame_wins(live: Live, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one frame is worked on, twenty more come in: the last of them is the next one answered."""
    begun, go_on = threading.Event(), threading.Event()
    infer = runtime.infer

    def slowly(tensor: Any) -> Any:
        begun.set()
        assert go_on.wait(120)
        return infer(tensor)

    monkeypatch.setattr(runtime, "infer", slowly)
    data = jpeg(picture(64, 96))
    with served(Site("toy", {}, live)) as url, connect(url) as socket:
        socket.recv()
        socket.send(message(0, data))
        assert begun.wait(120)
        for number in range(1, 21):
            socket.send(message(number, data))
        socket.send(message(21, data))
        socket.ping().wait(120)  # answered in order, so everything before it has arrived
        go_on.set()
        assert read(socket.recv())[0] == 0
        dropped = json.loads(socket.recv())
        assert dropped["type"] == "dropped"
        assert read(socket.recv())[0] == 21
    assert dropped["ids"] == list(range(1, 21))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no picture at all", "not a JPEG"),
        (cv2.imencode(".png", picture(8, 8))[1].tobytes(), "not a JPEG"),
        (jpeg(picture(64, 96))[:-300], "cut short"),
    ],
    ids=["garbage", "png", "cut"],
)
def test_a_bad_frame_is_refused_and_the_next_one_taken(address: str, data: bytes, words: str) -> None:
    with connect(address) as socket:
        socket.recv()
        socket.send(message(1, data))
        refused = json.loads(socket.recv())
        socket.send(message(2, jpeg(picture(64, 96))))
        assert read(socket.recv())[0] == 2
    assert refused["type"] == "refused"
    assert refused["id"] == 1
    assert words in refused["why"]


def test_a_bomb_is_not_decoded(address: str) -> None:
    """A small file that would unpack to gigabytes."""
    data = bytearray(jpeg(picture(64, 96)))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    with connect(address) as socket:
        socket.recv()
        socket.send(message(1, bytes(data)))
        refused = json.loads(socket.recv())
    assert "60000x60000" in refused["why"]
    assert str(MOST_PIXELS) in refused["why"]


@pytest.mark.parametrize("size", [(1, 1), (48, 64), (720, 1280)])
def test_the_size_in_a_header(size: tuple[int, int]) -> None:
    assert jpeg_size(jpeg(picture(*size))) == size
    progressive = cv2.imencode(".jpg", picture(*size), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert jpeg_size(progressive) == size


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (bytes(MOST_BYTES + 1), 1009),
        ("text", 1003),
        ("{}", 1003),
        ('["restart"]', 1003),
        ('{"type": "restart"}', 1003),
        (b"123456789012", 1003),
    ],
    ids=["large", "text", "object", "list", "half", "short"],
)
def test_nonsense_ends_the_connection_and_no_other(address: str, sent: bytes | str, code: int) -> None:
    with connect(address) as other, connect(address) as socket:
        other.recv()
        socket.recv()
        socket.send(sent)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv()
        assert caught.value.rcvd.code == code
        other.send(message(1, jpeg(picture(64, 96))))
        assert read(other.recv())[0] == 1


def test_too_many_pages_are_told_so(address: str, live: Live) -> None:
    with ExitStack() as open_ones:
        for _ in range(MOST_CLIENTS):
            socket = open_ones.enter_context(connect(address))
            assert json.loads(socket.recv())["type"] == "hello"
        with connect(address) as one_more, pytest.raises(ConnectionClosed) as caught:
            one_more.recv()
        assert caught.value.rcvd.code == 1013
    for _ in range(2400):  # the server hears of it a little later
        if not live.clients:
            break
        threading.Event().wait(0.05)
    with connect(address) as socket:
        assert json.loads(socket.recv())["type"] == "hello"


# -- who is let in -------------------------------------------------------------------------------


def status(address: str, **headers: str) -> int:
    """HTTP status of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def refused(address: str, **options: Any) -> bool:
    """Whether the handshake is answered with 403."""
    try:
        with connect(address, **options):
            return False
    except InvalidStatus as error:
        return bool(error.response.status_code == 403)


def test_pages_from_elsewhere_may_not_connect(address: str) -> None:
    assert not refused(address, origin=address)
    assert refused(address, origin="https://example.org")
    assert refused(address, origin="null")
    assert refused(address, origin=address.replace("127.0.0.1", "localhost"))


def test_a_name_that_points_here_by_trick_is_refused(address: str) -> None:
    port = address.rpartition(":")[2]
    assert status(address, Host=f"127.0.0.1:{port}") == 200
    assert status(address, Host=f"localhost:{port}") == 200
    assert status(address, Host="evil.example") == 400
    assert status(address + "/config.json", Host=f"evil.example:{port}") == 400


def test_without_a_runtime_there_is_no_socket() -> None:
    with served(Site("toy", {})) as url:
        assert refused(url)


def test_a_token_is_asked_for(guarded: str) -> None:
    assert status(guarded + "/") == 200, "the page itself is no secret"
    for path in ("/config.json", "/models/toy.onnx"):
        assert status(guarded + path) == 401
        assert status(guarded + path, Authorization="Bearer wrong") == 401
        assert status(guarded + path, Authorization=f"Bearer {TOKEN}") == 200
    assert refused(guarded)
    assert refused(guarded, protocols=[PROTOCOL, "token.wrong"])
    assert not refused(guarded, protocols=[PROTOCOL, f"token.{TOKEN}"])
    assert status(guarded, Host="any.name") == 200


def test_only_the_models_named_are_given_out(address: str) -> None:
    for path in ("/models/other.onnx", "/models/..%2Ftoy.onnx", "/../pyproject.toml", "/%2e%2e/app.py"):
        assert status(address + path) == 404


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.7", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# -- what is sent along --------------------------------------------------------------------------


def test_headers(address: str) -> None:
    for path, kind in {
        "/": "text/html",
        "/main.js": "text/javascript",
        "/style.css": "text/css",
        "/icon.svg": "image/svg+xml",
        "/vendor/onnxruntime-web/ort.wasm.min.mjs": "text/javascript",
        "/vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm": "application/wasm",
        "/vendor/onnxruntime-web/LICENSE": "text/plain",
    }.items():
        with urllib.request.urlopen(address + path) as answer:
            assert answer.headers["Content-Type"].startswith(kind), path
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert (answer.headers["Content-Encoding"] == "gzip") == path.endswith(".wasm")
            assert answer.headers["Server"] is None or "uvicorn" not in answer.headers["Server"]


def test_https(tmp_path: Path, live: Live) -> None:
    """For a page that another computer may open, with its camera."""
    certificate, key = make_certificate(tmp_path)
    with served(Site("toy", {}, live), certificate=str(certificate), key=str(key)) as url:
        trusting = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(url, context=trusting) as answer:
            assert url.replace("https", "wss") in answer.headers["Content-Security-Policy"]
        with connect(url, ssl=trusting, origin=url) as socket:
            assert json.loads(socket.recv())["type"] == "hello"


# -- with the page -------------------------------------------------------------------------------


def test_the_page_shows_what_the_server_makes_of_it(visit: Any, guarded: str, runtime: Runtime) -> None:
    visitor = visit()
    visitor.page.goto(f"{guarded}/#token={TOKEN}")
    visitor.page.get_by_role("button", name="Start camera").click()
    visitor.state("live")
    assert TOKEN not in visitor.page.url
    assert "server: ONNX Runtime" in visitor.page.inner_text("#model-line")
    assert "Frames go to 127.0.0.1" in visitor.page.inner_text("#privacy")
    visitor.page.get_by_role("button", name="Stop").click()
    frames = [picture(480, 640, seed=3), picture(100, 150, seed=4)]
    shown = alphas(visitor.page, frames, backend="server", token=TOKEN)
    for frame, alpha in zip(frames, shown, strict=True):
        # Not all pixels: the frame goes out as JPEG.
        assert ((alpha >= 128) == runtime.segment(frame).labels).mean() >= 0.99
    assert visitor.errors == []


def test_a_paused_picture_stands_still(
    visit: Any, live: Live, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The frames that were on their way when the button was pressed are not shown."""
    go_on, infer = threading.Event(), runtime.infer

    def held_up(tensor: Any) -> Any:
        assert go_on.wait(120)
        return infer(tensor)

    monkeypatch.setattr(runtime, "infer", held_up)
    go_on.set()
    with served(Site("toy", {}, live)) as url:
        visitor = visit()
        visitor.page.goto(url)
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("live")
        go_on.clear()
        visitor.page.wait_for_timeout(500)
        pause = visitor.page.get_by_role("button", name="Pause")
        pause.click()
        before = saved(visitor, tmp_path)
        go_on.set()
        visitor.page.wait_for_timeout(1000)
        assert np.array_equal(saved(visitor, tmp_path), before)
        pause.click()
        while np.array_equal(saved(visitor, tmp_path), before):  # and goes on
            pass
        assert visitor.errors == []


def test_frames_are_made_to_fit_what_the_server_takes(
    visit: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pixels and in bytes; the alpha has the frame's own size again."""
    for name, most in {"MOST_PIXELS": 320 * 240, "MOST_BYTES": 26000}.items():
        monkeypatch.setattr(f"edge_deeplab.demos.web.live.{name}", most)
    monkeypatch.setattr("edge_deeplab.demos.web.app.MOST_BYTES", 26000)  # so that one byte more ends it
    rng = np.random.default_rng(0)
    noisy = np.clip(picture(480, 640, seed=3) + rng.normal(0, 20, (480, 640, 3)), 0, 255).astype(np.uint8)
    shrunk = cv2.resize(noisy, (320, 240))
    assert len(cv2.imencode(".jpg", shrunk, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]) > 26000
    with served(Site("toy", {}, Live(runtime))) as url:
        visitor = visit(camera=False)
        visitor.open_bare(url)
        (alpha,) = alphas(visitor.page, [noisy], backend="server")
    assert alpha.shape == (480, 640)
    assert ((alpha >= 128) == runtime.segment(noisy).labels).mean() >= 0.97


def test_the_page_names_the_servers_model(visit: Any, runtime: Runtime, tmp_path: Path) -> None:
    other = toy_onnx(tmp_path / "other.onnx", toy_contract(name="other"))
    with served(Site("mine", {"other": other}, Live(runtime))) as url:
        visitor = visit()
        visitor.page.goto(url)
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("live")
        choice = visitor.page.locator("select[name=model]")
        assert choice.is_disabled()
        assert choice.locator("option").all_inner_texts() == ["mine"]
        assert visitor.errors == []


def test_a_runtime_that_fails_is_told(
    visit: Any, live: Live, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a runtime must end the connection, or the page would wait for ever."""

    def broken(tensor: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runtime, "infer", broken)
    with served(Site("toy", {}, live)) as url:
        visitor = visit()
        visitor.page.goto(url)
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("problem")
        assert "connection to the server was lost" in visitor.page.get_by_role("alert").inner_text()


def test_without_its_token_the_page_says_so(visit: Any, guarded: str) -> None:
    visitor = visit()
    visitor.page.goto(guarded)
    visitor.state("problem")
    assert "Open it with the whole address" in visitor.page.get_by_role("alert").inner_text()


def test_the_page_notices_that_the_server_ended_and_came_back(visit: Any, runtime: Runtime) -> None:
    with served(Site("toy", {}, Live(runtime))) as url:
        visitor = visit()
        visitor.page.goto(url)
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("live")
    visitor.state("problem")
    assert "connection to the server was lost" in visitor.page.get_by_role("alert").inner_text()
    with served(Site("toy", {}, Live(runtime)), port=int(url.rpartition(":")[2])):
        visitor.page.locator("#retry").click()
        visitor.state("live")
