"""The shared processing against slow references: files, frames into tensors, outputs into masks."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_deeplab import imaging
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import postprocess, preprocess, read_image, read_mask, sigmoid, write_image
from edge_deeplab.spec import ClassInfo, InputContract

Array = NDArray[Any]


def smooth_picture(rng: np.random.Generator, height: int, width: int) -> Array:
    """Colourful, and smooth enough for a JPEG to keep it: uint8 (H, W, 3)."""
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: Array, suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, image, options)[1].tobytes()


# -- slow references -----------------------------------------------------------------------------


def sample(plane: Array, ys: Array, xs: Array) -> Array:
    """Bilinear values of a plane (h, w) at every pair of coordinates, in float64; edges are repeated.

    The centre of pixel (i, j) is at the coordinates (i, j).
    """
    height, width = plane.shape
    values = plane.astype(np.float64)
    result = np.zeros((len(ys), len(xs)))
    for row, y in enumerate(np.clip(ys, 0, height - 1)):
        top = min(int(y), max(height - 2, 0))
        for column, x in enumerate(np.clip(xs, 0, width - 1)):
            left = min(int(x), max(width - 2, 0))
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            fy, fx = y - top, x - left
            result[row, column] = (
                values[top, left] * (1 - fy) * (1 - fx)
                + values[top, right] * (1 - fy) * fx
                + values[bottom, left] * fy * (1 - fx)
                + values[bottom, right] * fy * fx
            )
    return result


def input_coordinates(contract: InputContract, height: int, width: int) -> tuple[Array, Array]:
    """Where the centres of a frame's rows and columns lie in the input, from its top left corner."""
    if contract.resize == "stretch":
        inner_h, inner_w = contract.height, contract.width
    else:  # the frame's aspect ratio, to whole pixels, in the middle
        factor = min(contract.height / height, contract.width / width)
        inner_h, inner_w = max(1, round(height * factor)), max(1, round(width * factor))
    top, left = (contract.height - inner_h) // 2, (contract.width - inner_w) // 2
    return top + (np.arange(height) + 0.5) * inner_h / height, left + (
        np.arange(width) + 0.5
    ) * inner_w / width


def plane_coordinates(contract: InputContract, plane: Array, height: int, width: int) -> tuple[Array, Array]:
    """The same in pixels of an output plane (h, w), centres at whole numbers."""
    ys, xs = input_coordinates(contract, height, width)
    return ys * plane.shape[0] / contract.height - 0.5, xs * plane.shape[1] / contract.width - 0.5


def resized(plane: Array, contract: InputContract, height: int, width: int) -> Array:
    return sample(plane, *plane_coordinates(contract, plane, height, width))


SIZES = [(50, 90), (90, 50), (64, 96), (37, 41), (130, 20), (7, 5), (1, 1), (1, 300), (300, 1)]
RESIZES = ["stretch", "letterbox"]


# -- reading photos ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_photos_are_read_exactly(tmp_path: Path, rng: np.random.Generator, suffix: str) -> None:
    image = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    (tmp_path / f"x{suffix}").write_bytes(encoded(image, suffix))
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}"), image)


@pytest.mark.parametrize(
    "options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]]
)
def test_jpeg(tmp_path: Path, rng: np.random.Generator, options: list[int]) -> None:
    image = smooth_picture(rng, 60, 80)
    (tmp_path / "x.jpg").write_bytes(encoded(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95, *options))
    read = read_image(tmp_path / "x.jpg")
    assert (read.shape, read.dtype) == ((60, 80, 3), np.uint8)
    assert np.abs(read.astype(int) - image).mean() < 4


def test_the_content_counts_not_the_suffix(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    (tmp_path / "really_a_png.jpg").write_bytes(encoded(image, ".png"))
    np.testing.assert_array_equal(read_image(tmp_path / "really_a_png.jpg"), image)


def test_gray_photos_get_three_equal_channels(tmp_path: Path, rng: np.random.Generator) -> None:
    gray = smooth_picture(rng, 20, 30)[..., 0]
    for suffix in (".png", ".jpg"):
        (tmp_path / f"gray{suffix}").write_bytes(encoded(gray, suffix))
        read = read_image(tmp_path / f"gray{suffix}")
        assert read.shape == (20, 30, 3)
        assert (read == read[..., :1]).all()
        assert np.abs(read[..., 0].astype(int) - gray).max() <= (0 if suffix == ".png" else 25)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_photos_keep_their_upper_8_bits(
    tmp_path: Path, rng: np.random.Generator, channels: int
) -> None:
    image = rng.integers(0, 1 << 16, (6, 7, channels), dtype=np.uint16)
    (tmp_path / "x.png").write_bytes(encoded(image, ".png"))
    read = read_image(tmp_path / "x.png")
    assert (read.shape, read.dtype) == ((6, 7, 3), np.uint8)
    wanted = (image[..., :3] if channels > 1 else np.repeat(image, 3, 2)) / 257
    assert np.abs(read - wanted).max() <= 1  # cut off or rounded


def test_alpha_is_dropped_and_does_not_darken(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (6, 7, 4), dtype=np.uint8)
    image[0, :, 3] = 0
    (tmp_path / "x.png").write_bytes(encoded(image, ".png"))
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), image[..., :3])


def test_cmyk_jpeg(tmp_path: Path, rng: np.random.Generator) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow writes the CMYK file")
    rgb = smooth_picture(rng, 40, 60)
    pil.fromarray(rgb).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    read = read_image(tmp_path / "x.jpg")
    assert read.shape == (40, 60, 3)
    assert np.abs(read[..., ::-1].astype(int) - rgb).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, rng: np.random.Generator, orientation: int) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow writes the EXIF orientation")
    ops = pytest.importorskip("PIL.ImageOps")
    exif = pil.Exif()
    exif[0x0112] = orientation
    pil.fromarray(smooth_picture(rng, 40, 60)).save(tmp_path / "x.jpg", quality=95, exif=exif)
    with pil.open(tmp_path / "x.jpg") as file:
        upright = np.asarray(ops.exif_transpose(file).convert("RGB"))
    read = read_image(tmp_path / "x.jpg")
    assert read.shape == ((40, 60, 3) if orientation < 5 else (60, 40, 3))
    assert np.abs(read[..., ::-1].astype(int) - upright).max() <= 3  # two decoders


# -- photos that are none ------------------------------------------------------------------------


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """A JPEG with an EXIF segment that holds another, whole JPEG, as cameras write them."""
    directory = 8 + 2 + 12 + 4  # of the thumbnail, behind the picture's own with its orientation
    pixels = directory + 2 + 2 * 12 + 4
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 1, 0, directory)
    tiff += struct.pack("<H", 2)
    tiff += struct.pack("<HHII", 0x0201, 4, 1, pixels) + struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail))
    tiff += struct.pack("<I", 0) + thumbnail
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("thumbnail", [False, True])
def test_a_jpeg_cut_short_is_refused(
    tmp_path: Path, rng: np.random.Generator, thumbnail: bool, progressive: int
) -> None:
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    if thumbnail:
        small = encoded(image[::8, ::8], ".jpg")
        data = with_thumbnail(data, small)
        assert data.count(b"\xff\xd9") == 2
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == (64, 64, 3)
    for length in [*range(1, len(data) - 1, 97), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cannot read .*x\.jpg: "):
            read_image(path)
    path.write_bytes(data[: len(data) * 3 // 4])  # the dangerous case: OpenCV itself would decode this
    with pytest.raises(UserError, match="the file is cut short; copy or download it again"):
        read_image(path)


def test_the_exif_thumbnail_of_the_test_is_a_real_one(rng: np.random.Generator) -> None:
    pil = pytest.importorskip("PIL.Image")
    data = encoded(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), ".jpg")
    with pil.open(io.BytesIO(with_thumbnail(data, b"thumb"))) as file:
        tags = file.getexif().get_ifd(-1)  # Pillow's number for the thumbnail's directory
    assert tags[0x0202] == 5


def test_a_jpeg_with_something_behind_it_is_whole(tmp_path: Path, rng: np.random.Generator) -> None:
    data = encoded(smooth_picture(rng, 32, 32), ".jpg")  # e.g. a phone's motion photo
    (tmp_path / "x.jpg").write_bytes(data + b"a film" * 100)
    assert read_image(tmp_path / "x.jpg").shape == (32, 32, 3)


def test_a_jpeg_with_fill_bytes_between_segments_is_whole(tmp_path: Path, rng: np.random.Generator) -> None:
    """Any marker may be preceded by fill bytes 0xFF (ITU T.81, B.1.1.2)."""
    data = encoded(smooth_picture(rng, 32, 32), ".jpg")
    start = data.index(b"\xff\xdb")
    (tmp_path / "x.jpg").write_bytes(data[:start] + b"\xff\xff\xff" + data[start:])
    assert read_image(tmp_path / "x.jpg").shape == (32, 32, 3)


def test_a_png_cut_short_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    data = encoded(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8), ".png")
    for length in range(1, len(data) - 8, 11):
        (tmp_path / "x.png").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cannot read .*x\.png: "):
            read_image(tmp_path / "x.png")
        with pytest.raises(UserError, match=r"cannot read .*x\.png: "):
            read_mask(tmp_path / "x.png")


def test_a_png_with_something_behind_it_is_whole(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    (tmp_path / "x.png").write_bytes(encoded(image, ".png") + b"left over" * 20)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), image)


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path, read: Any) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("a photo of a cat\n")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "soi.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "signature.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name, reason in (
        ("missing.jpg", "no such file or directory"),
        ("empty.jpg", "the file is empty"),
        ("text.jpg", "not a picture OpenCV can decode"),
        ("folder.jpg", "is a directory"),
        ("soi.jpg", "cut short"),
        ("signature.png", "cut short"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


# -- masks ---------------------------------------------------------------------------------------


def test_masks_are_read_unchanged(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "m.png").write_bytes(encoded(mask, ".png"))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((4, 5, 3), np.uint8, "3 channels of uint8"),
        ((4, 5, 4), np.uint8, "4 channels of uint8"),
        ((4, 5), np.uint16, "1 channels of uint16"),
    ],
)
def test_masks_of_another_kind_are_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, words: str
) -> None:
    (tmp_path / "m.png").write_bytes(encoded(np.ones(shape, dtype), ".png"))
    with pytest.raises(UserError, match=rf"m\.png has {words}; masks must be 8-bit with one channel"):
        read_mask(tmp_path / "m.png")


def small_depth_png(values: Array, bits: int) -> bytes:
    """A gray PNG of 1, 2 or 4 bits, as PNG optimisers write label maps with few ids."""
    rows = b""
    for row in values:
        packed = 0
        for value in row:
            packed = packed << bits | int(value)
        rows += b"\0" + packed.to_bytes(len(row) * bits // 8, "big")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_1_bit_masks_become_0_and_255(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(small_depth_png(np.eye(8), 1))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), np.eye(8) * 255)


@pytest.mark.parametrize("bits", [2, 4])
def test_ids_in_a_2_or_4_bit_mask_are_not_stretched(tmp_path: Path, bits: int) -> None:
    """OpenCV scales gray of 2 bits by 85 and of 4 bits by 17; ids must be kept, or the file refused."""
    ids = np.arange(16).reshape(2, 8) % (1 << bits)
    (tmp_path / "m.png").write_bytes(small_depth_png(ids, bits))
    try:
        mask = read_mask(tmp_path / "m.png")
    except UserError as error:
        assert "8-bit" in str(error)
    else:
        np.testing.assert_array_equal(mask, ids)


# -- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 11, 3), (9, 11, 4), (9, 11)])
def test_write_and_read_back(tmp_path: Path, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    write_image(tmp_path / "new" / "x.png", image)
    stored = cv2.imread(str(tmp_path / "new" / "x.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, image)
    wanted = image[..., :3] if image.ndim == 3 else np.dstack([image] * 3)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "x.png"), wanted)
    if image.ndim == 2:
        np.testing.assert_array_equal(read_mask(tmp_path / "new" / "x.png"), image)


@pytest.mark.parametrize("name", ["x.xyz", "x", "x.mp4"])
def test_a_format_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_picture_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write_image(tmp_path / "x.png", np.zeros((0, 4, 3), np.uint8))


# -- frames --------------------------------------------------------------------------------------


def test_as_color(rng: np.random.Generator) -> None:
    color = rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    np.testing.assert_array_equal(imaging.as_color(color), color[..., :3])
    np.testing.assert_array_equal(imaging.as_color(color[..., :3]), color[..., :3])
    for gray in (color[..., 0], color[..., :1]):
        np.testing.assert_array_equal(imaging.as_color(gray), np.dstack([color[..., 0]] * 3))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), "a frame must be a uint8 array (H, W, 3), not float32"),
        (np.zeros((4, 5, 3), np.int64), "not int64"),
        (np.zeros((4, 5), bool), "not bool"),
        (None, "not NoneType"),
        ([[1, 2, 3]], "not list"),
        ("photo.jpg", "not str"),
        (np.zeros((4, 5, 2), np.uint8), "not (4, 5, 2)"),
        (np.zeros((4, 5, 5), np.uint8), "not (4, 5, 5)"),
        (np.zeros((1, 4, 5, 3), np.uint8), "not (1, 4, 5, 3)"),
        (np.zeros(5, np.uint8), "not (5,)"),
        (np.zeros((), np.uint8), "not ()"),
        (np.zeros((0, 5, 3), np.uint8), "not (0, 5, 3)"),
        (np.zeros((4, 0), np.uint8), "not (4, 0)"),
    ],
)
def test_what_is_no_frame_is_refused(contract: InputContract, frame: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        preprocess(frame, contract)
    assert message in str(caught.value)


def test_values_are_exact(contract: InputContract) -> None:
    """128 and 128: every step is exact in float32, so that an int8 input of scale 1/128 is the byte."""
    frame = np.zeros((64, 96, 3), np.uint8)
    frame.reshape(-1)[:256] = np.arange(256)
    for layout in ("NCHW", "NHWC"):
        tensor = preprocess(frame, contract.replace(layout=layout), channels="RGB")
        planes = tensor[0] if layout == "NHWC" else tensor[0].transpose(1, 2, 0)
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(planes, (frame.astype(np.float64) - 128) / 128)
        np.testing.assert_array_equal(planes * 128, np.rint(planes * 128))


def test_mean_and_std_per_channel(contract: InputContract, rng: np.random.Generator) -> None:
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    frame = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for layout in ("NCHW", "NHWC"):
        tensor = preprocess(frame, contract.replace(layout=layout, mean=mean, std=std), channels="RGB")
        planes = tensor[0] if layout == "NHWC" else tensor[0].transpose(1, 2, 0)
        np.testing.assert_allclose(planes, (frame - np.array(mean)) / std, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("wanted", ["RGB", "BGR"])
@pytest.mark.parametrize("given", ["RGB", "BGR"])
def test_channel_order_layout_and_dtype(
    contract: InputContract, rng: np.random.Generator, dtype: Any, layout: Any, wanted: Any, given: Any
) -> None:
    frame = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    before = frame.copy()
    tensor = preprocess(frame, contract.replace(dtype=dtype, layout=layout, channels=wanted), channels=given)
    assert tensor.dtype == dtype
    assert tensor.shape == ((1, 3, 64, 96) if layout == "NCHW" else (1, 64, 96, 3))
    expected: Array = frame if wanted == given else frame[..., ::-1]
    if dtype == "float32":
        expected = (expected.astype(np.float32) - 128) / 128
    if layout == "NCHW":
        expected = expected.transpose(2, 0, 1)
    np.testing.assert_array_equal(tensor[0], expected)
    np.testing.assert_array_equal(frame, before)


def test_opencv_order_is_the_default(contract: InputContract) -> None:
    blue = np.zeros((64, 96, 3), np.uint8)
    blue[..., 0] = 255
    tensor = preprocess(blue, contract)
    assert [float(tensor[0, c].mean()) for c in range(3)] == [-1.0, -1.0, 127 / 128]


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gray_and_alpha_frames(
    contract: InputContract, rng: np.random.Generator, resize: Any, dtype: Any, layout: Any
) -> None:
    contract = contract.replace(resize=resize, dtype=dtype, layout=layout)
    for size in ((64, 96), (31, 90)):
        frame = rng.integers(0, 256, (*size, 4), dtype=np.uint8)
        color = preprocess(np.ascontiguousarray(frame[..., :3]), contract)
        np.testing.assert_array_equal(preprocess(frame, contract), color)
        gray = preprocess(np.dstack([frame[..., 0]] * 3), contract)
        np.testing.assert_array_equal(preprocess(frame[..., 0], contract), gray)
        np.testing.assert_array_equal(preprocess(frame[..., :1], contract), gray)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_frames_need_not_be_contiguous(
    contract: InputContract, rng: np.random.Generator, resize: Any, dtype: Any, layout: Any
) -> None:
    contract = contract.replace(resize=resize, dtype=dtype, layout=layout)
    base = rng.integers(0, 256, (128, 192, 3), dtype=np.uint8)
    views = (
        base[::2, ::2],
        base[:64, :96][::-1, ::-1],
        base[:64, :96, ::-1],
        base[:96, :64].transpose(1, 0, 2),
    )
    for view in (*views, base[:100], base[::-1]):
        for channels in ("BGR", "RGB"):
            np.testing.assert_array_equal(
                preprocess(view, contract, channels=channels),
                preprocess(np.ascontiguousarray(view), contract, channels=channels),
            )
    frozen = base.copy()
    frozen.setflags(write=False)  # as from a video reader or a memory map
    np.testing.assert_array_equal(preprocess(frozen, contract), preprocess(base, contract))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_tensors_are_contiguous_and_not_the_frame(
    contract: InputContract, rng: np.random.Generator, layout: Any, dtype: Any
) -> None:
    """Runtimes hand the tensor's memory to a device, which may still read it when the camera overwrites."""
    contract = contract.replace(layout=layout, dtype=dtype)
    for frame in (
        rng.integers(0, 256, (64, 192, 3), dtype=np.uint8)[:, ::2],
        np.zeros((64, 96, 3), np.uint8),
    ):
        tensor = preprocess(frame, contract, channels=contract.channels)
        assert tensor.flags.c_contiguous
        assert not np.shares_memory(tensor, frame)


def resized_picture(frame: Array, height: int, width: int) -> Array:
    rows = (np.arange(height) + 0.5) * frame.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * frame.shape[1] / width - 0.5
    return np.dstack([sample(frame[..., c], rows, columns) for c in range(3)])


@pytest.mark.parametrize("size", [(30, 45), (100, 100), (64, 150), (127, 96), (5, 7)])
def test_stretch_fills_the_input_bilinearly(
    contract: InputContract, rng: np.random.Generator, size: Any
) -> None:
    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    tensor = preprocess(frame, contract.replace(layout="NHWC", dtype="uint8"), channels="RGB")
    assert np.abs(tensor[0] - resized_picture(frame, 64, 96)).max() <= 1


@pytest.mark.parametrize("times", [2, 4, 8])
def test_big_frames_are_averaged_not_sampled(
    contract: InputContract, rng: np.random.Generator, times: int
) -> None:
    frame = rng.integers(0, 256, (64 * times, 96 * times, 3), dtype=np.uint8)
    tensor = preprocess(frame, contract.replace(layout="NHWC", dtype="uint8"), channels="RGB")
    means = frame.reshape(64, times, 96, times, 3).mean((1, 3))
    assert np.abs(tensor[0] - means).max() <= np.log2(times)  # every halving rounds


@pytest.mark.parametrize("size", [(200, 300), (64 * 3, 96 * 3), (64 * 5, 96 * 6), (127 * 2, 96 * 9)])
def test_frames_are_halved_then_sampled(contract: InputContract, rng: np.random.Generator, size: Any) -> None:
    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    tensor = preprocess(frame, contract.replace(layout="NHWC", dtype="uint8"), channels="RGB")
    small = frame
    while small.shape[0] >= 2 * 64 and small.shape[1] >= 2 * 96:
        height, width = small.shape[0] // 2, small.shape[1] // 2
        sums = small.reshape(height, 2, width, 2, 3).sum((1, 3))
        small = ((sums + 2) // 4).astype(np.uint8)
    assert np.abs(tensor[0].astype(int) - resized_picture(small, 64, 96)).max() <= 1


def test_a_frame_of_odd_sides_is_not_shifted_by_halving(contract: InputContract) -> None:
    """A ramp stays the same ramp."""
    ramp = np.linspace(0, 255, 96 * 2 + 1).round().astype(np.uint8)
    frame = np.repeat(np.tile(ramp, (64 * 2 + 1, 1))[..., None], 3, axis=2)
    tensor = preprocess(frame, contract.replace(layout="NHWC", dtype="uint8"))
    centres = (np.arange(96) + 0.5) * len(ramp) / 96 - 0.5
    assert np.abs(tensor[0, :, :, 0] - np.interp(centres, np.arange(len(ramp)), ramp)).max() <= 1.5


def test_a_frame_that_shrinks_by_two_in_one_direction_only_is_sampled(contract: InputContract) -> None:
    """Averaging would give every column the mean of its three; bilinear takes the middle one."""
    frame = np.zeros((64, 96 * 3, 3), np.uint8)
    frame[:, 1::3] = 200
    tensor = preprocess(frame, contract.replace(layout="NHWC", dtype="uint8"))
    assert (tensor == 200).all()


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((64, 96), (0, 0, 64, 96)),
        ((128, 192), (0, 0, 64, 96)),
        ((64, 64), (0, 16, 64, 64)),
        ((10, 30), (16, 0, 32, 96)),
        ((100, 50), (0, 32, 64, 32)),
        ((50, 90), (5, 0, 53, 96)),  # 11 rows are left: 5 above, 6 below
        ((1, 1), (0, 16, 64, 64)),
        ((1, 4000), (31, 0, 1, 96)),
        ((4000, 1), (0, 47, 64, 1)),
    ],
)
def test_letterbox_keeps_the_aspect_ratio_in_the_middle(
    contract: InputContract, size: Any, place: Any
) -> None:
    contract = contract.replace(resize="letterbox", layout="NHWC")
    assert imaging.placement(contract, *size) == place
    tensor = preprocess(np.full((*size, 3), 255, np.uint8), contract)
    top, left, height, width = place
    inside = np.zeros((64, 96), bool)
    inside[top : top + height, left : left + width] = True
    assert (tensor[0][inside] == 127 / 128).all()
    assert (tensor[0][~inside] == 0).all()


def test_placement_of_stretch_is_the_whole_input(contract: InputContract) -> None:
    for size in SIZES:
        assert imaging.placement(contract, *size) == (0, 0, 64, 96)


@pytest.mark.parametrize("given", ["RGB", "BGR"])
@pytest.mark.parametrize("wanted", ["RGB", "BGR"])
def test_letterbox_pads_with_the_mean_of_every_channel(
    contract: InputContract, given: Any, wanted: Any
) -> None:
    contract = contract.replace(
        resize="letterbox", channels=wanted, mean=(20.0, 120.0, 220.0), std=(50.0, 60.0, 70.0)
    )
    tensor = preprocess(np.full((64, 32, 3), 255, np.uint8), contract, channels=given)
    np.testing.assert_allclose(tensor[0, :, :, :32], 0, atol=1e-6)
    raw = preprocess(np.full((64, 32, 3), 255, np.uint8), contract.replace(dtype="uint8"), channels=given)
    assert raw[0, :, 0, 0].tolist() == [20, 120, 220]


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (2, 3)])
def test_extreme_frames_in_and_masks_out(
    contract: InputContract, four_classes: InputContract, rng: np.random.Generator, resize: Any, size: Any
) -> None:
    frame = np.full((*size, 3), 200, np.uint8)
    for model in (contract, contract.replace(head="probability", threshold=0.25), four_classes):
        model = model.replace(resize=resize)
        tensor = preprocess(frame, model)
        assert tensor.shape == (1, 3, 64, 96)
        assert tensor.max() == (200 - 128) / 128
        output = rng.normal(size=(model.output_channels, 16, 24)).astype(np.float32)
        labels, scores = postprocess(output, model, *size)
        assert (labels.shape, labels.dtype) == (size, np.uint8)
        planes = np.stack([resized(plane, model, *size) for plane in output])
        if scores is None:
            np.testing.assert_array_equal(labels, planes.argmax(0))
        else:
            np.testing.assert_allclose(scores, planes[0], atol=1e-4)
            cut = 0.25 if model.head == "probability" else 0
            np.testing.assert_array_equal(labels, scores >= cut)


# -- network output -> mask ------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 4, 16])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", SIZES[:6])
def test_scores_equal_the_reference(
    contract: InputContract, rng: np.random.Generator, size: tuple[int, int], resize: Any, stride: int
) -> None:
    contract = contract.replace(resize=resize, head_stride=stride)
    output = rng.normal(size=(1, 64 // stride, 96 // stride)).astype(np.float32)
    labels, scores = postprocess(output, contract, *size)
    assert scores is not None
    assert (labels.dtype, scores.dtype) == (np.uint8, np.float32)
    wanted = resized(output[0], contract, *size)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    np.testing.assert_array_equal(labels, scores >= 0)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(80, 50), (50, 120), (300, 200)])
def test_shapes_come_back_where_they_were(
    contract: InputContract, rng: np.random.Generator, resize: Any, size: tuple[int, int]
) -> None:
    """An ideal network, whose logits are the brightness of every 4x4 block, returns the drawn masks."""
    contract = contract.replace(resize=resize, layout="NHWC")
    height, width = size
    shifts = []
    for _ in range(40):
        truth = np.zeros(size, np.uint8)
        y, x = rng.uniform(0.35, 0.65, 2) * size
        axes, angle = (width // 4, height // 4), float(rng.uniform(0, 180))
        cv2.ellipse(truth, (int(x), int(y)), axes, angle, 0, 360, 1, -1)
        tensor = preprocess(truth * 255, contract)
        logits = tensor[0, ..., :1].reshape(16, 4, 24, 4, 1).mean((1, 3))
        labels, _ = postprocess(logits, contract, *size)
        assert (labels & truth).sum() / (labels | truth).sum() > 0.92
        shifts.append(np.argwhere(labels).mean(0) - np.argwhere(truth).mean(0))
    per_input_pixel = max(height / 64, width / 96)
    assert np.abs(np.mean(shifts, 0)).max() < 0.15 * per_input_pixel  # half a pixel would be an off-by-one


def constant(value: float) -> Array:
    return np.full((1, 64, 96), value, np.float32)


def test_the_threshold_itself_is_foreground(contract: InputContract) -> None:
    for model, at in (
        (contract, 0.0),
        (contract.replace(head="probability"), 0.5),
        (contract.replace(head="probability", threshold=0.25), 0.25),
    ):
        assert postprocess(constant(at), model, 64, 96)[0].all()
        assert not postprocess(np.nextafter(constant(at), np.float32(-1)), model, 64, 96)[0].any()
        assert postprocess(np.nextafter(constant(at), np.float32(1)), model, 64, 96)[0].all()


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.6, 0.95])
def test_logits_are_cut_where_their_probability_reaches_the_threshold(
    contract: InputContract, rng: np.random.Generator, threshold: float
) -> None:
    logits = (3 * rng.normal(size=(1, 64, 96))).astype(np.float32)
    labels, scores = postprocess(logits, contract.replace(threshold=threshold), 64, 96)
    np.testing.assert_array_equal(scores, logits[0])
    probability = 1 / (1 + np.exp(-logits[0].astype(np.float64)))
    np.testing.assert_array_equal(labels, probability >= threshold)
    with_head = contract.replace(threshold=threshold, head="probability")
    again, scores = postprocess(probability[None].astype(np.float32), with_head, 64, 96)
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_array_equal(scores, probability.astype(np.float32))


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", SIZES[:6])
def test_several_classes_are_the_argmax_of_resized_planes(
    four_classes: InputContract, rng: np.random.Generator, size: tuple[int, int], resize: Any
) -> None:
    model = four_classes.replace(resize=resize)
    output = rng.normal(size=(4, 16, 24)).astype(np.float32)
    labels, scores = postprocess(output, model, *size)
    assert scores is None
    assert (labels.shape, labels.dtype) == (size, np.uint8)
    planes = np.stack([resized(plane, model, *size) for plane in output])
    second, first = np.sort(planes, 0)[-2:]
    clear = first - second > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], planes.argmax(0)[clear])


def test_a_tie_goes_to_the_lower_id(four_classes: InputContract) -> None:
    output = np.zeros((4, 16, 24), np.float32)
    output[2:] = 1
    assert (postprocess(output, four_classes, 64, 96)[0] == 2).all()


def test_256_classes(contract: InputContract) -> None:
    many = contract.replace(classes=tuple(ClassInfo(str(k), (k, k, k)) for k in range(256)))
    output = np.zeros((256, 16, 24), np.float32)
    for column in range(24):
        output[250 - 10 * column % 250, :, column] = 1
    labels, _ = postprocess(output, many, 16, 24)
    np.testing.assert_array_equal(labels, np.tile(output.argmax(0)[:1], (16, 1)))
    output[255] = 2
    assert (postprocess(output, many, 16, 24)[0] == 255).all()


@pytest.mark.parametrize("resize", RESIZES)
def test_nhwc_equals_nchw(
    contract: InputContract, four_classes: InputContract, rng: np.random.Generator, resize: Any
) -> None:
    for model in (contract, four_classes):
        model = model.replace(resize=resize)
        output = rng.normal(size=(model.output_channels, 16, 24)).astype(np.float32)
        nchw = postprocess(output, model, 75, 50)
        nhwc = postprocess(output.transpose(1, 2, 0), model.replace(layout="NHWC"), 75, 50)
        np.testing.assert_array_equal(nchw[0], nhwc[0])
        if nchw[1] is not None:
            np.testing.assert_array_equal(nchw[1], nhwc[1])


def test_half_precision_outputs_are_taken(contract: InputContract, rng: np.random.Generator) -> None:
    output = rng.normal(size=(1, 16, 24)).astype(np.float16)
    labels, scores = postprocess(output, contract, 40, 60)
    wanted, wanted_scores = postprocess(output.astype(np.float32), contract, 40, 60)
    np.testing.assert_array_equal(labels, wanted)
    np.testing.assert_array_equal(scores, wanted_scores)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("size", SIZES)
def test_classmaps_are_resized_to_the_nearest_id(
    four_classes: InputContract, rng: np.random.Generator, size: tuple[int, int], resize: Any, layout: Any
) -> None:
    model = four_classes.replace(resize=resize, head="classmap", layout=layout)
    ids = rng.integers(0, 4, (64, 96), dtype=np.uint8)
    labels, scores = postprocess(ids, model, *size)
    assert scores is None
    assert (labels.shape, labels.dtype) == (size, np.uint8)
    ys, xs = input_coordinates(model, *size)
    nearest = ids[np.floor(ys).astype(int)][:, np.floor(xs).astype(int)]
    # A centre on the border of two pixels is as near to one as to the other.
    clear = np.ix_(np.abs(ys - np.rint(ys)) > 0.02, np.abs(xs - np.rint(xs)) > 0.02)
    np.testing.assert_array_equal(labels[clear], nearest[clear])
    assert resize == "letterbox" or size != (64, 96) or (labels == ids).all()
    np.testing.assert_array_equal(postprocess(ids[None], model, *size)[0], labels)


def test_a_binary_classmap_has_no_scores(contract: InputContract) -> None:
    ids = np.eye(64, 96, dtype=np.uint8)
    labels, scores = postprocess(ids, contract.replace(head="classmap"), 64, 96)
    np.testing.assert_array_equal(labels, ids)
    assert scores is None


def test_the_output_is_not_changed(four_classes: InputContract, contract: InputContract) -> None:
    for model in (contract, four_classes):
        output = np.random.default_rng(0).normal(size=(model.output_channels, 64, 96)).astype(np.float32)
        before = output.copy()
        postprocess(output, model, 64, 96)
        np.testing.assert_array_equal(output, before)


# -- sigmoid -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (0, 4), (2, 3, 4), (2, 3, 600), (1, 2, 3, 4)])
def test_sigmoid_of_any_shape(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    logits = np.asarray(4 * rng.normal(size=shape), np.float32)
    result = sigmoid(logits)
    assert (result.shape, result.dtype) == (shape, np.float32)
    np.testing.assert_allclose(result, 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-6)


def test_sigmoid_saturates_in_silence() -> None:
    logits = np.array([[-np.inf, -3e38, -1e4, -88, 0, 88, 1e4, 3e38, np.inf]], np.float32)
    with np.errstate(all="raise"):
        result = sigmoid(logits)
    assert np.isfinite(result).all()
    assert (np.diff(result[0]) >= 0).all()
    np.testing.assert_allclose(result[0, :4], 0, atol=1e-30)
    assert result[0, 4] == 0.5
    assert (result[0, 5:] == 1).all()


# -- mask -> picture -------------------------------------------------------------------------------


def test_palette_is_bgr(four_classes: InputContract) -> None:
    table = imaging.palette(four_classes)
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    assert table[1:4].tolist() == [[0, 0, 255], [0, 200, 0], [30, 20, 10]]
    assert not table[0].any()
    assert not table[4:].any()


def outline_of(labels: Array, reach: int) -> Array:
    """Pixels of a class with a pixel of a lower one within ``reach``; the picture's edge is none."""
    height, width = labels.shape
    padded = np.pad(labels, reach, mode="edge")
    lowest = labels.copy()
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            lowest = np.minimum(lowest, padded[dy : dy + height, dx : dx + width])
    return lowest < labels


@pytest.mark.parametrize(("size", "reach"), [((40, 60), 1), ((700, 640), 2)])
def test_overlay_tints_and_outlines_all_but_the_background(
    four_classes: InputContract, rng: np.random.Generator, size: tuple[int, int], reach: int
) -> None:
    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    before = frame.copy()
    labels = np.zeros(size, np.uint8)
    labels[5:25, 10:30] = 1
    labels[15:, 20:45] = 2
    labels[20:30, 40:] = 3
    colors = imaging.palette(four_classes)[labels]
    outline = outline_of(labels, reach)
    inside = (labels > 0) & ~outline
    assert inside.any()
    for opacity in (0.0, 0.3, 1.0):
        result = imaging.overlay(frame, labels, four_classes, opacity=opacity)
        assert (result.shape, result.dtype) == (frame.shape, np.uint8)
        np.testing.assert_array_equal(result[labels == 0], frame[labels == 0])
        np.testing.assert_array_equal(result[outline], colors[outline])
        wanted = (1 - opacity) * frame + opacity * colors
        assert np.abs(result - wanted)[inside].max() <= 0.5 + 1e-5
    np.testing.assert_array_equal(frame, before)


def test_overlay_and_cutout_of_gray_and_alpha_frames(
    contract: InputContract, rng: np.random.Generator
) -> None:
    frame = rng.integers(0, 256, (5, 4, 4), dtype=np.uint8)
    labels = np.eye(5, 4, dtype=np.uint8)
    np.testing.assert_array_equal(
        imaging.overlay(frame, labels, contract), imaging.overlay(frame[..., :3], labels, contract)
    )
    assert imaging.overlay(frame[..., 0], labels, contract).shape == (5, 4, 3)
    gray = imaging.cutout(frame[..., 0], np.zeros((5, 4), np.float32))
    np.testing.assert_array_equal(gray, np.dstack([frame[..., 0]] * 3 + [np.zeros((5, 4), np.uint8)]))


def test_cutout_carries_the_probability_as_alpha(rng: np.random.Generator) -> None:
    frame = rng.integers(0, 256, (2, 3, 3), dtype=np.uint8)
    probability = np.array([[0, 1, 0.5], [0.1, 0.999, 1 / 255]], np.float32)
    result = imaging.cutout(frame, probability)
    np.testing.assert_array_equal(result[..., :3], frame)
    assert result.dtype == np.uint8
    # 127.5 goes to the even neighbour.
    assert result[..., 3].tolist() == [[0, 255, 128], [26, 255, 1]]


def test_logit_is_the_inverse_of_sigmoid() -> None:
    logits = np.linspace(-12, 12, 49, dtype=np.float32)
    assert np.allclose(imaging.logit(imaging.sigmoid(logits)), logits, atol=0.02 * np.abs(logits).max())
    assert np.abs(imaging.logit(np.array([0, 1], np.float32))).max() < 16.2


def test_hidden_files_of_a_folder_are_no_pictures(tmp_path: Path) -> None:
    """A Mac leaves ._ files beside those it copies: named as pictures, but none."""
    write_image(tmp_path / "b.jpg", np.zeros((4, 4, 3), np.uint8))
    write_image(tmp_path / "A.PNG", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "._b.jpg").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "notes.txt").write_text("no picture")
    assert [path.name for path in imaging.pictures_in(tmp_path)] == ["A.PNG", "b.jpg"]
