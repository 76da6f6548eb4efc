"""The few files that the worker needs on a machine where edge-deeplab is not installed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent

PARTS = ("*.py", "bench/**/*.py", "runtimes/*.py")
EXPORT = ("export/*.py", "export/sample.jpg", "data/*.py", "evaluation/*.py")
"""What building an engine takes besides, and the picture that it is verified on."""

MARKER = "edge_deeplab/weights/__init__.py"


def bundle(*, export: bool = False) -> bytes:
    """A ``tar.gz`` with ``edge_deeplab/...``: unpack it anywhere and put that folder on ``PYTHONPATH``.

    Holds no weights, no torch code and nothing that a worker does not import; about 140 KB.

    Args:
        export: With ``edge_deeplab.export``, for targets that build without torch.
    """
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files(export=export).items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def files(*, export: bool = False) -> dict[str, bytes]:
    """Path in the bundle -> content."""
    found = {
        f"edge_deeplab/{path.relative_to(PACKAGE)}": path.read_bytes()
        for pattern in (*PARTS, *(EXPORT if export else ()))
        for path in sorted(PACKAGE.glob(pattern))
    }
    return {**found, MARKER: b""}
