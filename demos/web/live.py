"""Frames over a WebSocket to a Python runtime, masks back.

The page sends binary messages: a frame number (uint32, little-endian), then a JPEG. It gets:

- first, as text, ``{"type": "hello", "contract": JSON, "title": …}``;
- per frame, binary: the number, milliseconds of preprocess, inference and postprocess (three float32,
  little-endian), then a PNG at the frame's size, class ids in its red and 8-bit opacity in its green channel;
- ``{"type": "dropped", "ids": […]}`` for frames whose place a newer one took;
- ``{"type": "refused", "id": …, "why": …}`` for a frame that is no JPEG or too large.
"""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass, field

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import decode_image, encode_image
from edge_deeplab.runtimes import Runtime

PROTOCOL = "edge-deeplab.1"

MOST_BYTES = 4 * 2**20
"""Of one message; the server closes the connection on a longer one (code 1009)."""

MOST_PIXELS = 3840 * 2160

MOST_CLIENTS = 4
"""At a time. They share one runtime, so more would only make each other slow."""

BAD_DATA, TRY_AGAIN_LATER = 1003, 1013
"""WebSocket close codes (RFC 6455, 7.4)."""


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
        await self.filled.wait()
        self.filled.clear()
        assert self.message is not None  # noqa: S101  `filled` says so
        message, dropped = self.message, self.dropped
        self.message, self.dropped = None, []
        return message, dropped


class Live:
    """One runtime, shared by all connections."""

    def __init__(self, model: Runtime) -> None:
        self.model = model
        self.clients = 0
        details = ", ".join(f"{key} {value}" for key, value in model.describe().items())
        self.title = f"Server: {model.title}" + (f" ({details})" if details else "")

    async def serve(self, socket: WebSocket) -> None:
        """Answer one page until it leaves; the caller has checked where it comes from."""
        await socket.accept(subprotocol=PROTOCOL)
        if self.clients >= MOST_CLIENTS:
            await socket.close(
                TRY_AGAIN_LATER, f"{MOST_CLIENTS} pages use this server already; try again later."
            )
            return
        self.clients += 1
        mailbox = Mailbox()
        answering = asyncio.create_task(self._answer(socket, mailbox))
        try:
            await socket.send_text(
                json.dumps({"type": "hello", "contract": self.model.contract.to_json(), "title": self.title})
            )
            await self._receive(socket, mailbox)
        except WebSocketDisconnect:
            pass
        finally:
            self.clients -= 1
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _receive(self, socket: WebSocket, mailbox: Mailbox) -> None:
        while True:
            event = await socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            message = event.get("bytes")
            if message is None or len(message) <= 4:
                await socket.close(BAD_DATA, "A message must be a frame number and a JPEG.")
                return
            mailbox.put(message)

    async def _answer(self, socket: WebSocket, mailbox: Mailbox) -> None:
        while True:
            message, dropped = await mailbox.take()
            if dropped:
                await socket.send_text(json.dumps({"type": "dropped", "ids": dropped}))
            try:
                answer = await asyncio.to_thread(self.segment, message)
            except UserError as error:
                refusal = {"type": "refused", "id": frame_number(message), "why": str(error)}
                await socket.send_text(json.dumps(refusal))
            else:
                await socket.send_bytes(answer)

    def segment(self, message: bytes) -> bytes:
        """One frame's message -> its answer.

        Raises:
            UserError: It is no JPEG, cut short or too large.
        """
        jpeg = message[4:]
        height, width = jpeg_size(jpeg)
        if height * width > MOST_PIXELS:
            raise UserError(f"The frame has {width}x{height} pixels; {MOST_PIXELS} is the most.")
        result = self.model.segment(decode_image(jpeg, "the frame"))
        picture = np.dstack([np.zeros_like(result.labels), result.alpha, result.labels])  # BGR
        times = struct.pack("<3f", result.times.preprocess, result.times.inference, result.times.postprocess)
        return message[:4] + times + encode_image("masks.png", picture, fast=True)


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
