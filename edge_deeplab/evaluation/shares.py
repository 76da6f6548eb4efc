"""Scoring shared out over processes: every one scores some pictures, and counts are added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from edge_deeplab.data import Split
from edge_deeplab.errors import UserError

T = TypeVar("T")


class Processes(Protocol):
    """All that score together: a :class:`edge_deeplab.training.distributed.World`, or :class:`Alone`."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes."""

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, in every process."""


@dataclass(frozen=True)
class Alone:
    """One process; no torch needed."""

    rank: int = 0
    size: int = 1
    leads: bool = True

    def gather(self, value: T) -> list[T]:
        """The value."""
        return [value]


class Counts(Protocol):
    """What adds up exactly: :class:`edge_deeplab.metrics.Evaluator`, :class:`evaluation.trimap.Trimap`."""

    def merge(self, other: Any) -> None:
        """Add what another process counted."""


CountsT = TypeVar("CountsT", bound=Counts)


def check_same_pictures(splits: Sequence[Split], processes: Processes) -> None:
    """Refuse to share out pictures that are not the same ones everywhere, as on machines with other copies.

    Raises:
        UserError: The first process has others under some split's name; every process says so.
    """
    everywhere = processes.gather([split.listing for split in splits])
    for rank, there in enumerate(everywhere):
        for split, first, other in zip(splits, everywhere[0], there, strict=True):
            if first != other:
                raise UserError(
                    f"{split.name}: process 0 sees {first[0]} pictures, process {rank} sees {other[0]}, and "
                    "not the same ones; give every machine the same copy"
                )


def share(count: int, processes: Processes) -> range:
    """The pictures of ``count`` that this process scores: every ``size``-th, from its rank."""
    return range(processes.rank, count, processes.size)


def total(counts: CountsT, processes: Processes) -> CountsT:
    """The counts of all processes together, in every process; exact, whatever their number."""
    first, *others = processes.gather(counts)
    for other in others:
        first.merge(other)
    return first
