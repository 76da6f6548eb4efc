"""Label files into class ids. A kind picks one of these decoders, or brings its own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes
from edge_deeplab.imaging import Labels, read_mask
from edge_deeplab.metrics import IGNORE

if TYPE_CHECKING:
    from edge_deeplab.data.base import Pair

Decode = Callable[["Pair"], Labels]
"""A pair -> its class ids uint8 (H, W), 255 = ignore."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"


class UnknownId(UserError):
    """A label file holds an id that stands for no class."""


def histogram(labels: Labels) -> NDArray[np.float32]:
    """Pixels of every value of ``labels`` (H, W), (256,); ten times faster than np.unique or np.bincount."""
    return np.asarray(cv2.calcHist([labels], [0], None, [256], [0, 256]), np.float32).ravel()


def present(labels: Labels) -> list[int]:
    """The ids that occur in ``labels`` (H, W), ascending."""
    return [int(value) for value in np.flatnonzero(histogram(labels))]


# -- label pictures ----------------------------------------------------------------------------


def read_ids(path: Path) -> Labels:
    """A label picture as stored: its gray levels, or the indices of a palette PNG, uint8 (H, W).

    Pixels of fewer than 8 bits are not stretched: white in a 1-bit PNG is id 1.

    Raises:
        UserError: Unreadable, cut short, or neither gray nor palette.
    """
    form = png_form(path)
    if form.palette:
        return _palette_indices(path)
    mask = read_mask(path)
    return mask // 255 if form.bits == 1 else mask  # read_mask leaves this depth stretched


def stored_ids(pair: Pair) -> Labels:
    """Decoder for masks that hold class ids and 255 as they are: uint8 (H, W)."""
    return read_ids(pair.mask)


@dataclass(frozen=True)
class IdTable:
    """Decoder for masks whose stored ids are not the class ids.

    Attributes:
        classes: Stored id -> class id, or 255 for what counts nowhere. Any other id is an error.
    """

    classes: Mapping[int, int]

    def __call__(self, pair: Pair) -> Labels:
        """Class ids uint8 (H, W) of a pair.

        Raises:
            UserError: Unreadable, or an id outside the table; the message names the file.
        """
        stored = read_ids(pair.mask)
        unknown = [value for value in present(stored) if value not in self.classes]
        if unknown:
            raise UnknownId(
                f"{pair.mask} holds id {unknown[-1]}, which this data set does not have "
                f"(ids {min(self.classes)} to {max(self.classes)}); correct the file or remove the pair"
            )
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.classes)] = list(self.classes.values())
        return table[stored]


def person_from_alpha(pair: Pair) -> Labels:
    """Decoder for cut-outs: person (1) where the alpha channel reaches 128, uint8 (H, W)."""
    picture = _decode_png(pair.mask, read_bytes(pair.mask))
    if picture.ndim != 3 or picture.shape[2] != 4:
        raise UserError(f"{pair.mask} has no alpha channel; expected an RGBA PNG with the person cut out")
    return (picture[..., 3] >= 128).astype(np.uint8)


def person_from_matte(pair: Pair) -> Labels:
    """Decoder for mattes: person (1) where the gray level reaches 128, uint8 (H, W).

    Mattes saved as colour have three equal channels; the first is taken.
    """
    picture = _decode_png(pair.mask, read_bytes(pair.mask))
    return ((picture if picture.ndim == 2 else picture[..., 0]) >= 128).astype(np.uint8)


# -- PNG ---------------------------------------------------------------------------------------


def _decode_png(path: Path, data: bytes) -> Any:
    """Pixels uint8 (H, W) or (H, W, C) in OpenCV's channel order, alpha kept."""
    whole = data.startswith(SIGNATURE) and b"IEND" in data[-64:]
    picture: Any = None
    if whole:
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            whole = False
    if picture is None:
        reason = "the file is cut short; copy or download it again" if not whole else "not a PNG"
        raise UserError(f"cannot read {path}: {reason}")
    if picture.dtype != np.uint8:
        raise UserError(f"{path} has {picture.dtype.itemsize * 8} bits a channel; expected 8")
    return picture


class PngForm(NamedTuple):
    """How a PNG stores a pixel."""

    bits: int
    palette: bool


def png_form(path: Path) -> PngForm:
    """From a file's header: bits a channel (0 for what is no PNG), and whether they are palette indices."""
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError:
        head = b""  # the reader that follows says what is wrong
    if len(head) < 26 or not head.startswith(SIGNATURE):
        return PngForm(0, palette=False)
    return PngForm(head[24], palette=head[25] == 3)


def _palette_indices(path: Path) -> Labels:
    """Indices of a palette PNG, uint8 (H, W), at 1, 2, 4 or 8 bits.

    OpenCV can only expand a palette to colours, from which ids cannot be told apart reliably. Gray
    and palette PNGs store their pixels alike, so the header is rewritten to say gray, the palette
    is left out, and OpenCV decodes the indices. Pillow could do it too, but evaluating a model
    should not need another package.
    """
    data = read_bytes(path)
    depth = data[24]
    gray = bytearray(SIGNATURE)
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == b"IHDR":
            header = kind + data[at + 8 : at + 17] + b"\0" + data[at + 18 : at + 21]
            gray += data[at : at + 4] + header + zlib.crc32(header).to_bytes(4, "big")
        elif kind in (b"IDAT", b"IEND"):
            gray += data[at:end]  # with its own checksum, so that damage still shows
        at = end
    picture = _decode_png(path, bytes(gray))
    # Gray of fewer than 8 bits is stretched to 0..255 by the decoder.
    return np.asarray(picture // (255 // (2**depth - 1)) if depth < 8 else picture, np.uint8)
