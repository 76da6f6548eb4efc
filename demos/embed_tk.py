"""A small desktop program with Tk: open a photo, blur or replace its background, save it.

    python -m edge_deeplab.demos.embed_tk photo.jpg

Tk comes with Python. What matters for any toolkit (Qt, GTK, wx): the model runs in a thread of its own,
and only the main thread touches widgets; here a queue and ``after`` carry the result across.
"""

from __future__ import annotations

import queue
import sys
import threading
import tkinter
from tkinter import filedialog, ttk

import cv2

from edge_deeplab.composite import cut_out
from edge_deeplab.demos.options import MODES
from edge_deeplab.demos.views import View, open_background
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Floats, Frame, read_image, write_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime, open_model

ROOM = (900, 600)
"""Width and height that pictures are shown in."""


class Desktop:
    """The program's one window.

    Args:
        root: Tk's top window.
        model: Opened; used by the program's own thread only.
    """

    def __init__(self, root: tkinter.Tk, model: Runtime) -> None:
        self.root = root
        self.message = tkinter.StringVar(root, "open a picture")
        self.mode = tkinter.StringVar(root, "blur")
        self.result: Frame | None = None
        self._model = model
        self._view = View("blur", open_background("sky"))
        self._wanted: queue.Queue[str | None] = queue.Queue()
        self._answers: queue.Queue[tuple[Frame, Floats] | Exception] = queue.Queue()
        self._frame: Frame | None = None
        self._alpha: Floats | None = None
        self._photo = tkinter.PhotoImage(master=root, width=ROOM[0], height=ROOM[1])
        self._build()
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()
        self._poll()

    def open(self, path: str) -> None:
        """Segment a picture in the background, then show it."""
        self.message.set("working ...")
        self._wanted.put(path)

    def save(self, path: str) -> None:
        """Write what is shown; a cut-out without the squares behind it."""
        if self._frame is None or self._alpha is None or self.result is None or not path:
            return
        transparent = self._view.mode == "cutout" and path.lower().endswith((".png", ".webp"))
        try:
            write_image(path, cut_out(self._frame, self._alpha) if transparent else self.result)
            self.message.set(f"saved {path}")
        except UserError as error:
            self.message.set(str(error))

    def close(self) -> None:
        """End the thread and take the window away."""
        self._wanted.put(None)
        self._worker.join()
        self.root.destroy()

    # -- the model's thread --------------------------------------------------------------------

    def _work(self) -> None:
        while (path := self._wanted.get()) is not None:
            try:
                frame = read_image(path)
                alpha = Matte().update(frame, self._model.segment(frame).logits)
                self._answers.put((frame, alpha))
            except Exception as error:  # noqa: BLE001 (for the window to say; this thread must go on)
                self._answers.put(error)

    # -- the main thread -----------------------------------------------------------------------

    def _build(self) -> None:
        self.root.title("edge-deeplab")
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        bar = ttk.Frame(self.root, padding=6)
        bar.pack(fill="x")
        ttk.Button(bar, text="Open ...", command=self._ask_open).pack(side="left")
        ttk.Button(bar, text="Save ...", command=self._ask_save).pack(side="left", padx=6)
        box = ttk.Combobox(bar, textvariable=self.mode, values=list(MODES), state="readonly", width=14)
        box.bind("<<ComboboxSelected>>", lambda _: self.show())
        box.pack(side="left")
        ttk.Label(bar, textvariable=self.message).pack(side="left", padx=12)
        ttk.Label(self.root, image=self._photo, anchor="center").pack(expand=True, fill="both")

    def _ask_open(self) -> None:
        path = filedialog.askopenfilename(parent=self.root)
        if path:
            self.open(path)

    def _ask_save(self) -> None:
        self.save(filedialog.asksaveasfilename(parent=self.root, defaultextension=".png"))

    def _poll(self) -> None:
        """Fetch what the model's thread has finished; Tk calls this again and again."""
        while not self._answers.empty():
            answer = self._answers.get()
            if isinstance(answer, Exception):
                self.message.set(str(answer))
            else:
                self._frame, self._alpha = answer
                self.message.set(f"{self._alpha.mean():.0%} of the picture is person")
                self.show()
        self.root.after(30, self._poll)

    def show(self) -> None:
        """Draw the picture in the mode that is chosen."""
        if self._frame is None or self._alpha is None:
            return
        self._view.mode = self.mode.get()
        self.result = self._view(self._frame, self._alpha)
        height, width = self.result.shape[:2]
        factor = min(1.0, ROOM[0] / width, ROOM[1] / height)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        shown = cv2.resize(self.result, size, interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".ppm", shown)[1].tobytes()
        self._photo.configure(data=data, format="ppm", width=size[0], height=size[1])


def main() -> int:
    """Run the program."""
    try:
        root = tkinter.Tk()
        with open_model("portrait") as model:
            desktop = Desktop(root, model.warmup())
            if len(sys.argv) > 1:
                desktop.open(sys.argv[1])
            root.mainloop()
    except (UserError, tkinter.TclError) as error:  # no model, no screen
        print(f"embed_tk: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
