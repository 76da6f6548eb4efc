"""One process per device, started by torchrun; alone, everything here does nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from edge_deeplab.errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it takes them for lost."""

TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets in each process beside ``WORLD_SIZE``."""

LOST = ("closed by peer", "reset by peer", "gloo", "NCCL", "Broken pipe", "Timed out waiting", "store")
"""Words in a RuntimeError that is about the other processes, not about the computation."""


@dataclass(frozen=True)
class World:
    """All processes of a run.

    Attributes:
        device: The device of this process.
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    store: Any = field(default=None, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum(self, value: Tensor) -> Tensor:
        """The sum of every process's tensor, in every process."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of process 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def speaks(self) -> bool:
        """True in the first process that asks: only one of them tells why the run ended."""
        if self.store is None:
            return True
        try:
            return int(self.store.add("edge_deeplab/told", 1)) == 1
        except RuntimeError:  # the store went with the process that held it
            return self.leads


@contextmanager
def join(device: str, *, cure: str = "go on from the last checkpoint with --resume") -> Iterator[World]:
    """Join the processes that torchrun started, or be alone.

    A process that loses the others (one was killed, or failed with an error of its own) ends too. Together
    they print one message: the failing one's, or else that of the first to notice.

    Args:
        device: ``cpu``, ``cuda`` or ``auto``. On CUDA every process takes the GPU of its local rank.
        cure: What to do when a process was lost.

    Raises:
        UserError: No such device, another process is gone, or not torchrun has set ``WORLD_SIZE``.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(find_device(device))
        return
    missing = [name for name in TORCHRUN if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {size}, but there is no {', '.join(missing)}: start with torchrun, or unset "
            "WORLD_SIZE"
        )
    place = find_device(device, int(os.environ["LOCAL_RANK"]))
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    world = World(place, rank, size, PrefixStore("edge_deeplab", store))
    # Objects and CPU tensors go through gloo, CUDA tensors through NCCL.
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        with _told_to_stop():
            yield world
    except (RuntimeError, _Stopped) as error:
        if not isinstance(error, _Stopped) and not any(word in str(error) for word in LOST):
            raise
        if not world.speaks():
            raise SystemExit(2) from error
        raise UserError(
            f"one of the run's {size} processes has ended (killed, or by an error of its own), so all end; "
            f"{cure}"
        ) from error
    except UserError:
        if not world.speaks():
            raise SystemExit(2) from None
        raise
    dist.destroy_process_group()


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device a name stands for.

    Raises:
        UserError: There is no such device, or it computes nothing (``meta``).
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and ":" not in name:
            device = torch.device("cuda", local_rank)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


class _Stopped(BaseException):
    """SIGTERM: torchrun sends it to the others when one process has ended."""


@contextmanager
def _told_to_stop() -> Iterator[None]:
    own = os.getpid()

    def stop(*_: object) -> None:
        if os.getpid() != own:  # a worker that reads pictures, forked from here
            os._exit(128 + signal.SIGTERM)
        # Once is enough; and torch would speak up for its workers, which are stopped at the same moment.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        raise _Stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
