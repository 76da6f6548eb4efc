"""What the viewer sees and presses: draws the answers, measures them, and passes them on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from edge_deeplab.composite import cut_out
from edge_deeplab.demos.live.hud import draw
from edge_deeplab.demos.live.journal import Journal
from edge_deeplab.demos.live.loop import Answer, Live
from edge_deeplab.demos.live.statistics import Histogram, Rate
from edge_deeplab.demos.live.window import ESCAPE, Window
from edge_deeplab.demos.options import MODES
from edge_deeplab.demos.views import View
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame, write_image

MODEL_STAGES = ("preprocess", "inference", "postprocess")
"""Of :class:`~edge_deeplab.runtimes.Times`, so that these are the figures of ``edge-deeplab bench``."""

STAGES = (*MODEL_STAGES, "matte", "view")


class Output(Protocol):
    """Takes every picture that is shown: a recording, a virtual camera."""

    def write(self, picture: Frame, seconds: float) -> None:
        """One picture, BGR uint8 (H, W, 3), taken at ``seconds``."""


@dataclass
class Figures:
    """What was measured, in constant memory.

    Attributes:
        shown: Frames that reached the screen, or the outputs where there is none.
        latency: From the frame being there to its result on the screen, ms.
        stages: Milliseconds of each of ``STAGES``.
    """

    shown: int = 0
    rate: Rate = field(default_factory=Rate)
    latency: Histogram = field(default_factory=Histogram)
    stages: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram() for name in STAGES})
    last: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    begin: float = field(default_factory=time.perf_counter)

    def add(self, latency: float, stages: Mapping[str, float]) -> None:
        """Take in one frame that was shown; all in milliseconds."""
        self.shown += 1
        self.rate.tick()
        self.latency.add(latency)
        for name, milliseconds in stages.items():
            self.stages[name].add(milliseconds)
            self.last[name] += 0.1 * (milliseconds - self.last[name]) if self.last[name] else milliseconds

    @property
    def seconds(self) -> float:
        """Since the first frame."""
        return time.perf_counter() - self.begin

    def summary(self, live: Live) -> list[str]:
        """Lines for the terminal."""
        if not self.shown:
            return ["no frame was shown"]
        stages = ", ".join(
            f"{name} {histogram.percentile(50):.1f}"
            for name, histogram in self.stages.items()
            if histogram.count
        )
        return [
            f"{self.shown} frames in {self.seconds:.1f} s, {self.shown / self.seconds:.1f} a second; "
            f"{live.dropped} of {live.captured} dropped",
            f"capture to display p50 {self.latency.percentile(50):.1f} ms, "
            f"p95 {self.latency.percentile(95):.1f} ms; stages p50: {stages} ms",
        ]


class App:
    """Shows a running :class:`Live` until it ends, the viewer closes the window, or ``stop`` says so.

    Args:
        live: Started.
        view: What is made of every answer.
        window: None to show nothing.
        outputs: Get every picture, without figures and keys on it.
        snapshot: Where the last picture goes at the end; "" for nowhere.
        journal: Told the figures of every frame.
    """

    def __init__(
        self,
        live: Live,
        view: View,
        window: Window | None,
        outputs: Sequence[Output] = (),
        snapshot: str = "",
        journal: Journal | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.figures = Figures()
        self._live, self._view, self._window = live, view, window
        self._outputs, self._snapshot, self._journal, self._say = outputs, snapshot, journal, say
        self._hud, self._quit = True, False
        self._answer: Answer | None = None
        self._picture: Frame | None = None
        self._keys: dict[str, Callable[[], None]] = {
            **{key.lower(): lambda mode=mode: self._mode(mode) for mode, key in MODES.items()},  # type: ignore[misc]
            "f": lambda: self._toggle("mirror"),
            "t": lambda: self._toggle("smooth"),
            "e": lambda: self._toggle("refine"),
            "h": self._toggle_hud,
            "p": self._take_snapshot,
            "q": self._end,
            ESCAPE: self._end,
        }

    def run(self, stop: Callable[[], bool]) -> None:
        """The loop of the main thread."""
        while not (self._live.ended or self._quit or stop()):
            answer = self._live.next(timeout=0.05)
            if answer is not None:
                self._show(answer)
            elif self._live.notice and self._picture is not None and self._window is not None:
                self._window.show(draw(self._picture, [self._live.notice], ["Q quit"]))
            if self._window is not None:
                self._press(self._window.key())
                self._quit = self._quit or not self._window.open
        self._live.next(timeout=0)  # what went wrong in a thread is raised here
        if self._snapshot:
            self._write_snapshot(Path(self._snapshot))

    def _show(self, answer: Answer) -> None:
        figures = self.figures
        if not figures.shown:
            figures.begin = time.perf_counter()
        begin = time.perf_counter()
        picture = self._view(answer.frame, answer.alpha, answer.taken - figures.begin)
        stages = {"view": 1e3 * (time.perf_counter() - begin), "matte": answer.matte}
        for output in self._outputs:
            output.write(picture, answer.taken)
        if self._window is not None:
            self._window.show(draw(picture, *self._lines()) if self._hud else picture)
        latency = 1e3 * (time.perf_counter() - answer.taken)
        if answer.times is not None:
            times = asdict(answer.times)
            stages.update({name: times[name] for name in MODEL_STAGES})
        figures.add(latency, stages)
        if self._journal is not None:
            self._journal.note(latency, stages, self._live)
        self._answer, self._picture = answer, picture

    def _lines(self) -> tuple[list[str], list[str]]:
        figures, settings = self.figures, self._live.settings
        stages = "   ".join(f"{name} {figures.last[name]:.1f}" for name in STAGES)
        off = [
            word
            for word, on in (("steadying off", settings.smooth), ("edges off", settings.refine))
            if not on
        ]
        top = [
            "   ".join(
                [
                    f"{figures.rate.value:.1f} fps",
                    f"latency {figures.latency.percentile(50):.0f} ms",
                    f"dropped {self._live.dropped}",
                    self._view.mode,
                    *off,
                ]
            ),
            f"{stages} ms",
        ]
        modes = "   ".join(f"{key} {mode}" for mode, key in MODES.items())
        return top, [modes, "F mirror   T steady   E edges   P snapshot   H hide this   Q quit"]

    # -- keys ----------------------------------------------------------------------------------

    def _press(self, key: str) -> None:
        action = self._keys.get(key)
        if action is not None:
            action()

    def _mode(self, mode: str) -> None:
        self._view.mode = mode

    def _toggle(self, setting: str) -> None:
        settings = self._live.settings
        setattr(settings, setting, not getattr(settings, setting))

    def _toggle_hud(self) -> None:
        self._hud = not self._hud

    def _end(self) -> None:
        self._quit = True

    def _take_snapshot(self) -> None:
        try:
            self._write_snapshot(Path(time.strftime("edge-deeplab-%Y%m%d-%H%M%S.png")))
        except UserError as error:  # a picture less, but the show goes on
            self._say(str(error))

    def _write_snapshot(self, path: Path) -> None:
        """The picture as shown, but a cut-out as a PNG is really transparent."""
        answer = self._answer
        if answer is None or self._picture is None:
            return
        transparent = self._view.mode == "cutout" and path.suffix.lower() == ".png"
        write_image(path, cut_out(answer.frame, answer.alpha) if transparent else self._picture)
        self._say(f"snapshot: {path}")
