"""Reading and writing films with PyAV (FFmpeg): every frame with its time, the sound kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_deeplab.composite import fit
from edge_deeplab.errors import UserError, because, needs
from edge_deeplab.files import whole_file
from edge_deeplab.imaging import Frame

CLOCK = Fraction(1, 90_000)
"""Unit of time in the films we write; frame times of all usual rates are whole in it."""

BT709, BT601, LIMITED = 1, 5, 1
"""FFmpeg's numbers of two colour matrices, and of the range 16..235."""

MATRICES = (BT709, 4, BT601, 6, 7, 9)
"""Colour matrices that FFmpeg converts from."""

HDR = (16, 18)
"""FFmpeg's numbers of the PQ and HLG transfer curves."""


@dataclass(frozen=True)
class Format:
    """How a container is filled.

    Attributes:
        encoders: Best first; the first that this FFmpeg has is taken.
        audio: Encoder for sound that the container cannot hold as it is.
        options: Of the container.
        transparent: Keeps the alpha of four-channel pictures.
    """

    encoders: tuple[str, ...]
    audio: str
    options: dict[str, str]
    transparent: bool = False


# Readable up to the last second even if the process is killed; an ordinary file once it is closed. The head
# is written late because it must say how far before zero sound and pictures begin, or they come apart.
_RESILIENT = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000", "flush_packets": "1"}
_H264 = ("libx264", "libopenh264", "h264_videotoolbox", "mpeg4")

FORMATS = {
    ".mp4": Format(_H264, "aac", _RESILIENT),
    ".mov": Format(_H264, "aac", _RESILIENT),
    ".mkv": Format(_H264, "aac", {"flush_packets": "1"}),
    ".webm": Format(("libvpx-vp9",), "libopus", {"flush_packets": "1"}, transparent=True),
}

QUALITY: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "7", "crf": "30", "b": "0", "row-mt": "1"},
}
"""Settings of the encoders that have a constant quality."""

BITS_PER_PIXEL = 0.15
"""For encoders that want a bit rate."""


def format_of(path: str | Path) -> Format:
    """The format that a file name asks for.

    Raises:
        UserError: None that we write.
    """
    found = FORMATS.get(Path(path).suffix.lower())
    if found is None:
        raise UserError(f"cannot write {path}: films are written as {', '.join(FORMATS)}")
    return found


# -- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """A frame, BGR uint8 (H, W, 3), and its time in seconds from the start."""

    frame: Frame
    seconds: float


class FilmReader:
    """Reads a film frame by frame: upright, square pixels, the right colours. Use as a context manager.

    Attributes:
        rate: Frames per second, on average.
        audio: Its streams of sound.
        hdr: Its colours are meant for HDR screens.
        damaged: Packets so far that gave no picture, and were passed over.

    Raises:
        UserError: Missing, damaged, or without pictures.
    """

    def __init__(self, path: str | Path) -> None:
        with needs("demo"):
            import av
        self._errors: tuple[type[Exception], ...] = (av.error.FFmpegError, ValueError)
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"cannot read {path}: no such file")
        try:
            self._container: Any = av.open(str(path))
        except self._errors as error:
            raise UserError(f"cannot read {path}: no film that FFmpeg can decode") from error
        if not self._container.streams.video:
            self._container.close()
            raise UserError(f"cannot read {path}: there are no pictures in it")
        self._video = self._container.streams.video[0]
        self._video.thread_type = "AUTO"
        self.audio: list[Any] = list(self._container.streams.audio)
        self.rate = float(self._video.average_rate or self._video.guessed_rate or 30)
        self.hdr = self._video.codec_context.color_trc in HDR
        self.damaged = 0

    @property
    def frames(self) -> int | None:
        """How many frames there are, as far as the file says."""
        if self._video.frames:
            return int(self._video.frames)
        seconds = (self._container.duration or 0) / 1e6
        return round(seconds * self.rate) or None

    def read(self, sound: Callable[[Any], None] | None = None) -> Iterator[Timed]:
        """All frames.

        Args:
            sound: Given every packet of sound as it comes by.

        Raises:
            UserError: The film is damaged beyond what FFmpeg can skip.
        """
        begin = Fraction(self._container.start_time or 0, 1_000_000)
        count = 0
        try:
            for packet in self._container.demux(self._video, *self.audio):
                if packet.stream.type == "audio":
                    if sound is not None:
                        sound(_from_zero(packet, begin))
                    continue
                for frame in self._pictures(packet):
                    seconds = count / self.rate if frame.time is None else frame.time - float(begin)
                    count += 1
                    picture = _bgr(frame, self._video.sample_aspect_ratio)
                    yield Timed(_upright(picture, frame.rotation), seconds)
        except self._errors as error:
            raise UserError(f"cannot read {self.path} beyond frame {count}: {error}") from error
        if not count:
            raise UserError(f"cannot read {self.path}: not a single frame can be decoded")

    def _pictures(self, packet: Any) -> list[Any]:
        """The frames that a packet completes; none where it is damaged, or the film was cut before it."""
        try:
            return list(packet.decode())
        except self._errors:
            self.damaged += 1
            return []

    def __enter__(self) -> FilmReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()


def _bgr(frame: Any, aspect: Fraction | None) -> Frame:
    """A decoded frame as BGR; one that does not name its colours has those usual for its size.

    ``aspect`` is that of its pixels: those of DV, DVD and some TV are not square, ours are.
    """
    matrix = int(frame.colorspace)
    if matrix not in MATRICES:
        matrix = BT709 if frame.height >= 720 else BT601
    width = round(frame.width * aspect) if aspect else frame.width
    picture = frame.reformat(width=width, format="bgr24", src_colorspace=matrix, interpolation=_careful())
    return picture.to_ndarray()


@cache
def _careful() -> Any:
    """Bilinear, rounded instead of cut off: FFmpeg's quick way darkens a picture by two levels a turn."""
    from av.video.reformatter import Interpolation

    how: Any = Interpolation
    if not hasattr(how, "FULL_CHR_H_INT"):  # PyAV before 18
        return None
    return how.BILINEAR | how.ACCURATE_RND | how.FULL_CHR_H_INP | how.FULL_CHR_H_INT


def _from_zero(packet: Any, begin: Fraction) -> Any:
    """A packet of sound, moved as the pictures are: films often begin at 1.4 s, captures at any hour."""
    shift = round(begin / packet.time_base) if packet.time_base else 0
    if packet.pts is not None:
        packet.pts -= shift
    if packet.dts is not None:
        packet.dts -= shift
    return packet


def _upright(frame: Frame, degrees: float) -> Frame:
    """Turned counterclockwise by a multiple of 90 degrees."""
    turns = round(degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame


# -- writing -----------------------------------------------------------------------------------


class FilmWriter:
    """Writes a film: H.264 in ``.mp4``, ``.mov`` and ``.mkv``, VP9 in ``.webm``. Use as a context manager.

    The file gets its name when the block ends. After an error or Ctrl-C there is none, unless ``keep``.

    Args:
        path: Where to; the suffix chooses the format.
        rate: Frames per second, a hint for players; every frame brings its own time.
        audio: Streams of a :class:`FilmReader` whose sound is kept.
        keep: Finish the file after an error or Ctrl-C too: what was recorded is not thrown away.

    Raises:
        UserError: Another suffix, an unwritable place, a full disk.
    """

    def __init__(
        self, path: str | Path, rate: float, audio: Sequence[Any] = (), *, keep: bool = False
    ) -> None:
        with needs("demo"):
            import av
        self._av: Any = av
        self._keep = keep
        self.path = Path(path)
        self._format = format_of(path)
        self._rate = Fraction(rate).limit_denominator(1001)
        self._stack = ExitStack()
        self._file = Path(self._stack.enter_context(whole_file(path)))
        self._container: Any = av.open(str(self._file), "w", options=self._format.options)
        self._sound = {source: _Sound(self._container, source, self._format.audio, av) for source in audio}
        self._early: list[Any] = []
        self._video: Any = None
        self._last = -1
        self.frames = 0

    def write(self, picture: Frame, seconds: float) -> None:
        """Add a frame.

        Args:
            picture: BGR uint8 (H, W, 3), or BGRA for formats that keep transparency. A frame of another
                size than the first is scaled to fit it.
            seconds: Its time; later than that of the frame before.
        """
        if self._video is None:
            self._begin(picture)
        time = max(self._last + 1, round(seconds / CLOCK))
        self._last = time
        frame = self._encodable(picture)
        frame.pts, frame.time_base = time, CLOCK
        self._mux(self._video.encode(frame))
        self.frames += 1

    def sound(self, packet: Any) -> None:
        """Add a packet of one of the streams given as ``audio``."""
        if self._video is None:  # the container's head is written with the first packet: not yet complete
            self._early.append(packet)
        else:
            self._mux(self._sound[packet.stream].packets(packet))

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Finish the file, or leave nothing; with ``keep`` leave as much as could be written."""
        problem = self._finish() if error is None or self._keep else None
        try:
            self._container.close()
        except self._av.error.FFmpegError as failure:
            problem = problem or _unwritable(self.path, failure)
        if self.frames and (self._keep or not (error or problem)):
            self._stack.close()
            if problem:
                raise UserError(f"{problem}; what came before is in {self.path}") from problem
            return
        error = error or problem or UserError(f"no frames for {self.path}: nothing was written")
        self._stack.__exit__(type(error), error, None)
        if kind is None:
            raise error

    def _finish(self) -> UserError | None:
        """Write what the encoders still hold; what kept them from it, if anything."""
        if not self.frames:
            return None
        try:
            self._mux(self._video.encode(None))
            for sound in self._sound.values():
                self._mux(sound.rest())
        except UserError as problem:
            return problem
        return None

    def _begin(self, picture: Frame) -> None:
        height, width = picture.shape[:2]
        name = next((n for n in self._format.encoders if n in self._av.codecs_available), None)
        if name is None:
            raise UserError(f"this PyAV has no encoder for {self.path.suffix} ({self._format.encoders[0]})")
        options = QUALITY.get(name, {})
        video: Any = self._container.add_stream(name, rate=self._rate, options=options)
        # Chroma is kept for 2x2 pixels: both sides must be even. The picture is repeated at its edge.
        video.width, video.height = width + width % 2, height + height % 2
        video.pix_fmt = "yuva420p" if self._format.transparent and picture.shape[2] == 4 else "yuv420p"
        context = video.codec_context
        context.time_base = CLOCK
        context.gop_size = max(1, round(2 * self._rate))
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        if not options:
            context.bit_rate = int(BITS_PER_PIXEL * width * height * self._rate)
        self._video = video
        early, self._early = self._early, []
        for packet in early:
            self.sound(packet)

    def _encodable(self, picture: Frame) -> Any:
        height, width = picture.shape[:2]
        if (width + width % 2, height + height % 2) != (self._video.width, self._video.height):
            picture = fit(picture, self._video.height, self._video.width)
        elif width % 2 or height % 2:
            picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        frame = self._av.VideoFrame.from_ndarray(picture, format="bgra" if picture.shape[2] == 4 else "bgr24")
        return frame.reformat(
            format=self._video.pix_fmt,
            dst_colorspace=BT709,
            dst_color_range=LIMITED,
            interpolation=_careful(),
        )

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except self._av.error.FFmpegError as error:
            raise _unwritable(self.path, error) from error


class _Sound:
    """One stream of sound on its way into another file: copied where the container takes it, else encoded."""

    def __init__(self, container: Any, source: Any, encoder: str, av: Any) -> None:
        context = source.codec_context
        # Transport streams carry AAC in its ADTS form, without the head that other containers want.
        headless = context.name == "aac" and not context.extradata
        self._copy = context.name in container.supported_codecs and not headless
        if self._copy:
            self.stream = container.add_stream_from_template(source)
        else:
            self.stream = container.add_stream(encoder, rate=48_000)
            self.stream.layout = "stereo" if source.codec_context.layout.nb_channels > 1 else "mono"
            self._resampler = av.AudioResampler(
                self.stream.format, self.stream.layout, self.stream.rate, self.stream.codec_context.frame_size
            )

    def packets(self, packet: Any) -> Iterator[Any]:
        if self._copy:
            if packet.dts is not None:  # the empty packet that ends a stream is not copied
                packet.stream = self.stream
                yield packet
            return
        for frame in packet.decode():
            for part in self._resampler.resample(frame):
                yield from self.stream.encode(part)

    def rest(self) -> Iterator[Any]:
        if not self._copy:
            for part in self._resampler.resample(None):
                yield from self.stream.encode(part)
            yield from self.stream.encode(None)


def _unwritable(path: Path, error: Exception) -> UserError:
    reason = because(error) if isinstance(error, OSError) else str(error)
    return UserError(f"cannot write {path}: {reason}; choose another place or free it")
