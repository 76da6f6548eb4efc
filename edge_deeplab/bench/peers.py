"""Other people's models: plain ``.tflite`` and ``.onnx`` files, fed and read as their authors do.

A peer carries no input contract, so its scaling is told (:class:`PeerInput`), never guessed. It gets the
cheapest way we know that leaves its answer unchanged: the frame is resized (bilinear, as in the demos
these models came with) before anything else touches it, scaled straight into the runtime's own memory,
and one plane of scores is resized, however many classes the network has. This is the one place beside
``imaging.py`` that touches pixels: the shared processing must not decide how fast a rival is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.bench.peer_engines import engine_for
from edge_deeplab.bench.record import PeerInput
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Floats, Frame, Labels
from edge_deeplab.runtimes import Times

HALF = (127.5,)

KNOWN: dict[str, tuple[str, PeerInput]] = {
    "slim_reshape_v2_512.tflite": ("slim 512", PeerInput()),
    "sinet_320.onnx": (
        "sinet 320",
        PeerInput((107.3, 116.5, 124.7), (67 * 255, 62 * 255, 63 * 255), "BGR", "two-logits"),
    ),
    "mnv3_seg_float.tflite": ("mnv3 256", PeerInput(HALF, HALF, output="two-logits")),
    "mediapipe_selfie_segmentation_256.tflite": ("mediapipe 256", PeerInput()),
    "deeplab_mnv2_dm05_aiseg_513.tflite": ("aiseg 513", PeerInput(HALF, HALF, output="two-logits")),
    "google_deeplabv3_257_mv_gpu.tflite": ("google 257", PeerInput(HALF, HALF, output="class:15")),
}
"""Published files by name: how tables call them, and their scaling (docs/benchmarking.md)."""


# -- reading an answer -------------------------------------------------------------------------


def plane_of(raw: NDArray[Any], height: int, width: int) -> Floats:
    """One score a pixel, whatever the shape around it, flat included -> (h, w) of the input's aspect."""
    shrink = math.sqrt(raw.size / (height * width))
    h, w = round(height * shrink), round(width * shrink)
    if h * w != raw.size:
        raise UserError(f"its output {list(raw.shape)} is not one score a pixel; name another output=")
    return raw.reshape(h, w).astype(np.float32, copy=False)


def two_logits(planes: Floats) -> Floats:
    """Background and foreground (2, h, w) -> how far the foreground is ahead: the logit of its softmax."""
    return planes[1] - planes[0]


def class_ahead(raw: Floats, index: int) -> Floats:
    """Logits (h, w, K) -> how far class ``index`` is ahead of the best other class (h, w).

    Its sign says whether argmax answers that class, and it can be resized, which an argmax cannot.
    """
    # Planes first: a maximum over rows of 21 is several times slower in numpy, transposing included.
    planes: Any = cv2.transpose(raw.reshape(-1, raw.shape[-1]))
    wanted = planes[index].copy()
    planes[index] = -np.inf
    return (wanted - planes.max(axis=0)).reshape(raw.shape[:2])


Reader = Callable[[NDArray[Any]], Floats]
"""Raw output with its batch axis -> plane of foreground scores (h, w)."""


def reader(output: str, channels_last: bool, size: tuple[int, int]) -> tuple[Reader, float]:
    """How to read an output, and the score from which a pixel is foreground.

    Raises:
        UserError: ``output`` is none of those that :class:`PeerInput` lists.
    """

    def split(raw: NDArray[Any]) -> Floats:
        return np.moveaxis(raw[0], -1, 0) if channels_last else raw[0]

    kind, _, index = output.partition(":")
    if output in ("probability", "logit"):
        return lambda raw: plane_of(raw, *size), 0.5 if output == "probability" else 0.0
    if output == "two-logits":
        return lambda raw: two_logits(split(raw)), 0.0
    if kind == "class" and index.isdigit():
        k = int(index)
        if channels_last:
            return lambda raw: class_ahead(raw[0], k), 0.0
        return lambda raw: class_ahead(np.moveaxis(raw[0], 0, -1), k), 0.0
    raise UserError(f"output={output!r} is none of probability, logit, two-logits, class:K")


# -- the whole -------------------------------------------------------------------------------------


class Peer:
    """A peer that segments frames; what :class:`~edge_deeplab.bench.subject.Subject` asks for."""

    def __init__(self, path: str, options: PeerInput, threads: int | None) -> None:
        self.engine = engine_for(path)(path, threads)
        self.options = options
        self._check(path)
        self._read, self._cut = reader(options.output, self.engine.channels_last, self.engine.size)
        std, mean = np.array(options.std), np.array(options.mean)
        # ``pixel * factor - offset``; float32, or float64 would run through it all.
        self._factor = (1 / std).astype(np.float32)
        self._offset = (mean / std).astype(np.float32)
        self._table = self._bytes_table() if self.engine.quantized else None

    def segment(self, frame: Frame) -> tuple[Labels, Times]:
        """BGR uint8 (H, W, 3) -> 1 where the foreground is, uint8 (H, W), and what each stage took."""
        begin = time.perf_counter()
        self.fill(frame)
        prepared = time.perf_counter()
        raw = self.engine.run()
        inferred = time.perf_counter()
        labels = self.labels(raw, *frame.shape[:2])
        done = time.perf_counter()
        return labels, Times(1e3 * (prepared - begin), 1e3 * (inferred - prepared), 1e3 * (done - inferred))

    def fill(self, frame: Frame) -> None:
        """Frame -> input tensor, resized first: after that there are fewer pixels to touch."""
        height, width = self.engine.size
        image: Any = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
        if self.options.channels == "RGB":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        tensor = self.engine.source()
        if self._table is not None:
            image = cv2.LUT(image, self._table)
            tensor[...] = (image if self.engine.channels_last else image.transpose(2, 0, 1)).view(
                tensor.dtype
            )
        elif self.engine.channels_last:
            np.multiply(image, self._factor, out=tensor)
            np.subtract(tensor, self._offset, out=tensor)
        else:
            factor, offset = (np.broadcast_to(v, 3) for v in (self._factor, self._offset))
            for c in range(3):
                np.multiply(image[..., c], factor[c], out=tensor[c])
                tensor[c] -= offset[c]

    def labels(self, raw: NDArray[Any], height: int, width: int) -> Labels:
        """Raw output -> mask at the frame's size: scores are resized, then cut."""
        scores = cv2.resize(self._read(raw), (width, height), interpolation=cv2.INTER_LINEAR)
        return (scores > np.float32(self._cut)).view(np.uint8)

    def _bytes_table(self) -> NDArray[np.uint8]:
        """Byte -> byte of an integer input, (256, 1, 3): scaling and quantisation in one look-up."""
        scale, zero = self.engine.quantized or (1.0, 0)
        scaled = np.arange(256, dtype=np.float64)[:, None] * self._factor - self._offset
        whole = np.rint(np.broadcast_to(scaled, (256, 3)) / scale) + zero
        signed = self.engine.source().dtype == np.int8
        low, high = (-128, 127) if signed else (0, 255)
        clipped = np.clip(whole, low, high).astype(np.int8 if signed else np.uint8)
        return clipped.view(np.uint8).reshape(256, 1, 3)

    def _check(self, path: str) -> None:
        shape = self.engine.shape
        if len(shape) != 4 or shape[0] != 1 or 3 not in (shape[1], shape[3]):
            raise UserError(f"peer {path} takes {list(shape)}, not one picture of three channels")
        for name, values in (("mean", self.options.mean), ("std", self.options.std)):
            if len(values) not in (1, 3):
                raise UserError(f"peer {path}: {name} needs one value or three, not {len(values)}")
        if not all(self.options.std):
            raise UserError(f"peer {path}: std must not be 0")
