"""A screen that nobody sees, for windows that are measured: Xvfb, and pictures of what it shows."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_deeplab.errors import UserError

SIZE = "1400x1000x24"


@contextmanager
def virtual_screen() -> Iterator[str]:
    """Gives the name of a fresh screen, ``:3``.

    Raises:
        UserError: Xvfb is not installed, or does not start.
    """
    if shutil.which("Xvfb") is None:
        raise UserError("Xvfb is not installed; cure: apt install xvfb, or name a screen with --display")
    read, write = os.pipe()
    words = ["Xvfb", "-displayfd", str(write), "-screen", "0", SIZE, "-nolisten", "tcp", "-wr"]
    server = subprocess.Popen(words, pass_fds=(write,), stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        if not number:
            raise UserError("Xvfb ended before it gave a screen")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


def screenshot(display: str, path: Path) -> None:
    """What a screen shows, without the empty white part around the window, as a PNG."""
    from PIL import ImageChops, ImageGrab

    picture = ImageGrab.grab(xdisplay=display)
    picture.crop(ImageChops.invert(picture).getbbox()).save(path)
