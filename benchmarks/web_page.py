"""The browser demo's page from Python: pixels in and out, and what it makes of a camera's frames."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.imaging import Floats, Frame, Labels, alpha_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime

HELPERS = """
window.unpack = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
window.pack = (array) => {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = '';
  for (let at = 0; at < bytes.length; at += 32768) {
    text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  }
  return btoa(text);
};
window.bitmapOf = ({ width, height, bytes }) => {
  const data = new ImageData(new Uint8ClampedArray(unpack(bytes).buffer), width, height);
  return createImageBitmap(data, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
};
"""
"""Ways for pixels in and out; to be put into a page before its own scripts."""


def packed(array: NDArray[Any]) -> str:
    """An array's bytes for a message to the browser."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def unpacked(text: str, dtype: Any = np.uint8) -> NDArray[Any]:
    """The other way round; flat."""
    return np.frombuffer(base64.b64decode(text), dtype)


def open_bare(page: Any, address: str) -> None:
    """Open the demo without what it does by itself: its modules are there to be imported."""
    page.route("**/main.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.goto(address)


# -- a camera's frames ---------------------------------------------------------------------------

OPEN_CAMERA = """
async ({ url, backend, threads, quality }) => {
  const { BrowserEngine, threadsHere } = await import('/engines.js');
  const { openCamera } = await import('/sources.js');
  const { Compositor } = await import('/compositor.js');
  const count = threads ?? threadsHere();
  const engine = await BrowserEngine.open({ url, headers: {}, backend, threads: count });
  const compositor = new Compositor(new OffscreenCanvas(1, 1));
  const camera = await openCamera({ deviceId: null, height: 480, onEnded: () => {} });
  engine.restart(quality);
  window.live = { engine, compositor, camera };
}
"""

NEXT_FRAME = """
async () => {
  const { engine, compositor, camera } = live;
  const at = performance.now();
  const bitmap = await camera.grab();
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const seen = context.getImageData(0, 0, width, height).data;
  const held = compositor.hold(bitmap);
  const { matte, times } = await engine.segment(bitmap, at);
  compositor.show(held, matte);
  compositor.draw({ effect: 'mask', beside: false, mirror: false, blur: 1 });
  context.drawImage(compositor.canvas, 0, 0);
  const shown = context.getImageData(0, 0, width, height).data;
  return { width, height, seen: pack(seen), alpha: pack(shown.filter((_, i) => i % 4 === 0)), at, times };
}
"""

CLOSE_CAMERA = "() => { live.camera.stop(); live.engine.close(); }"


@dataclass(frozen=True)
class Seen:
    """One frame of the camera, and the alpha that the page shows for it.

    Attributes:
        frame: BGR.
        alpha: 8 bits, (H, W).
        at: When it was taken, seconds.
        times: Milliseconds of ``prepare``, ``network`` and ``finish``, in the page's worker.
    """

    frame: Frame
    alpha: Labels
    at: float
    times: dict[str, float]


@contextmanager
def camera_frames(
    page: Any, url: str, *, smooth: bool, refine: bool, backend: str = "wasm", threads: int | None = None
) -> Iterator[Iterator[Seen]]:
    """Frames of the browser's camera through the page's own engine and compositor, without end.

    Args:
        page: Shows the demo, see :func:`open_bare`; may use the camera.
        url: Of the model.
        smooth, refine: What is made of the network's answers.
        backend: ``wasm`` or ``webgpu``.
        threads: Of WASM; default: as the page chooses.
    """

    def frames() -> Iterator[Seen]:
        while True:
            said = page.evaluate(NEXT_FRAME)
            shape = said["height"], said["width"]
            rgba = unpacked(said["seen"]).reshape(*shape, 4)
            yield Seen(
                np.ascontiguousarray(rgba[..., 2::-1]),
                unpacked(said["alpha"]).reshape(shape),
                said["at"] / 1000,
                said["times"],
            )

    quality = {"smooth": smooth, "refine": refine}
    page.evaluate(OPEN_CAMERA, {"url": url, "backend": backend, "threads": threads, "quality": quality})
    try:
        yield frames()
    finally:
        page.evaluate(CLOSE_CAMERA)


class Python:
    """What Python makes of the same frames."""

    def __init__(self, model: Runtime, *, smooth: bool, refine: bool) -> None:
        self.model = model
        self.matte = Matte(smooth=smooth, refine=refine) if smooth or refine else None
        self.last = 0.0

    def alpha(self, seen: Seen) -> Labels:
        """8 bits, (H, W); 128 and more is foreground."""
        result = self.model.segment(seen.frame)
        if self.matte is None:
            return np.where(result.labels > 0, 255, 0).astype(np.uint8)
        seconds, self.last = seen.at - self.last, seen.at
        soft: Floats = self.matte.update(seen.frame, result.logits, seconds)
        return alpha_image(soft)


def agreement(
    page: Any, url: str, model: Runtime, count: int, *, smooth: bool, refine: bool
) -> tuple[list[float], list[Seen]]:
    """Share of the pixels, per frame of the camera, that the page and Python give the same class.

    Args:
        page: As for :func:`camera_frames`.
        url: Of the model, for the page.
        model: The same one, for Python.
        count: Frames.
        smooth, refine: What is made of the network's answers, here and there.

    Returns:
        The shares, and the frames.
    """
    python = Python(model, smooth=smooth, refine=refine)
    shares, frames = [], []
    with camera_frames(page, url, smooth=smooth, refine=refine) as camera:
        for seen, _ in zip(camera, range(count), strict=False):
            expected = python.alpha(seen)
            shares.append(float(((seen.alpha >= 128) == (expected >= 128)).mean()))
            frames.append(seen)
    return shares, frames
