"""A whole training step with each of its speed-ups on a CPU taken away in turn, and with none of them.

The step is the trainer's own, from the uint8 batch to the averaged weights; reading and augmenting
pictures is left out (worker processes do that meanwhile). glibc reads its tunables before Python
starts, so every setting is a process of its own. Two live at a time, the step as shipped and its
opponent: they take turns step by step, one asleep while the other works, and each round is a pair.

Needs the extra ``train``, and the memory of two training runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from depthwise import depthwise_by, stock
from measuring import Milliseconds, as_text, exit_status, interleaved, machine, paired_ratio, warn_if_busy
from stepping import Worker, obey
from torch import Tensor

from edge_deeplab.cli.arguments import positive, size
from edge_deeplab.errors import UserError
from edge_deeplab.imaging import write_image
from edge_deeplab.models.variants import VARIANTS
from edge_deeplab.training.allocator import TUNABLES
from edge_deeplab.training.augment import contour_band
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.engine import Trainer


@dataclass(frozen=True)
class Setting:
    """What makes a step fast on a CPU, as it is shipped.

    Attributes:
        precision: ``bf16`` or ``fp32``.
        channels_last: Memory format of pictures and weights.
        own_backward: Backward pass of depthwise convolutions: ours, or PyTorch's.
        tunables: Which of the allocator's settings are made.
    """

    precision: Literal["bf16", "fp32"] = "bf16"
    channels_last: bool = True
    own_backward: bool = True
    tunables: tuple[str, ...] = tuple(TUNABLES)


SHIPPED = "shipped"
SETTINGS = {
    SHIPPED: Setting(),
    "float32": Setting(precision="fp32"),
    "contiguous": Setting(channels_last=False),
    "stock backward": Setting(own_backward=False),
    "huge pages only": Setting(tunables=("hugetlb",)),
    "stock allocator": Setting(tunables=()),
    "all stock": Setting("fp32", channels_last=False, own_backward=False, tunables=()),
}
GLIBC_ONLY = ("huge pages only", "stock allocator")


# -- the process that steps --------------------------------------------------------------------------


def make_trainer(setting: Setting, args: argparse.Namespace, folder: Path) -> Trainer:
    """A trainer, on a data set of blank pictures in ``folder`` that only exists to satisfy it."""
    for split in ("train", "val"):
        for index in range(args.batch):
            for kind in ("images", "masks"):
                blank = np.zeros((32, 32, 3) if kind == "images" else (32, 32), np.uint8)
                write_image(folder / split / kind / f"{index}.png", blank)
    config = TrainConfig(
        data=(f"folder:{folder}",),
        variant=args.variant,
        size=args.size,
        batch=args.batch,
        precision=setting.precision,
        channels_last=setting.channels_last,
        threads=args.threads or 0,
        device=getattr(args, "device", "cpu"),
    )
    return Trainer(config, folder / "run")


def synthetic_batch(args: argparse.Namespace) -> dict[str, Tensor]:
    """Noise whose left half is a person: what a step costs does not depend on the picture."""
    height, width = args.size
    label = np.zeros((height, width), np.uint8)
    label[:, : width // 2] = 1
    band = torch.from_numpy(contour_band(label, TrainConfig(data=()).boundary_width))
    return {
        "image": torch.randint(256, (args.batch, 3, height, width), dtype=torch.uint8),
        "label": torch.from_numpy(label).expand(args.batch, -1, -1).contiguous(),
        "band": band.expand(args.batch, -1, -1).contiguous(),
    }


def work(args: argparse.Namespace) -> None:
    """Make a step for every line on standard input."""
    setting = SETTINGS[args.worker]
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(setting, args, Path(folder))
        batch = synthetic_batch(args)
        with nullcontext() if setting.own_backward else depthwise_by(stock):
            obey(lambda: trainer._train_step(batch))


# -- the process that measures -----------------------------------------------------------------------


def start(name: str, args: argparse.Namespace) -> Worker:
    """A process that makes training steps in one setting when told to."""
    words = [__file__, "--worker", name, "--variant", args.variant]
    words += ["--batch", str(args.batch), "--size", f"{args.size[0]}x{args.size[1]}"]
    words += ["--threads", str(args.threads)] if args.threads else []
    return Worker(name, words, SETTINGS[name].tunables)


def run(args: argparse.Namespace) -> None:
    """Match every setting with the one shipped and print pictures per second."""
    opponents = [name for name in args.settings if name != SHIPPED]
    if sys.platform != "linux":
        opponents = [name for name in opponents if name not in GLIBC_ONLY]
    if not opponents:
        raise UserError("nothing to match with the step as shipped; give other --settings")
    warn_if_busy()
    here = machine()
    print(
        f"{args.variant}, batch {args.batch} of {args.size[0]}x{args.size[1]}, {args.rounds} rounds, "
        f"{args.threads or torch.get_num_threads()} threads; {here['cpu']} "
        f"({torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}, "
        f"transparent huge pages: {_huge_pages()}",
        flush=True,
    )
    rows = [["setting", "ms a step", "pictures/s", f"times as long as {SHIPPED} (95 %)"]]
    shipped: list[Milliseconds] = []
    with start(SHIPPED, args) as champion:
        for name in opponents:
            with start(name, args) as challenger:
                calls = {SHIPPED: champion.step, name: challenger.step}
                times = interleaved(calls, rounds=args.rounds, warmup=2, title=name)
            shipped.append(times[SHIPPED])
            rows.append(
                [name, *_figures(times[name], args.batch), str(paired_ratio(times[name], shipped[-1]))]
            )
    rows.insert(1, [SHIPPED, *_figures(np.concatenate(shipped), args.batch), "1"])
    print(as_text(rows))


def _figures(times: Milliseconds, batch: int) -> list[str]:
    median = float(np.median(times))
    return [f"{median:.0f}", f"{1e3 * batch / median:.1f}"]


def _huge_pages() -> str:
    """The kernel's setting: the tunable needs ``madvise`` or ``always`` there."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0] or "unknown"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--variant", default="lite", choices=VARIANTS, help="default: %(default)s")
    parser.add_argument("--size", type=size, default=(256, 256), metavar="HxW", help="default: 256x256")
    parser.add_argument("--batch", type=positive, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=positive, default=15, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: torch's choice")
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=[name for name in SETTINGS if name != SHIPPED],
        default=list(SETTINGS),
        metavar="NAME",
        help=f"which to match with the one shipped: {', '.join(list(SETTINGS)[1:])} (default: all)",
    )
    parser.add_argument("--worker", choices=SETTINGS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    body: Any = work if args.worker else run
    return exit_status("training_step", lambda: body(args))


if __name__ == "__main__":
    raise SystemExit(main())
