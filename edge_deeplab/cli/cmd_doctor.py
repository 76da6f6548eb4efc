"""``edge-deeplab doctor``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_deeplab.cli import Command

if TYPE_CHECKING:
    from edge_deeplab.export.base import Target


def _arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def _run(args: argparse.Namespace) -> int:
    import platform

    import cv2
    import numpy as np

    from edge_deeplab.errors import MissingExtra
    from edge_deeplab.export.base import targets
    from edge_deeplab.runtimes import open_model, runtimes
    from edge_deeplab.version import __version__
    from edge_deeplab.zoo import shipped

    print(
        f"edge-deeplab {__version__}, Python {platform.python_version()} on {platform.system()} "
        f"{platform.machine()}, numpy {np.__version__}, OpenCV {cv2.__version__}"
    )
    print("\nRuntimes")
    for name, runtime in runtimes().items():
        label = f"  {name:14} {' '.join(runtime.suffixes):14}"
        try:
            versions = ", ".join(f"{k} {v}" for k, v in runtime.versions().items())
        except MissingExtra as error:
            print(f"{label} missing: {error}")
            continue
        sample = next(
            (
                path
                for files in shipped().values()
                for suffix, path in files.items()
                if suffix in runtime.suffixes
            ),
            None,
        )
        if sample is None:
            print(f"{label} installed ({versions}), no shipped model to try it on")
            continue
        with open_model(sample) as model:
            times = model.warmup(2).segment(np.full((480, 640, 3), 128, np.uint8)).times
            details = ", ".join(f"{k} {v}" for k, v in model.describe().items())
        print(f"{label} works ({versions}; {details}; {times.total:.1f} ms for a 640x480 frame)")
    print("\nExport targets")
    for name, target in targets().items():
        print(f"  {name:14} {target.suffix:14} {_state(target)}")
    return 0


def _state(target: Target) -> str:
    """Whether a target's packages are there, and what runs its artefacts: every export is verified."""
    from edge_deeplab.errors import MissingExtra
    from edge_deeplab.runtimes import runtimes

    missing = _missing(target.extra)
    if missing:
        return f"missing {', '.join(missing)}; cure: pip install 'edge-deeplab[{target.extra}]'"
    for runtime in runtimes().values():
        if target.suffix in runtime.suffixes:
            try:
                runtime.versions()
            except MissingExtra as error:
                return f"missing: {error}"
    return "ready"


def _missing(extra: str) -> list[str]:
    """Requirements of an extra of this package that are not installed."""
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    missing = []
    for requirement in requires("edge-deeplab") or []:
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", requirement):
            name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
            try:
                version(name)
            except PackageNotFoundError:
                missing.append(name)
    return missing


COMMAND = Command("say what is installed and works here, and the cure for what does not", _arguments, _run)
