"""What the web demo's tests share: a served page, pictures in and out of a browser, films for a camera."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import Frame, Labels

if TYPE_CHECKING:
    from edge_deeplab.demos.web.app import Site

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "benchmarks"))  # whose camera these tests use, too

from web_page import packed, unpacked  # noqa: E402  isort: skip

SHARED_VIDEOS = ROOT.parent / "shared" / "video"


@contextmanager
def served(site: Site, *, port: int = 0, **https: str) -> Iterator[str]:
    """The real server in a thread; gives its address. ``certificate`` and ``key`` make it https."""
    from edge_deeplab.demos.web.app import server

    listening = socket.create_server(("127.0.0.1", port))
    running = server(site, **https)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"{'https' if https else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command = [openssl, *how.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


# -- frames --------------------------------------------------------------------------------------


def clips() -> list[Path]:
    """Films of people, where this machine has them beside the checkout."""
    return sorted(SHARED_VIDEOS.glob("*.mkv"))


# -- to and from the browser ---------------------------------------------------------------------


def rgba(frame: Frame) -> dict[str, Any]:
    """A BGR frame as the page's own modules take it."""
    pixels = cv2.cvtColor(frame, cv2.COLOR_BGR2RGBA)
    return {"width": frame.shape[1], "height": frame.shape[0], "bytes": packed(pixels)}


SEGMENT = """
async ({ open, quality, effect, frames }) => {
  const { BrowserEngine, ServerEngine } = await import('/engines.js');
  const { Compositor } = await import('/compositor.js');
  const { paintBackdrop } = await import('/backdrops.js');
  const engine = await (open.backend === 'server' ? ServerEngine : BrowserEngine).open(open);
  const compositor = new Compositor(new OffscreenCanvas(1, 1));
  const look = { effect, beside: false, mirror: false, blur: 1, backdrop: paintBackdrop('#40b000') };
  engine.restart(quality);
  const answers = [];
  for (const [index, frame] of frames.entries()) {
    const bitmap = await bitmapOf(frame);
    const held = compositor.hold(bitmap);
    const { matte, times } = await engine.segment(bitmap, (1000 * index) / 30);
    compositor.show(held, matte);
    compositor.draw(look);
    const context = new OffscreenCanvas(frame.width, frame.height).getContext('2d');
    context.drawImage(compositor.canvas, 0, 0);
    answers.push({ shown: pack(context.getImageData(0, 0, frame.width, frame.height).data), times });
  }
  engine.close();
  return { answers, contract: engine.contract, title: engine.title };
}
"""


def shown_by(
    page: Any,
    frames: Sequence[Frame],
    *,
    effect: str = "mask",
    smooth: bool = False,
    refine: bool = False,
    **options: Any,
) -> list[Frame]:
    """Frames through the page's own engine and compositor, in the browser.

    Args:
        page: A Playwright page that shows the demo.
        frames: BGR, one stream at 30 a second.
        effect: One of the page's modes; a mask shows its alpha in every channel.
        smooth, refine: What is made of the network's answers.
        **options: As the engine's ``open`` takes them: ``url``, ``backend``, ``threads`` or ``token``.

    Returns:
        What is on the canvas, BGR.
    """
    message = {
        "open": {"headers": {}, **options},
        "quality": {"smooth": smooth, "refine": refine},
        "effect": effect,
        "frames": [rgba(frame) for frame in frames],
    }
    answers = page.evaluate(SEGMENT, message)["answers"]
    return [
        np.ascontiguousarray(unpacked(answer["shown"]).reshape(*frame.shape[:2], 4)[..., 2::-1])
        for answer, frame in zip(answers, frames, strict=True)
    ]


def alphas(page: Any, frames: Sequence[Frame], **options: Any) -> list[Labels]:
    """The same for the mask alone: 8-bit alpha, (H, W)."""
    return [shown[..., 0] for shown in shown_by(page, frames, **options)]
