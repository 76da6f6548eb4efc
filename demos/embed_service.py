"""A service: picture in, mask out, over HTTP. One model, any number of clients, limits on all of it.

    pip install 'edge-deeplab[service]'
    python -m edge_deeplab.demos.embed_service --model portrait
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/mask?kind=cutout' > cutout.png

``GET /health`` answers at once, however busy the model is. Refusals are JSON, ``{"detail": "..."}``:

| status | when |
|---|---|
| 400 | no body, or another ``kind`` |
| 408 | head or body of a request took longer than allowed |
| 413 | more bytes or more pixels than allowed |
| 415 | no JPEG, PNG or WebP |
| 422 | a picture, but a damaged one |
| 429 | more requests from one address than allowed; ``Retry-After`` says when to come back |
| 503 | more requests in hand, or more connections, than allowed |

Who does not read what was answered is hung up on.

It listens on this computer only unless told otherwise. Towards the internet put a reverse proxy in front
on the same computer for TLS; it must send ``X-Forwarded-For``, or all clients share one rate.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import cv2
import numpy as np

from edge_deeplab.cli.arguments import port, positive
from edge_deeplab.composite import cut_out
from edge_deeplab.errors import UserError, needs
from edge_deeplab.imaging import Frame, decode_image, encode_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime, Segmentation, open_model

with needs("service"):
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request, Response
    from PIL import Image
    from starlette.requests import ClientDisconnect
    from uvicorn.protocols.http.h11_impl import H11Protocol

FORMATS = {"JPEG", "PNG", "WEBP"}

RESULTS: dict[str, Callable[[Frame, Segmentation], Frame]] = {
    "mask": lambda _, result: result.labels,
    "alpha": lambda frame, result: np.rint(255 * Matte().update(frame, result.logits)).astype(np.uint8),
    "cutout": lambda frame, result: cut_out(frame, Matte().update(frame, result.logits)),
}
"""What can be asked for: class ids, refined alpha in 0..255, or the picture with that alpha. All as PNG."""


@dataclass(frozen=True)
class Limits:
    """What one client, and all together, may ask for.

    Attributes:
        bytes: Of one upload.
        pixels: Of one picture, known from its head before it is unpacked.
        head_seconds: From a connection, or the answer before, to the end of a request's headers.
        upload_seconds: From there to the last byte.
        answer_seconds: For a client to take its answer, beyond ``head_seconds``.
        rate, burst: Requests a second from one address, and how many may come at once.
        connections: Open at the same time, all clients together.
        waiting: Requests in hand; times ``bytes`` it is the memory that uploads can take.
        workers: Pictures worked on at the same time.
    """

    bytes: int = 10 << 20
    pixels: int = 24_000_000
    head_seconds: float = 10.0
    upload_seconds: float = 10.0
    answer_seconds: float = 20.0
    rate: float = 20.0
    burst: int = 100
    connections: int = 512
    waiting: int = 128
    workers: int = 2


class Buckets:
    """A token bucket per address; the addresses not seen for longest are forgotten.

    Args:
        rate, burst: See :class:`Limits`.
        room: Addresses remembered.
    """

    def __init__(self, rate: float, burst: int, room: int = 10_000) -> None:
        self._rate, self._burst, self._room = rate, burst, room
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str, now: float | None = None) -> float:
        """Take a token; 0 if there was one, else the seconds until there is."""
        now = time.monotonic() if now is None else now
        tokens, then = self._buckets.pop(address, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - then) * self._rate)
        missing = 1 - tokens
        self._buckets[address] = (tokens if missing > 0 else tokens - 1, now)
        if len(self._buckets) > self._room:
            self._buckets.popitem(last=False)
        return max(0.0, missing / self._rate)


def create_app(model: Runtime, limits: Limits | None = None) -> FastAPI:
    """The service around an opened model, which stays the caller's to close."""
    limits = limits or Limits()
    pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="segment")
    buckets = Buckets(limits.rate, limits.burst)
    in_hand = 0

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        pool.shutdown()

    app = FastAPI(title="edge-deeplab", docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, str | int]:
        return {"model": model.contract.name, "runtime": model.title, "in_hand": in_hand}

    @app.post("/mask")
    async def mask(request: Request, kind: str = "mask") -> Response:
        nonlocal in_hand
        if kind not in RESULTS:
            raise refusal(400, f"kind must be one of {', '.join(RESULTS)}")
        wait = buckets.wait(request.client.host if request.client else "")
        if wait:
            raise refusal(429, "too many requests from this address", retry_after=wait)
        if in_hand >= limits.waiting:
            raise refusal(503, "busy", retry_after=1)
        in_hand += 1
        try:
            data = await _upload(request, limits)
            loop = asyncio.get_running_loop()
            picture, result = await loop.run_in_executor(pool, _segment, model, data, kind, limits)
        finally:
            in_hand -= 1
        times = result.times
        timing = ", ".join(
            f"{stage};dur={getattr(times, stage):.2f}" for stage in ("preprocess", "inference", "postprocess")
        )
        return Response(picture, media_type="image/png", headers={"Server-Timing": timing})

    return app


def refusal(status: int, reason: str, *, retry_after: float = 0) -> HTTPException:
    """An answer that ends the connection: what is left of the upload is not waited for."""
    headers = {"Connection": "close"}
    if retry_after:
        headers["Retry-After"] = str(math.ceil(retry_after))
    return HTTPException(status, reason, headers)


async def _upload(request: Request, limits: Limits) -> bytes:
    """The body, as long as it keeps within size and time."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.bytes:
        if "expect" not in request.headers:  # who expects "100 Continue" has not sent anything yet
            await _listen_a_little(request, limits)
        raise refusal(413, f"at most {limits.bytes} bytes")

    async def read() -> bytes:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > limits.bytes:
                break
        return bytes(data)

    try:
        data = await asyncio.wait_for(read(), limits.upload_seconds)
    except asyncio.TimeoutError as error:  # TimeoutError itself is another class in Python 3.10
        raise refusal(408, f"the upload took longer than {limits.upload_seconds:g} s") from error
    except ClientDisconnect as error:
        raise refusal(400, "the upload was broken off") from error
    if len(data) > limits.bytes:
        await _listen_a_little(request, limits)
        raise refusal(413, f"at most {limits.bytes} bytes")
    if not data:
        raise refusal(400, "no picture: send it as the request's body")
    return data


async def _listen_a_little(request: Request, limits: Limits) -> None:
    """Throw away what still comes, for a second and as many bytes as are allowed.

    Many clients send everything before they look for an answer; hung up on, they never see why.
    """

    async def discard() -> None:
        left = limits.bytes
        while left > 0:
            message = await request.receive()
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(discard(), 1)


def _segment(model: Runtime, data: bytes, kind: str, limits: Limits) -> tuple[bytes, Segmentation]:
    """In a thread of the pool: the model may be shared, everything else is this request's own."""
    _check_head(data, limits)
    try:
        frame = decode_image(data)
    except UserError as error:
        raise refusal(422, str(error)) from error
    result = model.segment(frame)
    return encode_image("result.png", RESULTS[kind](frame, result), fast=True), result


def _check_head(data: bytes, limits: Limits) -> None:
    """Format and size, from the first bytes: a small file can unpack to many gigabytes."""
    try:
        with Image.open(io.BytesIO(data), formats=sorted(FORMATS)) as picture:
            width, height = picture.size
    except Image.DecompressionBombError as error:
        raise refusal(413, f"at most {limits.pixels} pixels") from error
    except Exception as error:  # whatever Pillow finds wrong with garbage
        raise refusal(415, "no JPEG, PNG or WebP") from error
    if width * height > limits.pixels:
        raise refusal(413, f"at most {limits.pixels} pixels, not {width}x{height}")


class Punctual(H11Protocol):
    """uvicorn's HTTP/1.1, which by itself waits as long as clients like, for headers and to be read."""

    head_seconds: float
    answer_seconds: float

    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: its first request is due."""
        super().connection_made(transport)
        self._expect_another_than(None)

    def on_response_complete(self) -> None:
        """A request was answered: the next one is due."""
        answered = self.cycle
        super().on_response_complete()
        self._expect_another_than(answered)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went away."""
        super().connection_lost(exc)
        if self._alarm:
            self._alarm.cancel()

    def _expect_another_than(self, request: object) -> None:
        if self._alarm:
            self._alarm.cancel()
        self._alarm = self.loop.call_later(self.head_seconds, self._hang_up_after, request)

    def _hang_up_after(self, request: object) -> None:
        if self.cycle is not request:
            return
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
            self.transport.close()
        # Closed is not gone: what was answered is kept until the client has read it, which it may never do.
        self._alarm = self.loop.call_later(self.answer_seconds, self.transport.abort)


def create_server(
    app: FastAPI, limits: Limits, *, host: str = "127.0.0.1", port: int = 8000, log_level: str = "info"
) -> uvicorn.Server:
    """uvicorn as this service wants it: no WebSockets, clients on the clock, a bound on connections."""
    times = {"head_seconds": limits.head_seconds, "answer_seconds": limits.answer_seconds}
    protocol = type("Punctual", (Punctual,), times)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=protocol,
            ws="none",
            limit_concurrency=limits.connections,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
            log_level=log_level,
        )
    )


def main() -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="picture in, mask out, over HTTP")
    parser.add_argument("--model", default="portrait", help="a shipped name or an artefact")
    parser.add_argument("--host", default="127.0.0.1", help="default: this computer only")
    parser.add_argument("--port", type=port, default=8000, help="default: 8000")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of one inference")
    parser.add_argument("--workers", type=positive, default=Limits.workers, help="pictures at the same time")
    args = parser.parse_args()
    cv2.setNumThreads(1)  # the pool is what runs side by side
    limits = Limits(workers=args.workers)
    try:
        with open_model(args.model, threads=args.threads) as model:
            app = create_app(model.warmup(), limits)
            create_server(app, limits, host=args.host, port=args.port).run()
    except UserError as error:
        print(f"embed_service: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
