"""``edge-deeplab demo webcam [SOURCE]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_deeplab.cli import Command
from edge_deeplab.cli.arguments import open_from
from edge_deeplab.demos.options import add_motion_options, add_view_options, view_from

if TYPE_CHECKING:
    from contextlib import ExitStack

    from edge_deeplab.demos.live.app import Output


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        default="0",
        metavar="SOURCE",
        help="a camera's number or device path, a URL (rtsp://, http://), a film, a folder of pictures, or a "
        "GStreamer pipeline that ends in appsink; default: camera 0",
    )
    add_view_options(parser)
    parser.add_argument("--mirror", action="store_true", help="swap left and right, as a mirror does")
    parser.add_argument(
        "--camera-size", type=_size, metavar="WxH", help="what to ask the camera for, e.g. 1280x720"
    )
    parser.add_argument(
        "--rate", type=_rate, metavar="FPS", help="frames per second to ask for, or to play at"
    )
    parser.add_argument("--loop", action="store_true", help="a film or folder begins again at its end")
    add_motion_options(parser)
    parser.add_argument("--record", metavar="PATH", help="write what is shown to .mp4, .mov, .mkv or .webm")
    parser.add_argument(
        "--snapshot",
        nargs="?",
        const="snapshot.png",
        default="",
        metavar="PATH",
        help="write the last picture at the end; default name: snapshot.png (key P takes one at any time)",
    )
    parser.add_argument(
        "--log", metavar="PATH", help="write the figures of every second, one JSON object a line"
    )
    parser.add_argument(
        "--window",
        choices=("tk", "opencv"),
        help="whose window; default: Tk's, or OpenCV's where there is no Tk",
    )
    parser.add_argument("--headless", action="store_true", help="no window")
    parser.add_argument(
        "--virtual-camera",
        nargs="?",
        const="",
        metavar="DEVICE",
        help="send the result to a virtual camera that video calls can choose",
    )
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="end after this time")
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="how long to wait for a camera that was unplugged; default: 60",
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give WIDTHxHEIGHT, e.g. 1280x720")
    return int(width), int(height)


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from {low:g} to {high:g}")
    return value


def _rate(text: str) -> float:
    return _number(text, 0.01, 1000)


def _seconds(text: str) -> float:
    return _number(text, 0, 1e9)


def _run(args: argparse.Namespace) -> int:
    from contextlib import ExitStack, closing

    from edge_deeplab.demos.live.app import App
    from edge_deeplab.demos.live.journal import Journal
    from edge_deeplab.demos.live.loop import Live, Settings
    from edge_deeplab.demos.live.sources import open_source, quiet
    from edge_deeplab.demos.live.window import open_window
    from edge_deeplab.imaging import check_picture

    if args.snapshot:
        check_picture(args.snapshot)
    view = view_from(args, keys=not args.headless)
    settings = Settings(args.mirror, not args.no_smooth, not args.no_refine, args.every, args.wait)
    with ExitStack() as stack:
        stack.enter_context(quiet())  # we say ourselves when a stream gives nothing
        stack.callback(view.background.close)
        source = open_source(args.source, size=args.camera_size, rate=args.rate, loop=args.loop)
        stack.enter_context(closing(source))
        model = stack.enter_context(open_from(args)).warmup()
        window = None
        if not args.headless:
            window = stack.enter_context(
                closing(open_window(f"edge-deeplab: {model.contract.name}", args.window))
            )
        outputs = _outputs(args, source.rate, stack)
        journal = stack.enter_context(Journal(args.log)) if args.log else None
        live = stack.enter_context(Live(source, model, settings, say=_say))
        app = App(live, view, window, outputs, args.snapshot, journal, say=_say)
        with _ctrl_c() as pressed:
            app.run(lambda: pressed() or (args.seconds is not None and app.figures.seconds >= args.seconds))
    # The recording is finished by now.
    for line in app.figures.summary(live):
        print(line, flush=True)  # before what is said of Ctrl-C on standard error
    if args.record:
        recorded = outputs[0]
        print(f"recorded {args.record}: {recorded.frames} frames, {recorded.dropped} dropped", flush=True)  # type: ignore[attr-defined]
    if pressed():
        raise KeyboardInterrupt
    return 0


def _outputs(args: argparse.Namespace, rate: float, stack: ExitStack) -> list[Output]:
    from edge_deeplab.demos.live.recorder import Recorder
    from edge_deeplab.demos.live.virtual_camera import VirtualCamera

    outputs: list[Output] = []
    if args.record:
        outputs.append(stack.enter_context(Recorder(args.record, rate)))
    if args.virtual_camera is not None:
        outputs.append(stack.enter_context(VirtualCamera(args.virtual_camera, rate)))
    return outputs


def _say(message: str) -> None:
    """At once, on standard error: standard output is for the figures at the end."""
    import sys

    print(message, file=sys.stderr, flush=True)


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and a polite kill end the loop after the frame at hand; a second one ends at once."""
    import signal

    seen: list[int] = []

    def note(number: int, _: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


DEMO = Command("a camera, live in a window: blur, replace or cut away what is behind you", _arguments, _run)
