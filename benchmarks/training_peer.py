"""Our training step beside a plain loop over segmentation_models_pytorch's DeepLabV3Plus on mobilenet_v2.

The plain loop is what a tutorial shows: float32, PyTorch's default memory format, binary cross-entropy,
AdamW. Its two simple flags, channels-last and bfloat16 autocast, are measured too. Ours is the trainer's
whole step: band weights, Dice, averaged weights. Both see the same crop and batch; the networks are close
but not the same, so multiply-adds stand beside the times. Reading pictures is left out: worker processes
do that meanwhile.

``--device cuda`` does the same on a GPU. Every setting is a process of its own; two live at a time and take
turns step by step. ``--profile`` then shows where each one's time goes. ``--quality DATA`` trains both on the
same batches instead and scores them.

Needs the extra ``train`` and ``pip install segmentation-models-pytorch``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from measuring import Milliseconds, as_text, exit_status, interleaved, machine, paired_ratio, warn_if_busy
from stepping import Worker, obey
from torch import Tensor, nn
from training_step import Setting, make_trainer, synthetic_batch

from edge_deeplab.cli.arguments import bar, positive, size
from edge_deeplab.data import open_split
from edge_deeplab.errors import UserError
from edge_deeplab.evaluation import evaluate
from edge_deeplab.models.costs import multiply_adds
from edge_deeplab.models.variants import VARIANTS
from edge_deeplab.runtimes.on_torch import TorchRuntime
from edge_deeplab.spec import InputContract
from edge_deeplab.training.allocator import TUNABLES
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.dataset import Batches, Samples, loader
from edge_deeplab.training.engine import Trainer
from edge_deeplab.training.optimizer import learning_rate


@dataclass(frozen=True)
class Loop:
    """How a training step is computed.

    Attributes:
        ours: Our trainer, or the plain loop.
        precision: ``bf16`` or ``fp32``.
        channels_last: Memory format of pictures and weights.
    """

    ours: bool
    precision: Literal["bf16", "fp32"]
    channels_last: bool


PLAIN = "plain"
LOOPS = {
    PLAIN: Loop(ours=False, precision="fp32", channels_last=False),
    "plain, channels-last": Loop(ours=False, precision="fp32", channels_last=True),
    "plain, bf16, channels-last": Loop(ours=False, precision="bf16", channels_last=True),
    "ours, fp32": Loop(ours=True, precision="fp32", channels_last=True),
    "ours": Loop(ours=True, precision="bf16", channels_last=True),
}

GROUPS = {
    "convolutions": ("conv",),
    "batch norm": ("batch_norm",),
    "activations": ("relu", "hardtanh", "threshold", "clamp"),
    "resizing": ("upsample", "interpolate"),
    "copies and casts": ("copy", "_to_copy", "contiguous", "clone", "cat", "pad", "permute", "reshape"),
    "optimiser, averaging": ("_foreach", "adam", "lerp"),
}
"""Parts of a step by what its operations are called; the rest is the loss and small change."""


# -- the plain loop ----------------------------------------------------------------------------------


def peer(classes: int) -> nn.Module:
    """The peer's network, with random weights."""
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError as error:
        raise UserError(
            "segmentation_models_pytorch is not installed; cure: pip install segmentation-models-pytorch"
        ) from error
    model: nn.Module = smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=classes)
    return model


class PlainLoop:
    """Forward, binary cross-entropy, backward, AdamW; nothing else.

    Args:
        loop: Precision and memory format.
        rate: Learning rate.
        device: Where it is computed.
    """

    def __init__(self, loop: Loop, rate: float = 1e-3, device: str = "cpu") -> None:
        self.loop = loop
        self.device = torch.device(device)
        self.layout = torch.channels_last if loop.channels_last else torch.contiguous_format
        self.model = peer(1).to(self.device).to(memory_format=self.layout).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate)

    def step(self, batch: dict[str, Tensor]) -> None:
        """One step on ``image`` uint8 (N, 3, H, W) and ``label`` uint8 (N, H, W)."""
        image, label = batch["image"].to(self.device), batch["label"].to(self.device)
        image = ((image.float() - 128) / 128).contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.loop.precision == "bf16"):
            logits = self.model(image)
        loss = F.binary_cross_entropy_with_logits(logits[:, 0].float(), (label == 1).float())
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


# -- the process that steps --------------------------------------------------------------------------


def work(args: argparse.Namespace) -> None:
    """Make a step or a profile for every line on standard input."""
    if args.threads:
        torch.set_num_threads(args.threads)
    loop, batch = LOOPS[args.worker], synthetic_batch(args)
    with tempfile.TemporaryDirectory() as folder:
        if loop.ours:
            trainer = make_trainer(Setting(loop.precision, loop.channels_last), args, Path(folder))
            network: nn.Module = trainer.networks.model
            train: Callable[[], object] = lambda: trainer._train_step(batch)  # noqa: E731
        else:
            plain = PlainLoop(loop, device=args.device)
            network = plain.model
            train = lambda: plain.step(batch)  # noqa: E731

        def step() -> None:
            train()
            if args.device != "cpu":  # a GPU is handed its work and goes on alone
                torch.cuda.synchronize(args.device)

        cost = multiply_adds(network, *args.size)
        obey(step, ready=str(cost), profile=lambda: json.dumps(profile(step, args.device)))


def profile(step: Callable[[], object], device: str = "cpu") -> dict[str, float]:
    """Share of a step's time by group of operations: the GPU's where there is one, else the CPU's."""
    activities, time = [torch.profiler.ProfilerActivity.CPU], "self_cpu_time_total"
    if device != "cpu":
        activities, time = [*activities, torch.profiler.ProfilerActivity.CUDA], "self_device_time_total"
    with torch.profiler.profile(activities=activities) as seen:
        step()
    shares = dict.fromkeys([*GROUPS, "loss and the rest"], 0.0)
    for event in seen.key_averages():
        name = event.key.lower()
        group = next((g for g, parts in GROUPS.items() if any(p in name for p in parts)), "loss and the rest")
        shares[group] += getattr(event, time)
    total = sum(shares.values())
    return {group: value / total for group, value in shares.items()}


# -- the process that measures -----------------------------------------------------------------------


def start(name: str, args: argparse.Namespace) -> Worker:
    """A process that makes training steps in one way."""
    words = [__file__, "--worker", name, "--variant", args.variant]
    words += ["--batch", str(args.batch), "--size", f"{args.size[0]}x{args.size[1]}"]
    words += ["--threads", str(args.threads)] if args.threads else []
    words += ["--device", args.device]
    return Worker(name, words, TUNABLES if LOOPS[name].ours else ())


def run(args: argparse.Namespace) -> None:
    """Match every loop with the plain one."""
    warn_if_busy()
    print(
        f"{args.variant} and the peer, batch {args.batch} of {args.size[0]}x{args.size[1]}, "
        f"{args.rounds} rounds, {_place(args)}, torch {torch.__version__}",
        flush=True,
    )
    rows = [["loop", "G multiply-adds", "ms a step", "pictures/s", "times as fast as plain (95 %)"]]
    shares: dict[str, dict[str, float]] = {}
    base: list[Milliseconds] = []
    with start(PLAIN, args) as plain:
        if args.profile:
            shares[PLAIN] = json.loads(plain.ask("profile"))
        for name in [name for name in args.loops if name != PLAIN]:
            with start(name, args) as other:
                calls = {PLAIN: plain.step, name: other.step}
                times = interleaved(calls, rounds=args.rounds, warmup=2, title=name)
                if args.profile:
                    shares[name] = json.loads(other.ask("profile"))
                base.append(times[PLAIN])
                ratio = str(paired_ratio(times[PLAIN], times[name]))
                rows.append([name, *_figures(other, times[name], args.batch), ratio])
        rows.insert(1, [PLAIN, *_figures(plain, np.concatenate(base), args.batch), "1"])
    print(as_text(rows))
    if shares:
        groups = list(next(iter(shares.values())))
        table = [
            ["share of the time", *shares],
            *([g, *(f"{s[g]:.0%}" for s in shares.values())] for g in groups),
        ]
        print("\n" + as_text(table))


def _place(args: argparse.Namespace) -> str:
    if args.device != "cpu":
        return torch.cuda.get_device_name(args.device)
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{args.threads or torch.get_num_threads()} threads; {machine()['cpu']} ({kind})"


def _figures(worker: Worker, times: Milliseconds, batch: int) -> list[str]:
    median = float(np.median(times))
    return [f"{int(worker.first_answer) / 1e9:.2f}", f"{median:.0f}", f"{1e3 * batch / median:.1f}"]


# -- quality -----------------------------------------------------------------------------------------


def compare_quality(args: argparse.Namespace) -> None:
    """Train both from random weights on the same batches, score both on the val split."""
    config = TrainConfig(
        data=(args.quality,),
        variant=args.variant,
        size=args.size,
        batch=args.batch,
        epochs=args.epochs,
        backbone_lr=1.0,  # nothing is trained beforehand
        warmup=20,
        val_every=args.epochs,
        threads=args.threads or 0,
        device=args.device,
    )
    split = open_split(args.quality, "val")
    rows = [["loop", "foreground IoU", "boundary IoU"]]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, Path(folder) / "run")
        trainer.run()
        ours = TorchRuntime(trainer.networks.average, trainer.contract, device=args.device)
        rows.append(["ours", *_scores(ours, args.quality)])
    contract = trainer.contract.replace(head="logits-full", head_stride=1)
    plain = train_plainly(config, contract)
    rows.append([PLAIN, *_scores(plain, args.quality)])
    print(f"{args.epochs} epochs of {args.quality} from random weights, scored on {len(split)} pictures")
    print(as_text(rows))


def train_plainly(config: TrainConfig, contract: InputContract) -> TorchRuntime:
    """The plain loop on our batches with our schedule of rates."""
    torch.manual_seed(config.seed)
    loop = PlainLoop(LOOPS[PLAIN], config.lr, config.device)
    samples = Samples([open_split(spec, "train") for spec in config.data], config)
    total = len(samples) // config.batch * config.epochs
    batches = loader(samples, config, Batches(len(samples), config, 0, total))
    for step, batch in enumerate(bar(batches, desc=PLAIN, total=total, unit="step")):
        for group in loop.optimizer.param_groups:
            group["lr"] = config.lr * learning_rate(step, total, config)
        loop.step(batch)
    return TorchRuntime(loop.model.eval(), contract, device=config.device)


def _scores(model: TorchRuntime, data: str) -> list[str]:
    scores = evaluate(lambda frame: model.segment(frame).labels, open_split(data, "val"), progress=bar)
    return [f"{scores.foreground_iou:.4f}", f"{scores.boundary_iou[1]:.4f}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--variant", default="v3plus", choices=VARIANTS, help="ours (default: %(default)s)")
    parser.add_argument("--size", type=size, default=(256, 256), metavar="HxW", help="default: 256x256")
    parser.add_argument("--batch", type=positive, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=positive, default=15, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: torch's choice")
    parser.add_argument("--device", default="cpu", metavar="DEV", help="cpu (default), or cuda")
    parser.add_argument(
        "--loops",
        nargs="+",
        choices=[name for name in LOOPS if name != PLAIN],
        default=[name for name in LOOPS if name != PLAIN],
        metavar="NAME",
        help=f"which to match with the plain one: {'; '.join(list(LOOPS)[1:])} (default: all)",
    )
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    parser.add_argument(
        "--quality", metavar="KIND:PATH", help="train both on two classes of data and score them"
    )
    parser.add_argument("--epochs", type=positive, default=4, metavar="N", help="of --quality (default: 4)")
    parser.add_argument("--worker", choices=LOOPS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: PyTorch finds no such device; take cpu")
    body: Any = work if args.worker else compare_quality if args.quality else run
    return exit_status("training_peer", lambda: body(args))


if __name__ == "__main__":
    sys.exit(main())
