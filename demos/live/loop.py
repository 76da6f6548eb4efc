"""Capture and inference in threads of their own; whoever calls shows the results.

Three things happen at once: the camera is read, the newest frame is segmented, and the caller draws the
frame before it. Between them are mailboxes with one place, so a slow model or screen never builds a
queue: it gets the newest frame, and those it missed are counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2

from edge_deeplab.demos.live.mailbox import Mailbox
from edge_deeplab.demos.live.sources import Source
from edge_deeplab.imaging import Floats, Frame
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime, Times

RETRY_S = 1.0
"""How often a camera that has gone is looked for."""

LEAVE_S = 15.0
"""How long a thread may take to end: a driver or stream may be waiting for its next picture, for 10 s at most
in OpenCV's V4L2."""


@dataclass(frozen=True)
class Shot:
    """A frame and when it was there, in seconds of ``time.perf_counter``."""

    frame: Frame
    taken: float


@dataclass(frozen=True)
class Answer:
    """A frame with its alpha.

    Attributes:
        frame: BGR uint8 (H, W, 3), mirrored if asked for.
        alpha: float32 (H, W) in 0..1.
        taken: When the frame was there, ``time.perf_counter`` seconds.
        times: Of the model, as :class:`~edge_deeplab.runtimes.Segmentation` gives them; None where the
            answer was carried over from the frame before.
        matte: Milliseconds for averaging, flow and edges.
    """

    frame: Frame
    alpha: Floats
    taken: float
    times: Times | None
    matte: float


@dataclass
class Settings:
    """What may change while it runs; each is read once a frame.

    Attributes:
        mirror: Swap left and right.
        smooth, refine: See :class:`~edge_deeplab.matte.Matte`.
        every: Ask the model on every n-th frame, carry its answer along in between.
        wait: Seconds to wait for a camera that has gone.
    """

    mirror: bool = False
    smooth: bool = True
    refine: bool = True
    every: int = 1
    wait: float = 60.0


class Live:
    """Runs a source through a model.

        with Live(source, model, Settings()) as live:
            while not live.ended:
                answer = live.next(timeout=0.1)

    Args:
        source, model: Opened; both are used by one thread each, and closed by whoever opened them.
        settings: See :class:`Settings`.
        say: Told in words when the camera goes and comes back.
    """

    def __init__(
        self, source: Source, model: Runtime, settings: Settings, say: Callable[[str], None] = print
    ) -> None:
        self.settings = settings
        self.notice = ""
        """What to tell the viewer instead of a new picture: that the camera is gone."""
        self.captured = 0
        self._source, self._model, self._say = source, model, say
        self._shots: Mailbox[Shot] = Mailbox()
        self._answers: Mailbox[Answer] = Mailbox()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._guard, args=(work, box), name=name, daemon=True)
            for name, work, box in (
                ("capture", self._capture, self._shots),
                ("inference", self._segment, self._answers),
            )
        ]

    @property
    def dropped(self) -> int:
        """Frames that gave way to newer ones."""
        return self._shots.dropped + self._answers.dropped

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self._answers.ended

    def next(self, timeout: float) -> Answer | None:
        """The newest answer, waited for at most ``timeout`` seconds.

        Raises:
            UserError: What went wrong in a thread, for the user to mend.
        """
        answer = self._answers.take(timeout)
        if self._failure is not None:
            raise self._failure
        return answer

    def __enter__(self) -> Live:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._shots.close()
        for thread in self._threads:
            thread.join(timeout=LEAVE_S)

    # -- the threads ---------------------------------------------------------------------------

    def _guard(self, work: Callable[[], None], box: Mailbox[Shot] | Mailbox[Answer]) -> None:
        """A thread's error is the caller's: it is raised by :meth:`next`."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (handed to the caller)
            self._failure = error
            self._stop.set()
            self._answers.close()
        finally:
            box.close()

    def _capture(self) -> None:
        while not self._stop.is_set():
            frame = self._source.read()
            taken = time.perf_counter()
            if frame is None:
                if self._source.live and self._comes_back():
                    continue
                return
            self.captured += 1
            self._shots.put(Shot(frame, taken))

    def _comes_back(self) -> bool:
        """Wait for a camera that has gone."""
        if self.settings.wait > 0:
            self._say(f"{self._source.title} gives no more pictures; waiting {self.settings.wait:g} s for it")
            self.notice = f"waiting for {self._source.title}"
        until = time.monotonic() + self.settings.wait
        while time.monotonic() < until and not self._stop.wait(RETRY_S):
            if self._source.reopen():
                self.notice = ""
                self._say(f"{self._source.title} is back")
                return True
        if not self._stop.is_set():
            self._say(f"{self._source.title} has ended")
        return False

    def _segment(self) -> None:
        matte, made_for = Matte(), (True, True, False)
        before, since = 0.0, 0
        while (shot := self._shots.take()) is not None and not self._stop.is_set():
            settings = self.settings
            smooth, refine, mirror = wanted = (settings.smooth, settings.refine, settings.mirror)
            if wanted != made_for:  # what it remembers of the other side would be wrong
                matte, made_for = Matte(smooth=smooth, refine=refine), wanted
            frame: Frame = cv2.flip(shot.frame, 1) if mirror else shot.frame  # type: ignore[assignment]
            since += 1
            times: Times | None = None
            begin = time.perf_counter()
            if since < self.settings.every and matte.ready(frame):
                alpha = matte.propagate(frame)
            else:
                result = self._model.segment(frame)
                times, begin = result.times, time.perf_counter()
                alpha = matte.update(frame, result.logits, shot.taken - before)
                before, since = shot.taken, 0
            done = time.perf_counter()
            self._answers.put(Answer(frame, alpha, shot.taken, times, 1e3 * (done - begin)))
