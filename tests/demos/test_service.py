"""The example service, over real sockets: right answers for many at once, and everything else refused."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.message import Message
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import Frame
from edge_deeplab.runtimes import Runtime, open_model
from tests.runtimes.artefacts import picture, toy_onnx

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("fastapi", reason="fastapi is not installed")
service = pytest.importorskip("edge_deeplab.demos.embed_service")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with open_model(toy_onnx(tmp_path_factory.mktemp("toy") / "toy.onnx"), threads=1) as opened:
        yield opened


@contextmanager
def serving(model: Runtime, **limits: float) -> Iterator[int]:
    """A real server on a free port."""
    bounds = service.Limits(**limits)
    server = service.create_server(service.create_app(model, bounds), bounds, port=0, log_level="critical")
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(timeout=20)


ROOMY = {"rate": 1000, "burst": 1000, "bytes": 200_000, "pixels": 1_000_000}


@pytest.fixture(scope="module")
def port(model: Runtime) -> Iterator[int]:
    """One with time: on a loaded machine 84 clients need seconds to say what they want."""
    with serving(model, **ROOMY, head_seconds=60, upload_seconds=60) as number:
        yield number


@pytest.fixture(scope="module")
def hasty(model: Runtime) -> Iterator[int]:
    """One that hangs up soon."""
    with serving(model, **ROOMY, head_seconds=2.5, upload_seconds=2.5) as number:
        yield number


def ask(
    port: int, body: bytes, path: str = "/mask", method: str = "POST"
) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), lower(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), lower(error.headers)


def lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def jpeg(image: Frame) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def decoded(data: bytes) -> Frame:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image  # type: ignore[return-value]


def expected(model: Runtime, data: bytes) -> Frame:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return model.segment(image).labels  # type: ignore[arg-type]


def test_picture_in_mask_out(port: int, model: Runtime) -> None:
    data = jpeg(picture(70, 90))
    status, answer, headers = ask(port, data)
    assert status == 200
    assert headers["content-type"] == "image/png"
    assert headers["server-timing"].startswith("preprocess;dur=")
    assert np.array_equal(decoded(answer), expected(model, data))
    for kind, channels in (("alpha", None), ("cutout", 4)):
        status, answer, _ = ask(port, data, f"/mask?kind={kind}")
        assert status == 200
        assert decoded(answer).shape == ((70, 90) if channels is None else (70, 90, channels))
    health = json.loads(ask(port, b"", "/health", "GET")[1])
    assert health == {"model": "toy", "runtime": "ONNX Runtime", "in_hand": 0}


@pytest.mark.parametrize("strangers", [False, True], ids=["alone", "among bad clients"])
def test_64_at_once_all_get_their_own_answer(port: int, model: Runtime, strangers: bool) -> None:
    """Also while ten slow uploads, ten that are too large and ten of garbage come in at the same moment."""
    pictures = [jpeg(picture(40 + seed, 100 - seed, seed=seed)) for seed in range(64)]
    wanted = [expected(model, data) for data in pictures]
    assert len({array.tobytes() for array in wanted}) == 64
    bad = [b"x" * 250_000, b"Dear service,\n" * 500] * (10 if strangers else 0)
    start = threading.Barrier(64 + len(bad))

    def one(data: bytes) -> tuple[int, bytes]:
        start.wait()
        return ask(port, data)[:2]

    slow = [slow_client(port) for _ in range(10 if strangers else 0)]
    with ThreadPoolExecutor(64 + len(bad)) as pool:
        answers = list(pool.map(one, [*pictures, *bad]))
    for (status, answer), mask in zip(answers[:64], wanted, strict=True):
        assert status == 200
        assert np.array_equal(decoded(answer), mask)
    assert [status for status, _ in answers[64:]] == [413, 415] * (len(bad) // 2)
    for connection in slow:
        connection.close()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


GOOD = jpeg(picture(60, 80))


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [
        pytest.param(b"", "/mask", 400, id="nothing"),
        pytest.param(GOOD, "/mask?kind=gold", 400, id="another kind"),
        pytest.param(b"Dear service,\n" * 50, "/mask", 415, id="text"),
        pytest.param(bytes(range(256)) * 20, "/mask", 415, id="noise"),
        pytest.param(cv2.imencode(".bmp", picture(9, 9))[1].tobytes(), "/mask", 415, id="another format"),
        pytest.param(GOOD[: len(GOOD) // 2], "/mask", 422, id="half a JPEG"),
        pytest.param(b"x" * 200_001, "/mask", 413, id="too many bytes"),
        pytest.param(bomb(40_000, 40_000), "/mask", 413, id="too many pixels"),
        pytest.param(bomb(1001, 1000), "/mask", 413, id="a pixel row too many"),
        pytest.param(GOOD, "/elsewhere", 404, id="elsewhere"),
    ],
)
def test_refused(port: int, body: bytes, path: str, status: int) -> None:
    found, answer, _ = ask(port, body, path)
    assert found == status, answer
    assert "detail" in json.loads(answer)
    assert ask(port, GOOD)[0] == 200  # and it still serves


def test_too_much_without_a_length_is_cut_off(port: int) -> None:
    """Chunked: nobody says in advance how much it will be."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"x" * 10_000

    with suppress(BrokenPipeError, ConnectionResetError):  # it hangs up while we are still talking
        connection.request("POST", "/mask", endless(), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    connection.close()


def test_a_client_that_sends_everything_before_it_looks_is_told_why(port: int) -> None:
    """Twice what sockets buffer: hung up on at once, it would see a broken pipe and no status."""
    status, answer, headers = ask(port, b"x" * 390_000)
    assert status == 413
    assert json.loads(answer) == {"detail": "at most 200000 bytes"}
    assert headers["connection"] == "close"


def talk(port: int, said: bytes) -> bytes:
    """All that comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(said)
        with suppress(ConnectionResetError):
            return b"".join(iter(lambda: connection.recv(4096), b""))
    return b""


def test_who_asks_before_sending_is_refused_at_once(port: int) -> None:
    """As curl does with large files."""
    head = b"POST /mask HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
    assert talk(port, head).startswith(b"HTTP/1.1 413")  # and no "100 Continue" before


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"mask, please\r\n\r\n"])
def test_what_is_no_http(hasty: int, said: bytes) -> None:
    assert talk(hasty, said).startswith((b"HTTP/1.1 400", b"HTTP/1.1 408"))
    assert ask(hasty, GOOD)[0] == 200


HEAD = b"POST /mask HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"


def slow_client(port: int, first: bytes = HEAD, then: bytes = b"x", *, every: float = 0.1) -> socket.socket:
    """It sends a byte now and then, for half a minute."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(first)

    def drip() -> None:
        with suppress(OSError):
            for _ in range(int(30 / every)):
                connection.sendall(then)
                time.sleep(every)

    threading.Thread(target=drip, daemon=True).start()
    return connection


def ended(connection: socket.socket) -> bytes:
    """What a slow client hears until the server hangs up."""
    heard = b""
    with suppress(ConnectionResetError, BrokenPipeError):
        while piece := connection.recv(4096):
            heard += piece
    return heard


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(HEAD, b"x", id="body"),
        pytest.param(b"POST /mask HTTP/1.1\r\nHost: x\r\nX: ", b"y", id="headers"),
        pytest.param(b"", b"", id="silence"),
        pytest.param(
            b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nPOST /mask", b"y", id="a second request's headers"
        ),
    ],
)
def test_slow_clients_hold_up_nobody_and_are_hung_up_on(hasty: int, first: bytes, then: bytes) -> None:
    slow = [slow_client(hasty, first, then) for _ in range(20)]
    try:
        for _ in range(5):
            assert ask(hasty, GOOD)[0] == 200
        heard = [ended(connection) for connection in slow]  # while they would go on
        assert all(b"HTTP/1.1 408" in answer for answer in heard), heard
    finally:
        for connection in slow:
            connection.close()


def test_who_never_reads_is_hung_up_on(model: Runtime) -> None:
    """Its answer does not fit the buffers on the way, so it would hold its place for good."""
    body = jpeg(np.random.default_rng(0).integers(0, 256, (1000, 1400, 3)).astype(np.uint8))
    head = b"POST /mask?kind=cutout HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    quick = {"head_seconds": 2.5, "answer_seconds": 0.5}
    with serving(model, connections=2, rate=1000, burst=1000, **quick) as port, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.sendall(head + body)
        assert client.recv(12) == b"HTTP/1.1 200"
        assert ask(port, GOOD)[0] == 503  # the other place
        deadline = time.monotonic() + 30
        while (found := ask(port, GOOD)[0]) == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert found == 200


def test_who_keeps_a_connection_busy_is_not_hung_up_on(hasty: int) -> None:
    """Requests one after the other for longer than headers and uploads may take."""
    connection = http.client.HTTPConnection("127.0.0.1", hasty, timeout=30)
    connection.connect()
    first = connection.sock
    for _ in range(6):
        connection.request("POST", "/mask", GOOD)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        time.sleep(0.5)
    assert connection.sock is first
    connection.close()


def test_a_client_that_goes_away_leaves_nothing_behind(port: int) -> None:
    for _ in range(10):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.sendall(b"POST /mask HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\nxx")
        connection.close()
    assert ask(port, GOOD)[0] == 200


def test_too_many_from_one_address(model: Runtime) -> None:
    with serving(model, rate=0.01, burst=3) as port:
        statuses = [ask(port, GOOD) for _ in range(5)]
    assert [status for status, _, _ in statuses] == [200, 200, 200, 429, 429]
    assert 1 <= int(statuses[-1][2]["retry-after"]) <= 100


def test_too_many_in_hand(model: Runtime) -> None:
    with serving(model, waiting=2, upload_seconds=120, rate=1000, burst=1000) as port:
        held = [slow_client(port) for _ in range(2)]
        deadline = time.monotonic() + 60
        while (found := ask(port, GOOD)[0]) == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found == 503
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 60
        while (found := ask(port, GOOD)[0]) == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found == 200


def test_buckets_fill_again_and_forget() -> None:
    buckets = service.Buckets(rate=2, burst=2, room=3)
    assert [buckets.wait("a", now=0.0) for _ in range(3)] == [0, 0, 0.5]
    assert buckets.wait("b", now=0.0) == 0
    assert buckets.wait("a", now=0.5) == 0
    for address in "cdef":
        buckets.wait(address, now=0.5)
    assert [buckets.wait("b", now=0.5), buckets.wait("b", now=0.5)] == [0, 0]  # a stranger again


def test_two_threads_share_a_model(model: Runtime) -> None:
    pictures = [picture(50 + seed, 90 - seed, seed=seed) for seed in range(20)]
    wanted = [model.segment(image).labels for image in pictures]

    def work(_: int) -> bool:
        return all(
            np.array_equal(model.segment(image).labels, mask)
            for _ in range(5)
            for image, mask in zip(pictures, wanted, strict=True)
        )

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(work, range(2)))


def test_the_shipped_model_behind_it(tmp_path: Path) -> None:
    from edge_deeplab.export.sample import SAMPLE

    with open_model("portrait", threads=1) as portrait, serving(portrait) as port:
        data = SAMPLE.read_bytes()
        status, answer, _ = ask(port, data, "/mask?kind=cutout")
    assert status == 200
    assert 0.05 < (decoded(answer)[..., 3] > 127).mean() < 0.95


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nothing.onnx"], "nothing.onnx"),
        (["--workers", "0"], "at least 1"),
        (["--port", "99999"], "is no port"),
    ],
)
def test_mistakes_are_said_in_one_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["embed_service", *arguments])
    try:
        status = service.main()
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
