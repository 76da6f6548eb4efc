"""A window to show frames in: Tk's, or OpenCV's where Python came without Tk.

``opencv-python-headless``, which this package installs, has no windows, and ``opencv-python`` cannot be
installed beside it. Tk comes with Python, so nobody has to exchange packages to see a picture; it also
looks the same everywhere, while OpenCV's windows under Qt come with a row of buttons.
"""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import cv2

from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame

ESCAPE = "\x1b"


class Window(ABC):
    """Shows pictures and tells which keys were pressed.

    Attributes:
        open: False once the viewer has closed it.
    """

    open = True

    @abstractmethod
    def show(self, picture: Frame) -> None:
        """Put a picture, BGR uint8 (H, W, 3), on the screen."""

    @abstractmethod
    def key(self) -> str:
        """The key pressed since the last call, lower case; "" for none. Keeps the window alive."""

    @abstractmethod
    def close(self) -> None:
        """Take it away."""


class TkWindow(Window):
    """Tk's, from the standard library.

    Raises:
        ImportError: Python came without Tk.
        UserError: There is no screen.
    """

    def __init__(self, title: str) -> None:
        import tkinter

        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise UserError(f"no window: {error}; use --headless where there is no screen") from error
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self._closed)
        self._root.bind("<Key>", self._pressed)
        self._photo = tkinter.PhotoImage(master=self._root)
        self._label = tkinter.Label(self._root, image=self._photo, borderwidth=0, background="black")
        self._label.pack(expand=True, fill="both")
        self._keys: list[str] = []
        self._shape = (0, 0)

    def show(self, picture: Frame) -> None:
        """See :class:`Window`."""
        if not (self.open and self._sized(picture)):
            return
        room = self._label.winfo_width(), self._label.winfo_height()
        factor = min(room[0] / picture.shape[1], room[1] / picture.shape[0])
        if factor != 1 and min(room) > 1:
            size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
            how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
            picture = cv2.resize(picture, size, interpolation=how)  # type: ignore[assignment]
        self._photo.configure(data=_ppm(picture), format="ppm")
        self._root.update_idletasks()

    def key(self) -> str:
        """See :class:`Window`."""
        if self.open:
            self._root.update()
        return self._keys.pop(0) if self._keys else ""

    def close(self) -> None:
        """See :class:`Window`."""
        if self.open:
            self._closed()

    def _sized(self, picture: Frame) -> bool:
        """Give the window a new picture's size; False if it was closed meanwhile."""
        if picture.shape[:2] != self._shape:
            self._root.geometry("{}x{}".format(*_fitting(picture)))
            self._root.update()
            self._shape = picture.shape[:2]
        return self.open

    def _pressed(self, event: Any) -> None:
        if event.char:
            self._keys.append(event.char.lower())

    def _closed(self) -> None:
        self.open = False
        self._root.destroy()


class OpenCvWindow(Window):
    """OpenCV's own, with Qt, GTK, Cocoa or Windows behind it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._shape = (0, 0)
        # Qt complains about missing fonts on every start; we write our text ourselves.
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
        # Not WINDOW_GUI_NORMAL: without its toolbar Qt's window stays black now and then (OpenCV 5.0).
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(self, picture: Frame) -> None:
        """See :class:`Window`."""
        if picture.shape[:2] != self._shape:
            cv2.resizeWindow(self._title, *_fitting(picture))
            self._shape = picture.shape[:2]
        cv2.imshow(self._title, picture)

    def key(self) -> str:
        """See :class:`Window`."""
        code = cv2.pollKey() & 0xFF
        self.open = self.open and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        return "" if code == 0xFF else chr(code).lower()

    def close(self) -> None:
        """See :class:`Window`."""
        if self.open:
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)


def open_window(title: str, kind: str | None = None) -> Window:
    """The best window this computer has.

    Args:
        title: Above the picture.
        kind: ``tk`` or ``opencv`` and no other; None for the first of them that works.

    Raises:
        UserError: There is none.
    """
    for name, opener in OPENERS.items():
        if kind in (None, name) and (window := opener(title)) is not None:
            return window
    raise UserError(NONE[kind])


def _tk(title: str) -> Window | None:
    try:
        return TkWindow(title)
    except ImportError:
        return None


def _opencv(title: str) -> Window | None:
    return OpenCvWindow(title) if _opencv_has_windows() else None


OPENERS: dict[str, Callable[[str], Window | None]] = {"tk": _tk, "opencv": _opencv}
"""Best first; None where this Python or OpenCV came without windows."""

_OPENCV = "this OpenCV has no windows or finds no screen"
_EXCHANGE = "exchange opencv-python-headless for opencv-python"
NONE = {
    None: f"no window: Python came without Tk, and {_OPENCV}; cure: install python3-tk, or {_EXCHANGE}, or "
    "use --headless",
    "tk": "no window: Python came without Tk; cure: install it, leave out --window, or use --headless",
    "opencv": f"no window: {_OPENCV}; cure: {_EXCHANGE}, or leave out --window, or use --headless",
}
"""What to do when no window of a kind could be opened."""


def _opencv_has_windows() -> bool:
    try:
        if not cv2.currentUIFramework():
            return False
    except (AttributeError, cv2.error):
        return False
    if not sys.platform.startswith("linux"):
        return True
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    # Qt ends the whole process when it cannot reach the screen. Let another process try.
    probe = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"
    done = subprocess.run([sys.executable, "-c", probe], check=False, capture_output=True, timeout=60)
    return done.returncode == 0


def _fitting(picture: Frame) -> tuple[int, int]:
    """Width and height that most screens have room for."""
    height, width = picture.shape[:2]
    factor = min(1.0, 1280 / width, 800 / height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _ppm(picture: Frame) -> bytes:
    """BGR uint8 (H, W, 3) -> a PPM file, which Tk reads by itself and fast."""
    height, width = picture.shape[:2]
    return b"P6 %d %d 255\n" % (width, height) + cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).tobytes()
