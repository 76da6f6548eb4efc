"""Forward and backward of a model's strided and dilated depthwise convolutions: PyTorch's own against ours.

On CPUs the gradient of a strided or dilated depthwise convolution takes oneDNN kernels that are far
slower than the arithmetic asks for; ``edge_deeplab.models.layers`` goes around them in its backward
pass. Both get the same tensors (channels last, as in training), shape by shape, taking turns.

Needs torch and tqdm.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from measuring import Milliseconds, as_text, exit_status, interleaved, machine, paired_ratio, warn_if_busy
from torch import Tensor

from edge_deeplab.cli.arguments import positive, size
from edge_deeplab.models.deeplab import DeepLabV3Plus
from edge_deeplab.models.layers import _Depthwise
from edge_deeplab.models.variants import VARIANTS, variant

Convolution = Callable[[Tensor, Tensor, Any, Any, Any], Tensor]
"""(x, weight, stride, padding, dilation) -> y, as ``_Depthwise.apply`` takes them."""


def stock(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """What PyTorch does by itself."""
    return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])


@contextmanager
def depthwise_by(convolution: Convolution) -> Iterator[None]:
    """Within the block, depthwise layers with a stride or a rate that train on a CPU call ``convolution``."""
    with mock.patch.object(_Depthwise, "apply", convolution):
        yield


@dataclass(frozen=True, order=True)
class Case:
    """The geometry of one depthwise convolution; ``height`` and ``width`` include TF's SAME padding."""

    height: int
    width: int
    channels: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]


def cases(name: str, height: int, width: int) -> Counter[Case]:
    """The distinct strided or dilated geometries of a variant and how many layers have each, in order."""
    seen: Counter[Case] = Counter()

    def note(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
        seen[Case(x.shape[2], x.shape[3], x.shape[1], stride, dilation, padding)] += 1
        return stock(x, weight, stride, padding, dilation)

    model = DeepLabV3Plus(variant(name).architecture, 1)
    with depthwise_by(note):
        model(torch.zeros(2, 3, height, width))  # batch norm wants two
    return seen


def contest(case: Case, batch: int, dtype: torch.dtype, rounds: int) -> dict[str, Milliseconds]:
    """Times of ``stock`` and ``ours`` for one geometry."""
    shape = (batch, case.channels, case.height, case.width)
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(case.channels, 1, 3, 3, dtype=dtype, requires_grad=True)
    geometry = case.stride, case.padding, case.dilation
    grad = torch.randn_like(stock(x, weight, *geometry))

    def once(convolution: Convolution, _: int) -> None:
        torch.autograd.grad(convolution(x, weight, *geometry), (x, weight), grad)

    calls = {"stock": partial(once, stock), "ours": partial(once, _Depthwise.apply)}
    return interleaved(calls, rounds=rounds, warmup=2, title=_name(case))


def _name(case: Case) -> str:
    return f"{case.channels}x{case.height}x{case.width}"


def table(found: Counter[Case], batch: int, dtype: torch.dtype, rounds: int) -> list[list[str]]:
    """A row for every geometry, and their sum, each times the layers that have it."""
    rows = [["input", "stride", "rate", "layers", "stock ms", "ours ms", "stock / ours (95 %)"]]
    total = {"stock": np.zeros(rounds), "ours": np.zeros(rounds)}
    for case, layers in found.items():
        times = contest(case, batch, dtype, rounds)
        for name, ms in times.items():
            total[name] += layers * ms
        place = [_name(case), str(case.stride[0]), str(case.dilation[0]), str(layers)]
        rows.append([*place, *_figures(times)])
    rows.append(["together", "", "", str(found.total()), *_figures(total)])
    return rows


def _figures(times: dict[str, Milliseconds]) -> list[str]:
    ratio = paired_ratio(times["stock"], times["ours"])
    return [f"{np.median(times['stock']):.2f}", f"{np.median(times['ours']):.2f}", str(ratio)]


def run(args: argparse.Namespace) -> None:
    """Time all geometries in both precisions and print the tables."""
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    warn_if_busy()
    found = cases(args.variant, *args.size)
    here = machine()
    print(
        f"{args.variant}, batch {args.batch} of {args.size[0]}x{args.size[1]}, {args.rounds} rounds, "
        f"{torch.get_num_threads()} threads; {here['cpu']} "
        f"({torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}"
    )
    for title, dtype in (("bfloat16, as under autocast", torch.bfloat16), ("float32", torch.float32)):
        rows = table(found, args.batch, dtype, args.rounds)
        print(f"\n{title}\n{as_text(rows)}", flush=True)


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
    args = parser.parse_args(argv)
    return exit_status("depthwise", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
