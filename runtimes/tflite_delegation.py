"""Which operators of a TFLite graph a delegate took, and which were left to TFLite's own kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DELEGATE = "DELEGATE"


@dataclass(frozen=True)
class Delegation:
    """How a graph was divided.

    Attributes:
        nodes: Operators of the graph.
        delegated: How many of them run in the delegate.
        partitions: Connected pieces the delegate runs; each one more costs a change of hands.
        left: Operators that stayed behind: name -> how many.
    """

    nodes: int
    delegated: int
    partitions: int
    left: dict[str, int]

    @property
    def share(self) -> float:
        """0..1."""
        return self.delegated / self.nodes if self.nodes else 0.0

    def __str__(self) -> str:
        text = f"{self.delegated} of {self.nodes} nodes"
        if self.partitions > 1:
            text += f" in {self.partitions} partitions"
        if self.left:
            text += "; not " + ", ".join(f"{count} {name}" for name, count in self.left.items())
        return text


def delegation_of(nodes: Iterable[Mapping[str, Any]]) -> Delegation:
    """Find out from an interpreter's list of nodes.

    TFLite keeps the nodes a delegate replaced and appends one DELEGATE node for each partition. Its
    outputs were made by replaced nodes, so these are found by walking from the outputs towards the
    partition's inputs.

    Args:
        nodes: ``op_name``, ``inputs`` and ``outputs`` of each, as ``Interpreter._get_ops_details`` gives
            them.
    """
    own = [node for node in nodes if node["op_name"] != DELEGATE]
    partitions = [node for node in nodes if node["op_name"] == DELEGATE]
    maker = {int(tensor): index for index, node in enumerate(own) for tensor in node["outputs"]}
    taken: set[int] = set()
    for partition in partitions:
        given = {int(tensor) for tensor in partition["inputs"]}
        waiting = [int(tensor) for tensor in partition["outputs"]]
        while waiting:
            tensor = waiting.pop()
            index = maker.get(tensor)
            if index is None or index in taken or tensor in given:
                continue
            taken.add(index)
            waiting += [int(t) for t in own[index]["inputs"]]
    left = Counter(node["op_name"] for index, node in enumerate(own) if index not in taken)
    return Delegation(len(own), len(taken), len(partitions), dict(sorted(left.items())))
