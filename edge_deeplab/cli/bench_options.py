"""The options of ``edge-deeplab bench``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

from edge_deeplab.cli.arguments import positive, size
from edge_deeplab.cli.given import leave_out
from edge_deeplab.errors import UserError

Value = TypeVar("Value")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add them all."""
    from edge_deeplab.bench.device import devices

    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help="shipped names (every file of theirs), files, or folders of artefacts; or the word compare and "
        "two JSON files; or the word report and JSON files",
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="FILE[,KEY=VALUE...]",
        help="somebody else's .tflite or .onnx; keys name, mean, std (one number or a/b/c), "
        "channels (RGB, BGR), output (probability, logit, two-logits, class:K)",
    )
    what.add_argument(
        "--threads",
        type=_list_of(_threads),
        default=(1,),
        metavar="N,...",
        help="CPU threads of the model and of OpenCV, each measured; all: the runtime's choice (default: 1)",
    )
    what.add_argument(
        "--size",
        type=_list_of(size),
        default=(),
        metavar="HxW,...",
        help="input sizes, for artefacts that allow it (default: the model's own)",
    )
    what.add_argument(
        "--provider",
        type=_list_of(str),
        default=(),
        metavar="NAME,...",
        help="ONNX Runtime providers, each measured: cpu, cuda, tensorrt ...",
    )
    what.add_argument(
        "--torch",
        type=_list_of(str),
        default=(),
        metavar="MODE,...",
        help="PyTorch modes, each measured: eager, compiled, cuda-graph",
    )
    what.add_argument("--torch-device", metavar="DEV", help="PyTorch device: cpu, cuda ...")
    what.add_argument(
        "--frame",
        type=_width_height,
        default=(480, 640),
        metavar="WxH",
        help="size of the frames that go in (default: 640x480)",
    )
    what.add_argument(
        "--frames",
        metavar="SOURCE",
        help="picture, folder of pictures or video (default: the packaged portrait)",
    )
    what.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="SPEC",
        help="score all models on labelled pictures too: KIND:PATH; repeat for several",
    )
    what.add_argument("--split", default="val", metavar="NAME", help="part of the data (default: val)")
    what.add_argument("--data-limit", type=positive, metavar="N", help="at most N pictures of each")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--device",
        default="local",
        metavar="DEV",
        help="local, ssh://USER@HOST[:PORT] or adb:SERIAL (default: local)",
    )
    how.add_argument(
        "--scenario",
        choices=("single", "stream", "offline"),
        default="single",
        help="one frame after the other (default), a camera at --fps, or batches",
    )
    how.add_argument("--fps", type=_above_zero, default=30.0, metavar="N", help="of the camera (default: 30)")
    how.add_argument("--batch", type=positive, default=8, metavar="N", help="frames a batch (default: 8)")
    how.add_argument(
        "--mlperf",
        action="store_true",
        help="MLPerf's lengths: at least 1024 queries and 60 s of every model",
    )
    how.add_argument("--min-queries", type=positive, metavar="N", help="of every model (default: 100)")
    how.add_argument("--min-seconds", type=_above_zero, metavar="S", help="of every model (default: 3)")
    how.add_argument("--rounds", type=positive, metavar="N", help="turns of every model (default: 30)")
    how.add_argument(
        "--loads",
        type=positive,
        default=3,
        metavar="N",
        help="processes in which loading is timed (default: 3)",
    )
    how.add_argument("--cpus", type=_cpus, metavar="LIST", help="pin to these cores: 0,2 or 4-7")
    for name, kind in devices().items():
        kind.arguments(parser.add_argument_group(f"--device {name}"))
    out = parser.add_argument_group("where to")
    out.add_argument("--output", metavar="DIR", help="write bench.json, bench.md and bench.html there")
    out.add_argument("--json", metavar="FILE", help="write the JSON there")
    out.add_argument(
        "--fail-above",
        type=_percent,
        metavar="P%",
        help="compare: exit with 1 when something is slower by more than this (5%%) or does not run any more",
    )
    parser.set_defaults(left=leave_out(parser))


# -- options beside each other ---------------------------------------------------------------------


def refuse_without_effect(args: argparse.Namespace, typed: dict[str, str]) -> None:
    """Refuse options that were given and change nothing, before anything is measured.

    Args:
        args: All of them.
        typed: Those that the command line names: place -> flag.

    Raises:
        UserError: They are named, with what would give each an effect.
    """
    first = args.models[0] if args.models else ""
    if first in ("compare", "report"):
        kept = {"compare": {"fail_above", "output", "json"}, "report": {"output", "json"}}[first]
        without = dict.fromkeys(typed.keys() - kept, f"in bench {first}")
    else:
        without = {name: reason for name, reason in _reasons(args).items() if name in typed}
    if without:
        words = [f"{typed[name]} has no effect {why}" for name, why in sorted(without.items())]
        raise UserError("; ".join(words) + ": leave it away")


def _reasons(args: argparse.Namespace) -> dict[str, str]:
    """Options that have no effect in a measurement -> why."""
    from edge_deeplab.bench.device import devices

    scheme = args.device.partition(":")[0]
    found = {"fail_above": "without compare"}
    if args.scenario != "stream":
        found["fps"] = "without --scenario stream"
    if args.scenario != "offline":
        found["batch"] = "without --scenario offline"
    if not args.data:
        found |= dict.fromkeys(("split", "data_limit"), "without --data")
    for name, kind in devices().items():
        if name != scheme:
            own = argparse.ArgumentParser()
            kind.arguments(own.add_argument_group())
            found |= dict.fromkeys(vars(own.parse_args([])), f"without --device {name}")
    if scheme == "adb" or (scheme == "ssh" and args.trtexec):
        tool = "benchmark_model" if scheme == "adb" else "trtexec"
        found |= dict.fromkeys(("frame", "frames", "loads"), f"with {tool}, which times inference alone")
    return found


# -- types of arguments ----------------------------------------------------------------------------


def _list_of(kind: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    def read(text: str) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))

    return read


def _threads(text: str) -> int | None:
    return None if text == "all" else positive(text)


def _width_height(text: str) -> tuple[int, int]:
    """``640x480`` as cameras say it, width first -> (height, width)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and 1 <= int(p) <= 16384 for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no frame size; give WIDTHxHEIGHT, e.g. 640x480")
    return int(parts[1]), int(parts[0])


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage; give e.g. 5%")
    return value


def _cpus(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or (dash and int(high) < int(low)):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of cores; give e.g. 0,2 or 4-7")
        found += range(int(low), int(high or low) + 1)
    return tuple(dict.fromkeys(found))
