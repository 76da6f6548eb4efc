"""A Jetson's CSI camera through GStreamer and OpenCV, always on the newest frame.

    python -m edge_deeplab.demos.embed_jetson --model portrait.engine        # on the Jetson
    python -m edge_deeplab.demos.embed_jetson --test --frames 100            # anywhere with GStreamer
    python -m edge_deeplab.demos.embed_jetson --source film.mp4              # anywhere

NVIDIA's camera driver writes into GPU memory (NVMM); ``nvvidconv`` scales and converts there, so the CPU
gets small BGRx frames. ``appsink drop=true max-buffers=1`` keeps one frame: a slow model falls behind by
one frame, not by more and more. Needs an OpenCV built with GStreamer, like JetPack's; pip's are not.

Run so far: the test picture and films, with OpenCV 4.6 and GStreamer 1.22 on a PC. The camera's half,
``nvarguscamerasrc`` and ``nvvidconv``, has never run: there was no Jetson.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing

from edge_deeplab.demos.live.sources import Source, open_source
from edge_deeplab.errors import UserError
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import Runtime, open_model

SINK = "video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"


def csi_pipeline(
    *, sensor: int = 0, capture: tuple[int, int] = (1280, 720), size: tuple[int, int] = (640, 480),
    rate: int = 30, flip: int = 0,
) -> str:  # fmt: skip
    """GStreamer pipeline for a CSI camera.

    Args:
        sensor: Which camera, 0 or 1.
        capture: Width and height of a mode of the sensor (``v4l2-ctl --list-formats-ext``).
        size: Width and height of the frames that come out.
        rate: Frames per second.
        flip: ``nvvidconv``'s flip-method; 2 for a camera mounted upside down.
    """
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM), width={capture[0]}, height={capture[1]}, "
        f"framerate={rate}/1, format=NV12 ! "
        f"nvvidconv flip-method={flip} ! video/x-raw, width={size[0]}, height={size[1]}, format=BGRx ! "
        f"videoconvert ! {SINK}"
    )


def test_pipeline(*, size: tuple[int, int] = (640, 480), rate: int = 30) -> str:
    """The same from a test picture, for computers without such a camera."""
    return (
        f"videotestsrc is-live=true ! video/x-raw, width={size[0]}, height={size[1]}, framerate={rate}/1 ! "
        f"videoconvert ! {SINK}"
    )


def run(camera: Source, model: Runtime, frames: int) -> int:
    """Segment up to so many frames, say how fast, and return how many there were."""
    matte = Matte()
    begin = before = time.perf_counter()
    for number in range(frames):
        frame = camera.read()
        if frame is None:
            return number
        now = time.perf_counter()
        alpha = matte.update(frame, model.segment(frame).logits, now - before)
        before = now
        if number % 30 == 29:
            rate = (number + 1) / (time.perf_counter() - begin)
            print(f"{rate:.1f} frames a second, {alpha.mean():.0%} person")
    return frames


def main() -> int:
    """Command line of the example."""
    parser = argparse.ArgumentParser(description="segment a Jetson's CSI camera")
    parser.add_argument("--model", default="portrait", help="a shipped name or an artefact, e.g. an engine")
    parser.add_argument("--sensor", type=int, default=0, help="which CSI camera")
    parser.add_argument("--flip", type=int, default=0, help="2 for a camera mounted upside down")
    parser.add_argument("--frames", type=int, default=300, help="how many")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--test", action="store_true", help="GStreamer's test picture instead of the camera")
    other.add_argument("--source", help="a film, a folder of pictures, or another camera instead")
    args = parser.parse_args()
    camera = args.source or (
        test_pipeline() if args.test else csi_pipeline(sensor=args.sensor, flip=args.flip)
    )
    try:
        with closing(open_source(camera)) as source, open_model(args.model) as model:
            done = run(source, model.warmup(), args.frames)
    except UserError as error:
        print(f"embed_jetson: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"{done} frames")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
