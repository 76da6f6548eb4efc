"""The one place where pixels are touched: frames into tensors, network outputs into masks.

Training evaluation, verification, every runtime and every demo call these functions; nothing else
resizes, scales, thresholds or colours. Needs numpy and OpenCV only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError, because
from edge_deeplab.files import check_writable, read_bytes, write_bytes
from edge_deeplab.spec import Channels, InputContract

Frame = NDArray[np.uint8]
"""uint8 pixels: (H, W, 3) colour, (H, W, 4) with alpha, or (H, W) gray."""

Labels = NDArray[np.uint8]
"""uint8 class ids, (H, W)."""

Floats = NDArray[np.float32]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

# From this shrink factor on, bilinear sampling skips source pixels and aliases; averaging first does not.
HALVE_FROM = 2

PNG = b"\x89PNG\r\n\x1a\n"


# -- files -------------------------------------------------------------------------------------


def read_image(path: str | Path) -> Frame:
    """Read a photo as it should be seen.

    Gray, 16-bit, CMYK and RGBA files become 8-bit BGR (alpha is dropped); EXIF rotation is applied.

    Returns:
        BGR uint8 (H, W, 3).

    Raises:
        UserError: Missing, unreadable, cut short, or no picture.
    """
    return decode_image(read_bytes(path), path)


def decode_image(data: bytes, name: str | Path = "the picture") -> Frame:
    """:func:`read_image` for a file's bytes; ``name`` is what an error calls it."""
    _complain_if_cut_short(name, data)
    image = _decode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"cannot read {name}: not a picture OpenCV can decode (JPEG, PNG, WebP, BMP, TIFF)")
    return image


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by name; sub-folders and hidden files (a Mac's ``._*``) are left out.

    Raises:
        UserError: It cannot be read, or holds none.
    """
    try:
        names = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {because(error)}") from error
    files = [name for name in names if name.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise UserError(f"no pictures in {folder} ({', '.join(IMAGE_SUFFIXES)})")
    return files


def read_mask(path: str | Path) -> Labels:
    """Read a label picture unchanged: uint8 (H, W), one channel.

    Raises:
        UserError: Unreadable, or not an 8-bit single-channel picture.
    """
    data = read_bytes(path)
    _complain_if_cut_short(path, data)
    mask = _decode(data, cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise UserError(f"cannot read {path}: not a picture OpenCV can decode (PNG is best for masks)")
    depth = _png_gray_bits(data)
    if depth in (2, 4):
        mask = mask // (255 // (2**depth - 1))  # OpenCV stretches 2- and 4-bit gray to 0..255; ids must stay
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise UserError(
            f"mask {path} has {mask.shape[2] if mask.ndim == 3 else 1} channels of {mask.dtype}; "
            "masks must be 8-bit with one channel holding class ids"
        )
    return mask


def write_image(path: str | Path, image: Frame) -> None:
    """Write a BGR, BGRA or gray picture in the format its suffix names, whole or not at all."""
    write_bytes(path, encode_image(path, image))


def check_picture(path: str | Path) -> None:
    """Find out before long work whether a picture can be written there; nothing is left behind.

    Raises:
        UserError: It cannot.
    """
    encode_image(path, np.zeros((1, 1, 3), np.uint8))
    check_writable(path)


def encode_image(path: str | Path, image: Frame, *, fast: bool = False) -> bytes:
    """The bytes that :func:`write_image` writes; ``fast`` makes PNGs that are larger and ready sooner."""
    try:
        done, data = cv2.imencode(Path(path).suffix, image, [cv2.IMWRITE_PNG_COMPRESSION, 1] if fast else [])
    except cv2.error:
        done = False
    if not done:
        raise UserError(
            f"cannot write {path}: not a picture, or no picture format that OpenCV writes; use .png"
        )
    return bytes(data)


def _decode(data: bytes, flags: int) -> Any:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _complain_if_cut_short(path: str | Path, data: bytes) -> None:
    """OpenCV decodes half a JPEG or PNG without a word and fills the rest with gray; we refuse it."""
    whole = True
    if data[:2] == b"\xff\xd8":
        whole = b"\xff\xd9" in data[_first_scan(data) :]
    elif data[:8] == PNG:
        at = 8
        while at + 12 <= len(data) and data[at + 4 : at + 8] != b"IEND":
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        whole = at + 12 <= len(data)
    if not whole:
        raise UserError(f"cannot read {path}: the file is cut short; copy or download it again")


def _png_gray_bits(data: bytes) -> int:
    """Bits per pixel of a gray PNG, 0 for any other file."""
    return data[24] if data[:8] == PNG and len(data) > 25 and data[25] == 0 else 0


def _first_scan(data: bytes) -> int:
    """Offset of a JPEG's first scan, past any thumbnail that has an end marker of its own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return min(at, len(data))


# -- frame -> tensor ---------------------------------------------------------------------------


def as_color(frame: Frame) -> Frame:
    """A frame with exactly three channels: gray is repeated, alpha dropped, order kept.

    Raises:
        UserError: Not a uint8 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with pixels in it.
    """
    shape = getattr(frame, "shape", None)
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"a frame must be a uint8 array (H, W, 3), not {kind}")
    if frame.ndim == 3 and frame.shape[2] == 3 and frame.size:
        return frame
    if frame.ndim not in (2, 3) or not frame.size or (frame.ndim == 3 and frame.shape[2] not in (1, 4)):
        raise UserError(f"a frame must have shape (H, W), (H, W, 3) or (H, W, 4), not {shape}")
    if frame.ndim == 3 and frame.shape[2] == 4:
        return np.ascontiguousarray(frame[..., :3])
    return np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)


def placement(contract: InputContract, height: int, width: int) -> tuple[int, int, int, int]:
    """Where a frame lies inside the network's input: (top, left, height, width) in input pixels."""
    if contract.resize == "stretch":
        return 0, 0, contract.height, contract.width
    factor = min(contract.height / height, contract.width / width)
    inner_h = min(contract.height, max(1, round(height * factor)))
    inner_w = min(contract.width, max(1, round(width * factor)))
    return (contract.height - inner_h) // 2, (contract.width - inner_w) // 2, inner_h, inner_w


def halved(frame: Frame, height: float, width: float) -> Frame:
    """Average every 2x2 pixels, again and again while both sides are at least twice ``height`` and ``width``.

    So no pixel is skipped by what samples bilinearly afterwards, at an eighth of what averaging over the
    exact area costs.
    """
    while frame.shape[0] >= HALVE_FROM * height and frame.shape[1] >= HALVE_FROM * width:
        half = (frame.shape[1] // 2, frame.shape[0] // 2)
        frame = cv2.resize(frame, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return frame


def resize_frame(frame: Frame, height: int, width: int) -> Frame:
    """Resize to (height, width, C): :func:`halved`, then bilinear.

    A 640x480 camera frame into 256x256 (2.5 and 1.875) is not halved.
    """
    frame = halved(frame, height, width)
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def to_input_size(frame: Frame, contract: InputContract, *, channels: Channels) -> Frame:
    """Three-channel frame (H, W, 3) in order ``channels`` -> uint8 (height, width, 3) in the contract's."""
    top, left, height, width = placement(contract, *frame.shape[:2])
    inner = resize_frame(frame, height, width)
    if channels != contract.channels:
        inner = cv2.cvtColor(inner, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
    if (height, width) == (contract.height, contract.width):
        return inner
    canvas = np.empty((contract.height, contract.width, 3), np.uint8)
    canvas[:] = [min(255, max(0, round(m))) for m in contract.mean]
    canvas[top : top + height, left : left + width] = inner
    return canvas


def preprocess(frame: Frame, contract: InputContract, *, channels: Channels = "BGR") -> NDArray[Any]:
    """One frame of any size -> the network's input tensor.

    Args:
        frame: uint8 (H, W, 3); gray (H, W) and alpha (H, W, 4) are taken too.
        contract: The model's input contract.
        channels: Channel order of ``frame``; OpenCV gives BGR.

    Returns:
        (1, 3, height, width) or (1, height, width, 3), float32, uint8 or int8, as the contract says.
    """
    if channels not in get_args(Channels):
        raise UserError(f"channels must be {' or '.join(get_args(Channels))}, not {channels!r}")
    return pack(to_input_size(as_color(frame), contract, channels=channels), contract)


def pack(image: Frame, contract: InputContract) -> NDArray[Any]:
    """uint8 (height, width, 3) in the contract's channel order -> tensor with a batch axis of 1."""
    if contract.dtype != "float32":
        if contract.dtype == "int8":
            image = np.bitwise_xor(image, 0x80).view(np.int8)  # less 128
        # A copy even where nothing changes: the caller may reuse its frame while inference runs.
        tensor: NDArray[Any] = np.array(
            image if contract.layout == "NHWC" else image.transpose(2, 0, 1), order="C"
        )
        return tensor[None]
    # x * (1 / std) - mean / std: with 128 and 128 every step is exact in float32.
    factor = (1 / np.asarray(contract.std)).astype(np.float32)
    offset = (np.asarray(contract.mean) / np.asarray(contract.std)).astype(np.float32)
    height, width = image.shape[:2]
    if contract.layout == "NHWC":
        # Whole rows at a time: broadcasting over a last axis of 3 is many times slower.
        rows = np.multiply(image.reshape(height, width * 3), np.tile(factor, width))
        rows -= np.tile(offset, width)
        return rows.reshape(1, height, width, 3)
    planes = np.empty((1, 3, height, width), np.float32)
    for c in range(3):
        np.multiply(image[..., c], factor[c], out=planes[0, c])
        planes[0, c] -= offset[c]
    return planes


# -- network output -> mask --------------------------------------------------------------------


def postprocess(
    output: NDArray[Any], contract: InputContract, height: int, width: int
) -> tuple[Labels, Floats | None]:
    """Network output -> class ids at the frame's own size, in one resize.

    Args:
        output: One picture's output, without batch axis: (K, h, w) or (h, w, K) as
            ``contract.layout`` says, or (h, w) for a class map.
        contract: The model's input contract.
        height, width: Size of the frame.

    Returns:
        ``labels`` uint8 (height, width), and for binary models the ``scores`` float32
        (height, width) they were cut from: logits, or probabilities from a probability head.
    """
    place = placement(contract, height, width)
    if contract.head == "classmap":
        return _resize_map(
            output.reshape(output.shape[-2:]), contract, place, height, width, nearest=True
        ), None
    if contract.layout == "NHWC":
        output = np.moveaxis(output, -1, 0)
    planes = np.ascontiguousarray(output, dtype=np.float32)
    if contract.binary:
        scores = _resize_map(planes[0], contract, place, height, width)
        cut = contract.threshold if contract.head == "probability" else contract.logit_threshold
        return (scores >= np.float32(cut)).view(np.uint8), scores
    return _argmax(planes, contract, place, height, width), None


def class_probabilities(output: NDArray[Any], contract: InputContract, height: int, width: int) -> Floats:
    """Network output -> probability of every class at the frame's own size, to average several answers.

    Logits are resized first, then turned into probabilities. For one answer :func:`postprocess` is faster.

    Args:
        output, contract, height, width: As for :func:`postprocess`.

    Returns:
        float32 (classes, height, width), summing to 1; binary: the foreground's alone, (1, height, width).

    Raises:
        UserError: The model answers with class ids only.
    """
    if contract.head == "classmap":
        raise UserError(f"{contract.name} gives class ids only; averaging answers needs a logits head")
    if contract.layout == "NHWC":
        output = np.moveaxis(output, -1, 0)
    place = placement(contract, height, width)
    source = np.ascontiguousarray(output, dtype=np.float32)
    planes: Floats = np.stack([_resize_map(plane, contract, place, height, width) for plane in source])
    if contract.head == "probability":
        return planes
    if contract.binary:
        return sigmoid(planes)
    planes -= planes.max(axis=0)
    np.exp(planes, out=planes)
    planes /= planes.sum(axis=0)
    return planes


def most_likely(probabilities: Floats, contract: InputContract) -> Labels:
    """Class ids (H, W) from :func:`class_probabilities` (classes, H, W), or the mean of several."""
    if contract.binary:
        return (probabilities[0] >= np.float32(contract.threshold)).view(np.uint8)
    return probabilities.argmax(axis=0).astype(np.uint8)


def _argmax(
    planes: Floats, contract: InputContract, place: tuple[int, int, int, int], height: int, width: int
) -> Labels:
    """Class of the highest resized plane, one plane at a time: never (K, height, width) in memory."""
    best = _resize_map(planes[0], contract, place, height, width)
    labels = np.zeros((height, width), np.uint8)
    for k in range(1, len(planes)):
        plane = _resize_map(planes[k], contract, place, height, width)
        higher = cv2.compare(plane, best, cv2.CMP_GT)
        cv2.copyTo(np.full_like(labels, k), higher, labels)
        cv2.max(plane, best, best)
    return labels


def _resize_map(
    plane: NDArray[Any],
    contract: InputContract,
    place: tuple[int, int, int, int],
    height: int,
    width: int,
    *,
    nearest: bool = False,
) -> Any:
    """The part of one output plane that the frame covers, at the frame's size (half-pixel centres)."""
    top, left, inner_h, inner_w = place
    if contract.resize == "stretch":
        how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
        return cv2.resize(plane, (width, height), interpolation=how)
    # Crop and resize in one step, in sub-pixel coordinates: the frame's corner need not fall on an
    # output pixel. Two small matrices, since warpAffine rounds coordinates to 1/32 pixel before OpenCV 5.
    ys = (top + (np.arange(height) + 0.5) * inner_h / height) * plane.shape[0] / contract.height
    xs = (left + (np.arange(width) + 0.5) * inner_w / width) * plane.shape[1] / contract.width
    if nearest:
        return np.ascontiguousarray(plane[ys.astype(int)][:, xs.astype(int)])
    return _mixing(ys - 0.5, plane.shape[0]) @ plane @ _mixing(xs - 0.5, plane.shape[1]).T


def _mixing(positions: NDArray[np.float64], size: int) -> Floats:
    """Rows that mix ``size`` samples linearly at the given positions, ends repeated: (N, size)."""
    positions = np.clip(positions, 0, size - 1)
    first = np.minimum(positions.astype(int), max(size - 2, 0))
    rows = np.arange(len(positions))
    matrix = np.zeros((len(positions), size), np.float32)
    matrix[rows, first] = 1 - (positions - first)
    matrix[rows, np.minimum(first + 1, size - 1)] += positions - first
    return matrix


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), float32, any shape; saturates instead of overflowing."""
    if not logits.size:
        return np.zeros(logits.shape, np.float32)
    exponential = cv2.exp(-np.clip(logits, -80, 80).reshape(1, -1).astype(np.float32))
    return np.reciprocal(exponential + 1, dtype=np.float32).reshape(logits.shape)


def logit(probability: Floats) -> Floats:
    """log(p / (1 - p)), float32, any shape; the inverse of :func:`sigmoid`, within -16 and 16."""
    p = np.clip(probability, 1.2e-7, 1 - 1.2e-7).astype(np.float32)
    return np.log(p / (1 - p))


# -- mask -> picture ---------------------------------------------------------------------------


def palette(contract: InputContract) -> NDArray[np.uint8]:
    """The classes' colours as a BGR table, uint8 (256, 3); unused ids are black."""
    table = np.zeros((256, 3), np.uint8)
    for k, info in enumerate(contract.classes):
        table[k] = info.color[::-1]
    return table


def overlay(frame: Frame, labels: Labels, contract: InputContract, *, opacity: float = 0.45) -> Frame:
    """BGR (H, W, 3) with every class but the first (background) tinted and outlined in its colour."""
    image = as_color(frame)
    colors = palette(contract)[labels]
    shown = np.where(labels[..., None] > 0, cv2.addWeighted(image, 1 - opacity, colors, opacity, 0), image)
    thickness = 1 + 2 * max(1, round(min(labels.shape) / 320))
    inner = cv2.erode(labels, np.ones((thickness, thickness), np.uint8), borderType=cv2.BORDER_REPLICATE)
    outline = (labels != inner) & (labels > 0)
    shown[outline] = colors[outline]
    return shown


def alpha_image(probability: Floats) -> Labels:
    """Probability 0..1 (H, W) -> 8-bit alpha (H, W)."""
    return np.rint(probability * 255).astype(np.uint8)


def cutout(frame: Frame, probability: Floats) -> Frame:
    """BGRA (H, W, 4): the frame with the probability (H, W) as its transparency."""
    return np.dstack([as_color(frame), alpha_image(probability)])
