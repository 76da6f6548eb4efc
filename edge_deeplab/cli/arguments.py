"""Argument types that several commands share."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_deeplab.bench.device import Progress, Report
    from edge_deeplab.runtimes import Runtime


def size(text: str) -> tuple[int, int]:
    """``HxW`` or one number for both."""
    parts = text.lower().split("x")
    try:
        height, width = (int(p) for p in (parts * 2 if len(parts) == 1 else parts))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give HEIGHTxWIDTH, e.g. 256x256") from None
    if not (32 <= height <= 8192 and 32 <= width <= 8192):
        raise argparse.ArgumentTypeError(f"{text!r}: height and width must lie between 32 and 8192")
    return height, width


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return value


def port(text: str) -> int:
    """A TCP port; 0 for a free one."""
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number up to 65535")
    return int(text)


def number(text: str) -> float:
    """A number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least 0")
    return value


def add_runtime_options(parser: argparse.ArgumentParser) -> None:
    """``--threads``, ``--provider``, ``--delegate`` and ``--device`` of commands that run a model."""
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the runtime's choice)")
    parser.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        help="ONNX Runtime provider: cpu, cuda, tensorrt ...; repeat for fallbacks",
    )
    parser.add_argument(
        "--delegate",
        metavar="NAME",
        help="TFLite delegate: xnnpack (default), none, gpu, nnapi, edgetpu or a library's path",
    )
    parser.add_argument("--device", metavar="DEV", help="PyTorch device: cpu, cuda ...")


def open_from(args: argparse.Namespace, model: str | None = None, **more: Any) -> Runtime:
    """Open ``args.model`` (or ``model``) with the options above, and ``more``."""
    from edge_deeplab.runtimes import open_model

    options: dict[str, Any] = dict(more)
    if args.provider:
        options["providers"] = args.provider
    if args.delegate:
        options["delegate"] = args.delegate
    if args.device:
        options["device"] = args.device
    return open_model(model or args.model, threads=args.threads, **options)


def bar(items: Any, **options: Any) -> Any:
    """A progress bar on standard error, where a person is looking; plain iteration elsewhere."""
    tqdm = _tqdm()
    return items if tqdm is None else tqdm(items, leave=False, **options)


def _tqdm() -> Any:
    """tqdm's bar; None where nobody is looking or it is not installed."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm


class PhaseBar:
    """A bar for each phase of a benchmark, where a person is looking."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._phase = ""

    def __enter__(self) -> Report:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _show(self, progress: Progress) -> None:
        tqdm = _tqdm()
        if tqdm is None:
            return
        if progress.phase != self._phase:
            self.__exit__()
            self._bar, self._phase = tqdm(desc=progress.phase, leave=False), progress.phase
        self._bar.total = progress.total or None
        self._bar.n = progress.done
        self._bar.set_postfix_str(progress.text)
