"""Engines of the double with their sidecars, made by the project's own export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_deeplab.export import Options
from edge_deeplab.export.to_trt import build
from edge_deeplab.export.trt_settings import TrtSettings
from edge_deeplab.runtimes.trt_sidecar import read_engine
from edge_deeplab.spec import InputContract
from tests.trt.toys import toy_prepared


def contract_of(prepared: Path) -> InputContract:
    from edge_deeplab.runtimes import open_model

    with open_model(prepared) as model:
        return model.contract


def make_engine(
    folder: Path, graph: str = "fp32", *, settings: TrtSettings | None = None, **changes: Any
) -> Path:
    """``toy.engine`` and its sidecar, built from ``toy.onnx``; ``changes`` go into its contract."""
    prepared = toy_prepared(folder / "toy.onnx", graph, **changes)
    path = folder / "toy.engine"
    build(prepared, contract_of(prepared), Options(precision=graph, settings=settings), path)
    read_engine(path)
    return path
