"""What every runtime shares: the public methods check, prepare and measure; ``infer`` only infers."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Floats, Frame, Labels
from edge_deeplab.spec import Channels, InputContract

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Times:
    """Milliseconds of each stage of one ``segment`` call."""

    preprocess: float
    inference: float
    postprocess: float

    @property
    def total(self) -> float:
        """Frame in to mask out."""
        return self.preprocess + self.inference + self.postprocess


@dataclass(frozen=True)
class Segmentation:
    """The answer for one frame.

    Attributes:
        labels: Class ids, uint8 (H, W), at the frame's own size.
        contract: Of the model that answered: class names, palette, threshold, provenance.
        times: What each stage took.
        scores: Binary models: float32 (H, W) that ``labels`` was cut from; else None.
    """

    labels: Labels
    contract: InputContract
    times: Times
    scores: Floats | None = None

    @cached_property
    def probability(self) -> Floats | None:
        """Foreground probability, float32 (H, W) in 0..1; None where the model has none to give."""
        if self.scores is None or self.contract.head == "probability":
            return self.scores
        return imaging.sigmoid(self.scores)

    @property
    def logits(self) -> Floats:
        """How sure the model is of the foreground, float32 (H, W): what averaging over time works on.

        Logits, shifted so that they are positive where ``labels`` say foreground, whatever the threshold.
        Models without scores answer -16 and 16 for background and everything else.
        """
        if self.scores is None:
            return np.where(self.labels > 0, np.float32(16), np.float32(-16))
        logits = imaging.logit(self.scores) if self.contract.head == "probability" else self.scores
        cut = np.float32(self.contract.logit_threshold)
        return logits - cut if cut else logits

    @property
    def alpha(self) -> Labels:
        """8-bit opacity (H, W): soft for binary models, 255 on every class but background otherwise."""
        if self.probability is not None:
            return imaging.alpha_image(self.probability)
        return np.where(self.labels > 0, 255, 0).astype(np.uint8)

    def overlay(self, frame: Frame, *, opacity: float = 0.5) -> Frame:
        """The frame (H, W, 3) with the classes tinted in their palette colours."""
        return imaging.overlay(frame, self.labels, self.contract, opacity=opacity)

    def cutout(self, frame: Frame) -> Frame:
        """The frame as BGRA (H, W, 4) with :attr:`alpha` as its transparency."""
        return np.dstack([imaging.as_color(frame), self.alpha])


class Runtime(ABC):
    """A loaded model. Subclasses load in ``__init__`` and answer :meth:`infer`; nothing else differs.

    Safe to share between threads: calls of :meth:`infer` are serialised by a lock unless the
    subclass sets ``reentrant``. Use as a context manager, or call :meth:`close`.

    Attributes:
        suffixes: File suffixes this runtime opens.
        extra: The extra of this package that brings its dependencies.
        title: Name for people.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    title: ClassVar[str] = ""
    reentrant: ClassVar[bool] = False

    def __init__(self, contract: InputContract) -> None:
        self.contract = contract
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    @abstractmethod
    def open(cls, path: str, **options: Any) -> Runtime:
        """Load a file.

        Raises:
            UserError: It is missing, damaged or not one of ours.
        """

    @classmethod
    @abstractmethod
    def versions(cls) -> dict[str, str]:
        """Versions of the libraries used, for reports.

        Raises:
            MissingExtra: They are not installed.
        """

    @abstractmethod
    def infer(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Input tensor as the contract says, (N, ...) -> the network's output, (N, ...)."""

    def describe(self) -> dict[str, str]:
        """What is really in use: provider, threads, device."""
        return {}

    def segment(self, frame: Frame, *, channels: Channels = "BGR") -> Segmentation:
        """Segment one frame.

        Args:
            frame: uint8 (H, W, 3) of any size; gray (H, W) and alpha (H, W, 4) are taken too.
            channels: Channel order of the frame; OpenCV gives BGR.

        Raises:
            UserError: The frame has another shape or dtype, or the runtime was closed.
        """
        begin = time.perf_counter()
        tensor = imaging.preprocess(frame, self.contract, channels=channels)
        prepared = time.perf_counter()
        output = self._infer(tensor)
        inferred = time.perf_counter()
        labels, scores = imaging.postprocess(output[0], self.contract, frame.shape[0], frame.shape[1])
        done = time.perf_counter()
        times = Times(1e3 * (prepared - begin), 1e3 * (inferred - prepared), 1e3 * (done - inferred))
        return Segmentation(labels, self.contract, times, scores)

    def segment_batch(self, frames: Sequence[Frame], *, channels: Channels = "BGR") -> list[Segmentation]:
        """Segment several frames, of any sizes, in one inference where the model allows it.

        The times of every answer are the batch's, divided by its length.
        """
        if len(frames) == 0:  # an array (N, H, W, 3) is a batch too
            return []
        if len(frames) > 1 and "batch" not in self.contract.dynamic:
            return [self.segment(frame, channels=channels) for frame in frames]
        begin = time.perf_counter()
        tensor = np.concatenate([imaging.preprocess(f, self.contract, channels=channels) for f in frames])
        prepared = time.perf_counter()
        output = self._infer(tensor)
        inferred = time.perf_counter()
        masks = [
            imaging.postprocess(o, self.contract, f.shape[0], f.shape[1])
            for o, f in zip(output, frames, strict=True)
        ]
        done = time.perf_counter()
        share = 1e3 / len(frames)
        times = Times(share * (prepared - begin), share * (inferred - prepared), share * (done - inferred))
        return [Segmentation(labels, self.contract, times, scores) for labels, scores in masks]

    def warmup(self, runs: int = 3) -> Self:
        """Run on a gray frame, so that the first real one is not the slow one."""
        frame = np.full((self.contract.height, self.contract.width, 3), 128, np.uint8)
        for _ in range(runs):
            self.segment(frame)
        return self

    def close(self) -> None:
        """Free what the runtime holds; further calls fail with a clear message."""
        self._closed = True

    def _was_closed(self) -> UserError:
        return UserError(f"{self.contract.name}: this runtime was closed; open the model again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _infer(self, tensor: NDArray[Any]) -> NDArray[Any]:
        if self._closed:
            raise self._was_closed()
        if self.reentrant:
            return self.infer(tensor)
        with self._lock:
            return self.infer(tensor)
