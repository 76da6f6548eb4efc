"""Run any artefact through one class. Never imports torch unless a PyTorch checkpoint is opened.

from edge_deeplab.runtimes import open_model

with open_model("portrait", threads=1) as model:
    result = model.segment(frame)  # BGR uint8 (H, W, 3), as OpenCV gives it
    mask = result.labels  # uint8 (H, W), 1 = person
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_deeplab.errors import UserError
from edge_deeplab.plugins import discover
from edge_deeplab.runtimes.base import Runtime, Segmentation, Times
from edge_deeplab.zoo import find

__all__ = ["Runtime", "Segmentation", "Times", "open_model", "runtimes"]


MOST_THREADS = 256
"""More than any machine this is for has cores; far larger numbers make thread pools hang."""


def runtimes() -> dict[str, type[Runtime]]:
    """All runtimes by name: the files ``on_NAME.py`` of this folder."""
    return discover("edge_deeplab.runtimes", "on_", "RUNTIME")


def open_model(model: str | Path = "portrait", *, threads: int | None = None, **options: Any) -> Runtime:
    """Open a shipped model, a checkpoint or an artefact; the suffix picks the runtime.

    Args:
        model: A shipped name (see ``edge-deeplab models``) or a path.
        threads: CPU threads; None leaves the choice to the runtime. OpenCV's own, used in pre- and
            post-processing, belong to the process: ``cv2.setNumThreads``.
        **options: What the runtime takes: ``providers=["cuda"]`` for ONNX Runtime, ``device="cuda"``
            for PyTorch.

    Raises:
        UserError: No such model, damaged, not one of ours, or its runtime is not installed.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(
            f"threads must be from 1 to {MOST_THREADS}, not {threads}; None leaves the choice to the runtime"
        )
    path = find(str(model))
    known = {suffix: runtime for runtime in runtimes().values() for suffix in runtime.suffixes}
    if path.suffix not in known:
        raise UserError(f"no runtime opens {path}; suffixes known: {', '.join(known)}")
    try:
        return known[path.suffix].open(str(path), threads=threads, **options)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            name = str(error).split("'")[1]
            raise UserError(f"{known[path.suffix].title} does not know the option {name!r}") from error
        raise
