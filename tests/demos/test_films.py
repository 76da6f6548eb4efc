"""Films: every frame with its time, colours and turn kept, sound kept, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_deeplab.demos.films import FORMATS, FilmReader, FilmWriter
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import Frame
from tests.demos.support import av, frame, frames_of, make_film, turn

SUFFIXES = sorted(FORMATS)


def plain(color: tuple[int, int, int], height: int = 64, width: int = 96) -> Frame:
    return np.full((height, width, 3), color, np.uint8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    written = [frame(number) for number in range(10)]
    with FilmWriter(path, 25) as writer:
        for number, picture in enumerate(written):
            writer.write(picture, number / 25)
    assert writer.frames == 10
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with FilmReader(path) as film:
        found = list(film.read())
        assert film.rate == pytest.approx(25)
        assert film.frames == pytest.approx(10, abs=1)
    assert len(found) == 10
    for number, (timed, picture) in enumerate(zip(found, written, strict=True)):
        assert timed.seconds == pytest.approx(number / 25, abs=0.002)
        assert np.abs(timed.frame.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("color", [(20, 40, 220), (200, 60, 30), (40, 180, 60), (128, 128, 128)])
@pytest.mark.parametrize("height", [64, 720])
def test_colours_stay(tmp_path: Path, color: tuple[int, int, int], height: int) -> None:
    """Also in other programs: OpenCV reads what the file says about its colours."""
    path = tmp_path / "film.mp4"
    with FilmWriter(path, 30) as writer:
        writer.write(plain(color, height), 0)
    with FilmReader(path) as film:
        (timed,) = film.read()
    assert np.abs(timed.frame.reshape(-1, 3).mean(0) - color).max() <= 2
    read, other = cv2.VideoCapture(str(path)).read()
    assert read
    assert np.abs(other.reshape(-1, 3).mean(0) - color).max() <= 4


def test_frames_keep_their_own_times(tmp_path: Path) -> None:
    """A camera in the dark slows down; the recording must not run faster for it."""
    times = [0, 0.033, 0.066, 0.5, 0.6, 1.25]
    with FilmWriter(tmp_path / "film.mp4", 30) as writer:
        for number, seconds in enumerate(times):
            writer.write(frame(number), seconds)
    with FilmReader(tmp_path / "film.mp4") as film:
        assert [timed.seconds for timed in film.read()] == pytest.approx(times, abs=0.001)


def test_times_that_do_not_rise_are_moved_not_refused(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "film.mp4", 30) as writer:
        for seconds in (0, 0, 0.5, 0.4):
            writer.write(frame(0), seconds)
    assert len(frames_of(tmp_path / "film.mp4")) == 4


@pytest.mark.parametrize(("height", "width"), [(63, 97), (1, 1), (2160, 3840)])
def test_any_size(tmp_path: Path, height: int, width: int) -> None:
    """H.264 wants even sides: the edge is repeated, nothing is scaled."""
    path = tmp_path / "film.mp4"
    picture = plain((90, 120, 150), height, width)
    with FilmWriter(path, 30) as writer:
        writer.write(picture, 0)
    (found,) = frames_of(path)
    assert found.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(found.astype(int) - picture[0, 0]).max() <= 4


def test_a_frame_of_another_size_is_fitted(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "film.mp4", 30) as writer:
        writer.write(frame(0), 0)
        writer.write(frame(1, 240, 160), 0.1)
    assert [f.shape for f in frames_of(tmp_path / "film.mp4")] == [(120, 160, 3)] * 2


def test_transparency_stays_in_webm(tmp_path: Path) -> None:
    alpha = np.zeros((64, 96, 1), np.uint8)
    alpha[:, :48] = 255
    with FilmWriter(tmp_path / "film.webm", 30) as writer:
        for number in range(3):
            writer.write(np.dstack([plain((10, 200, 30)), alpha]), number / 30)
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    with av.open(str(tmp_path / "film.webm")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        decoder.extradata = container.streams.video[0].codec_context.extradata
        found = next(f for packet in packets for f in decoder.decode(packet)).to_ndarray(format="bgra")
    assert found[:, :40, 3].min() > 250
    assert found[:, 56:, 3].max() < 5


# -- sound -------------------------------------------------------------------------------------


def tone(path: Path) -> tuple[str, float, float]:
    """Codec, seconds and loudest frequency of a film's sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        name = stream.codec_context.name
        blocks = [f.to_ndarray().astype(np.float64).mean(0) for f in container.decode(audio=0)]
        wave = np.concatenate([b.reshape(-1) for b in blocks])
        rate = stream.codec_context.sample_rate
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return name, len(wave) / rate, float(np.argmax(spectrum) * rate / len(wave))


@pytest.mark.parametrize(
    ("source", "sound", "target", "codec"),
    [
        pytest.param("in.mp4", "aac", "out.mp4", "aac", id="copied"),
        pytest.param("in.mkv", "flac", "out.mkv", "flac", id="copied into Matroska"),
        pytest.param("in.avi", "pcm_s16le", "out.webm", "opus", id="encoded for WebM"),
        pytest.param("in.ts", "aac", "out.mp4", "aac", id="ADTS into MP4"),
        pytest.param("in.ts", "mp2", "out.mkv", "mp2", id="copied from a clock at five seconds"),
        pytest.param("in.ts", "mp2", "out.webm", "opus", id="encoded from a clock at five seconds"),
    ],
)
def test_sound_is_kept(tmp_path: Path, source: str, sound: str, target: str, codec: str) -> None:
    make_film(tmp_path / source, 45, sound=sound, begin=5.0 if source == "in.ts" else 0.0)
    with (
        FilmReader(tmp_path / source) as film,
        FilmWriter(tmp_path / target, film.rate, film.audio) as writer,
    ):
        for timed in film.read(writer.sound):
            writer.write(timed.frame, timed.seconds)
    name, seconds, frequency = tone(tmp_path / target)
    assert codec in name
    assert seconds == pytest.approx(1.5, abs=0.1)
    assert frequency == pytest.approx(440, abs=5)
    assert len(frames_of(tmp_path / target)) == 45
    # Encoded AAC has 1024 samples before its beginning, which players leave out.
    wanted = sound_ahead(tmp_path / source)
    assert sound_ahead(tmp_path / target) == pytest.approx(wanted, abs=0.03 if source == "in.ts" else 0.01)


def sound_ahead(path: Path) -> float:
    """Seconds by which the first packet of sound comes before the first picture."""
    first: dict[str, float] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None:
                kind, seconds = packet.stream.type, float(packet.pts * packet.time_base)
                first[kind] = min(seconds, first.get(kind, seconds))
    return first["video"] - first["audio"]


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_films_from_phones_are_upright(tmp_path: Path, degrees: int) -> None:
    path = make_film(tmp_path / "phone.mp4", 2)
    flat = frames_of(path)[0]
    turn(path, degrees)
    with FilmReader(path) as film:
        found = next(iter(film.read())).frame
    upright = np.rot90(flat, -degrees // 90)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 3


def test_pixels_that_are_not_square_become_so(tmp_path: Path) -> None:
    path = make_film(tmp_path / "dv.mp4", 2, aspect=Fraction(4, 3))
    with FilmReader(path) as film:
        (first, _) = film.read()
    assert first.frame.shape == (120, 213, 3)
    turn(path, 90)  # the pixels are turned, too
    with FilmReader(path) as film:
        assert next(iter(film.read())).frame.shape == (213, 120, 3)


def test_what_is_damaged_is_passed_over(tmp_path: Path) -> None:
    """Three packets of noise in a film of sixty: as FFmpeg itself, it goes on behind them."""
    whole, path = make_film(tmp_path / "whole.mp4", 60), tmp_path / "film.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            copy = packet
            if number in (20, 21, 22):
                copy = av.Packet(np.random.default_rng(number).bytes(packet.size))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.stream = stream
            target.mux(copy)
    with FilmReader(path) as film:
        found = list(film.read())
        assert film.damaged == 3
    assert len(found) == 57
    assert found[-1].seconds == pytest.approx(59 / 30, abs=0.05)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), (b"Dear reader,\n" * 50, "no film that FFmpeg can decode"), (b"", "no film")],
)
def test_what_is_no_film(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        FilmReader(path)


def test_sound_alone_is_no_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
        block.sample_rate = 48_000
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="no pictures"):
        FilmReader(tmp_path / "sound.mp4")


# -- whole or not at all -------------------------------------------------------------------------


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("was here before")
    with pytest.raises(RuntimeError), FilmWriter(tmp_path / "film.mp4", 30) as writer:
        writer.write(frame(0), 0)
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]
    assert (tmp_path / "film.mp4").read_text() == "was here before"


def test_a_recording_survives_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), FilmWriter(tmp_path / "film.mp4", 30, keep=True) as writer:
        for number in range(5):
            writer.write(frame(number), number / 30)
        raise KeyboardInterrupt
    assert len(frames_of(tmp_path / "film.mp4")) == 5


@pytest.mark.parametrize("keep", [True, False])
def test_no_frames_no_film(tmp_path: Path, keep: bool) -> None:
    with pytest.raises(UserError, match="no frames"), FilmWriter(tmp_path / "film.mp4", 30, keep=keep):
        pass
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"films are written as \.mkv|\.mp4"):
        FilmWriter(tmp_path / "film.gif", 30)
    assert list(tmp_path.iterdir()) == []


NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)


def test_a_full_disk(tmp_path: Path, full_disk: type[AbstractContextManager[None]]) -> None:
    with (
        full_disk(4000),  # type: ignore[call-arg]
        pytest.raises(UserError, match="cannot write"),
        FilmWriter(tmp_path / "film.mp4", 30) as writer,
    ):
        for number in range(90):
            writer.write(NOISE, number / 30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_recorded_before_the_disk_was_full_is_kept(
    tmp_path: Path, full_disk: type[AbstractContextManager[None]], suffix: str
) -> None:
    path = tmp_path / f"film{suffix}"
    with (
        full_disk(400_000),  # type: ignore[call-arg]
        pytest.raises(UserError, match=rf"cannot write .* what came before is in {path}"),
        FilmWriter(path, 30, keep=True) as writer,
    ):
        for number in range(200):
            writer.write(np.roll(NOISE, 7 * number, 0), number / 30)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert len(frames_of(path, until_broken=True)) >= 25


KILLED = """
import os, sys
from edge_deeplab.demos.films import FilmWriter
from tests.demos.support import frame
with FilmWriter(sys.argv[1], 30) as writer:
    for number in range(90):
        writer.write(frame(number), number / 30)
    os._exit(9)
"""


def test_a_killed_recording_can_be_played(tmp_path: Path) -> None:
    """Up to the last second or so; under the name it had while it was being written."""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "film.mp4")], check=False, cwd=root)
    (part,) = tmp_path.iterdir()
    assert part.name.startswith(".part-")
    assert len(frames_of(part)) >= 30
