"""Frames over a WebSocket to a Python runtime, alpha back.

The page sends, as text, ``{"type": "restart", "smooth": bool, "refine": bool}`` before the first frame of a
stream (see :class:`~edge_deeplab.matte.Matte`), and as binary frames: a number (uint32), the time in
milliseconds at which it was taken (float64), both little-endian, then a JPEG. It gets:

- first, as text, ``{"type": "hello", "contract": JSON, "title": …, "most": {"bytes": …, "pixels": …}}``;
- per frame, binary: the number, milliseconds of preprocess, inference and postprocess (three float32,
  little-endian), then a gray PNG at the frame's size, the alpha;
- ``{"type": "dropped", "ids": […]}`` for frames whose place a newer one took;
- ``{"type": "refused", "id": …, "why": …}`` for a frame that is no JPEG or too large.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from dataclasses import dataclass, field

from starlette.websockets import WebSocket, WebSocketDisconnect

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import alpha_image, decode_image, encode_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime

PROTOCOL = "edge-deeplab.1"

MOST_BYTES = 4 * 2**20
"""Of one message; the server closes the connection on a longer one (code 1009)."""

MOST_PIXELS = 3840 * 2160

MOST_CLIENTS = 4
"""At a time. They share one runtime, so more would only make each other slow."""

BAD_DATA, TRY_AGAIN_LATER = 1003, 1013
"""WebSocket close codes (RFC 6455, 7.4)."""

HEADER = struct.Struct("<Id")
TIMES = struct.Struct("<I3f")


@dataclass
class Mailbox:
    """Holds the newest frame only: a slow model never builds up a queue."""

    message: bytes | None = None
    dropped: list[int] = field(default_factory=list)
    filled: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, message: bytes) -> None:
        """Leave a frame in place of the one that lies there, if any."""
        if self.message is not None:
            self.dropped.append(frame_number(self.message))
        self.message = message
        self.filled.set()

    async def take(self) -> tuple[bytes, list[int]]:
        """The newest frame, and the numbers of those it took the place of."""
        while self.message is None:
            await self.filled.wait()
            self.filled.clear()
        message, dropped = self.message, self.dropped
        self.message, self.dropped = None, []
        return message, dropped


class Stream:
    """The frames of one page, one after the other."""

    def __init__(self, model: Runtime, *, smooth: bool = True, refine: bool = True) -> None:
        self.model = model
        self.matte = Matte(smooth=smooth, refine=refine)
        self.last = 0.0

    def answer(self, message: bytes) -> bytes:
        """One frame's message -> what is sent back.

        Raises:
            UserError: It is no JPEG, cut short or too large.
        """
        number, milliseconds = HEADER.unpack_from(message)
        jpeg = message[HEADER.size :]
        height, width = jpeg_size(jpeg)
        if height * width > MOST_PIXELS:
            raise UserError(f"The frame has {width}x{height} pixels; {MOST_PIXELS} is the most.")
        frame = decode_image(jpeg, "the frame")
        result = self.model.segment(frame)
        begin = time.perf_counter()
        seconds, self.last = max(0.0, (milliseconds - self.last) / 1000), milliseconds
        alpha = alpha_image(self.matte.update(frame, result.logits, seconds))
        after = result.times.postprocess + 1000 * (time.perf_counter() - begin)
        times = TIMES.pack(number, result.times.preprocess, result.times.inference, after)
        return times + encode_image("alpha.png", alpha, fast=True)


class Live:
    """One runtime, shared by all connections."""

    def __init__(self, model: Runtime) -> None:
        self.model = model
        self.clients = 0
        self.title = f"server: {model.title}"
        self.details = ", ".join(f"{key} {value}" for key, value in model.describe().items())

    async def serve(self, socket: WebSocket) -> None:
        """Answer one page until it leaves; the caller has checked where it comes from."""
        await socket.accept(subprotocol=PROTOCOL)
        if self.clients >= MOST_CLIENTS:
            await socket.close(
                TRY_AGAIN_LATER, f"{MOST_CLIENTS} pages use this server already; try again later."
            )
            return
        self.clients += 1
        connection = Connection(self.model, socket)
        tasks = {asyncio.ensure_future(work) for work in (connection.receive(), connection.answer())}
        try:
            hello = {
                "type": "hello",
                "contract": self.model.contract.to_json(),
                "title": f"{self.title} ({self.details})",
                "most": {"bytes": MOST_BYTES, "pixels": MOST_PIXELS},
            }
            await socket.send_text(json.dumps(hello))
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        except WebSocketDisconnect:
            pass
        finally:
            self.clients -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Connection:
    """One page: what comes in, and what goes out."""

    def __init__(self, model: Runtime, socket: WebSocket) -> None:
        self.model, self.socket = model, socket
        self.mailbox = Mailbox()
        self.stream = Stream(model)

    async def receive(self) -> None:
        """Take in messages until the page leaves or sends nonsense."""
        while True:
            event = await self.socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            frame, text = event.get("bytes"), event.get("text")
            if frame is not None and len(frame) > HEADER.size:
                self.mailbox.put(frame)
            elif not (text and self._restart(text)):
                await self.socket.close(BAD_DATA, "A message must be a frame or a restart.")
                return

    def _restart(self, text: str) -> bool:
        try:
            message = json.loads(text)
            if message["type"] != "restart":
                return False
            smooth, refine = bool(message["smooth"]), bool(message["refine"])
        except (ValueError, KeyError, TypeError):
            return False
        self.stream = Stream(self.model, smooth=smooth, refine=refine)
        return True

    async def answer(self) -> None:
        """Work on the newest frame, again and again."""
        while True:
            message, dropped = await self.mailbox.take()
            if dropped:
                await self.socket.send_text(json.dumps({"type": "dropped", "ids": dropped}))
            try:
                answer = await asyncio.to_thread(self.stream.answer, message)
            except UserError as error:
                refusal = {"type": "refused", "id": frame_number(message), "why": str(error)}
                await self.socket.send_text(json.dumps(refusal))
            else:
                await self.socket.send_bytes(answer)


def frame_number(message: bytes) -> int:
    """The number a message begins with."""
    return int.from_bytes(message[:4], "little")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width in a JPEG's header, so that a small file cannot ask for gigabytes of pixels.

    Raises:
        UserError: It is no JPEG.
    """
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        # SOF0 to SOF15 are frame headers, but for DHT, JPG and DAC among them.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise UserError("The frame is not a JPEG.")
