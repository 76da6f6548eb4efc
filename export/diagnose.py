"""Which layer of an artefact first goes wrong: every layer's output beside the float network's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.export.report import LayerError

PICTURES = 8
"""Pictures a diagnosis looks at; errors of layers vary little between pictures."""

CLEAN = 99.0
"""dB: reported where nothing differs."""

Outputs = Mapping[str, NDArray[np.float32]]
"""Layer -> output (N, C, H, W)."""


@dataclass
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    bad: int = 0
    values: int = field(default=0)


def compare(
    sources: Mapping[str, Sequence[str]], pairs: Iterable[tuple[Outputs, Outputs]]
) -> tuple[LayerError, ...]:
    """Errors of all layers that both sides have, in the order of ``sources``.

    Args:
        sources: Layer -> the layers its input comes from, in forward order.
        pairs: (float network's outputs, artefact's outputs) for every picture.
    """
    sums: dict[str, _Sums] = {}
    for wanted, given in pairs:
        for name in given:
            _add(sums.setdefault(name, _Sums()), wanted[name], given[name])
    sqnr = {name: _decibels(entry.signal, entry.noise) for name, entry in sums.items()}
    found = []
    for name, before in sources.items():
        if name in sums:
            entry = sums[name]
            best = min((sqnr[source] for source in before if source in sqnr), default=CLEAN)
            found.append(
                LayerError(
                    name=name,
                    sqnr=sqnr[name],
                    drop=best - sqnr[name],
                    largest=entry.largest,
                    bad=entry.bad / entry.values,
                )
            )
    return tuple(found)


def _add(sums: _Sums, wanted: NDArray[np.float32], given: NDArray[np.float32]) -> None:
    fine = np.isfinite(given)
    difference = np.where(fine, given, 0).astype(np.float64) - wanted
    sums.signal += float(np.square(wanted, dtype=np.float64).sum())
    sums.noise += float(np.square(difference).sum())
    sums.largest = max(sums.largest, float(np.abs(difference).max()))
    sums.bad += int(given.size - fine.sum())
    sums.values += given.size


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0:
        return CLEAN
    return min(CLEAN, 10 * float(np.log10(max(signal, 1e-30) / noise)))


def torch_layers(network: Any) -> tuple[dict[str, tuple[str, ...]], Callable[[NDArray[Any]], Outputs]]:
    """Of a folded PyTorch network: layer -> its sources, and a function that gives all layers' outputs."""
    import torch

    from edge_deeplab.export.fold import layers

    chain = layers(network)

    def run(tensor: NDArray[Any]) -> Outputs:
        seen: dict[str, NDArray[np.float32]] = {}

        def keep(name: str) -> Any:
            return lambda module, given, answer: seen.__setitem__(name, answer.numpy())

        handles = [
            network.get_submodule(layer.name).register_forward_hook(keep(layer.name)) for layer in chain
        ]
        try:
            with torch.no_grad():
                network(torch.from_numpy(tensor))
        finally:
            for handle in handles:
                handle.remove()
        return seen

    return {layer.name: layer.sources for layer in chain}, run
