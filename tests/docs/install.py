"""A clean install: a wheel built from a copy of the tree, in a virtual environment of its own.

What the wheel depends on is borrowed from the environment that runs the tests (``real=True`` installs it
from the index instead, which takes minutes): its folders are put on the path by a ``.pth`` file, behind the
new environment's own. The package itself comes from the wheel alone, since the ``.pth`` files of borrowed
folders, and with them editable installs, are not read.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tests.docs.blocks import ROOT

SIZE = (120, 160)
"""Of the pictures in the small data sets."""


@dataclass(frozen=True)
class Install:
    """Where everything is.

    Attributes:
        folder: Holds all of it.
        real: Dependencies come from the index.
        patience: Seconds that a block may take.
    """

    folder: Path
    real: bool = False
    patience: float = 300

    @property
    def checkout(self) -> Path:
        """A clean copy of the tree."""
        return self.folder / "checkout"

    @property
    def bin(self) -> Path:
        """Of the virtual environment."""
        return self.folder / "venv" / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """Variables for commands: this environment first on the path, and a pip that installs nothing."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        offline = {
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # sic: pip negates this one
            "PIP_DRY_RUN": "1",  # it is installed already; other documents use it at the same time
        }
        online = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        return (
            kept
            | (online if self.real else offline)
            | {
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "HOME": str(self.folder / "home"),
                "EDGE_DEEPLAB_CACHE": str(self.folder / "cache"),
                "OMP_NUM_THREADS": "1",
                "PYTHONUNBUFFERED": "1",
                "BROWSER": "true",  # what --open starts
                "PIP_FIND_LINKS": str(self.folder / "dist"),
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            }
        )

    def work_folder(self, name: str) -> Path:
        """An empty folder with the inputs that the documents speak of."""
        folder = self.folder / "work" / name
        folder.mkdir(parents=True)
        add_inputs(folder, self.checkout)
        return folder


def install(folder: Path, *, real: bool = False, extras: str = "all", patience: float = 300) -> Install:
    """Build the wheel and install it.

    Args:
        folder: Made; holds a checkout, the wheel and the environment afterwards.
        real: Install the dependencies of ``extras`` from the index, instead of borrowing them.
        extras: See above.
        patience: See :class:`Install`.
    """
    made = Install(folder, real, patience)
    (folder / "home").mkdir(parents=True)
    copy_tree(made.checkout)
    add_inputs(made.checkout, made.checkout)
    _call(
        [sys.executable, "-m", "build", "--wheel", *_isolation(), "--outdir", folder / "dist", made.checkout]
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    _call([sys.executable, "-m", "venv", folder / "venv"])
    if not real:
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        lenders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        # Before Python 3.12 a venv brings a setuptools too old for us, which would hide the borrowed one.
        _call([made.bin / "python", "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools"])
        (site / "borrowed.pth").write_text("\n".join(lenders) + "\n", encoding="utf-8")
    options = [f"{wheel}[{extras}]"] if real else ["--no-index", "--no-deps", "--ignore-installed", wheel]
    _call([made.bin / "python", "-m", "pip", "install", "--quiet", *options])
    ask = [made.bin / "python", "-c", "import edge_deeplab; print(edge_deeplab.__file__)"]
    where = subprocess.check_output(ask, text=True, cwd=folder, env=made.environment)
    if not where.startswith(str(folder / "venv")):
        raise RuntimeError(f"not the wheel's package: {where}")
    return made


def copy_tree(target: Path) -> None:
    """What a clone would have, with uncommitted changes."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.check_output(listing, cwd=ROOT, text=True, stderr=subprocess.DEVNULL).split("\0")
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        ignored = shutil.ignore_patterns(
            ".*", "build", "dist", "out", "*.egg-info", "__pycache__", "node_modules"
        )
        shutil.copytree(ROOT, target, symlinks=True, ignore=ignored)
        return
    for name in filter(None, names):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def add_inputs(folder: Path, checkout: Path) -> None:
    """A photo, a film, a checkpoint and three small data sets, under the names that the documents use."""
    shutil.copy(checkout / "export" / "sample.jpg", folder / "photo.jpg")
    for name in ("best", "my"):
        weights = checkout / "edge_deeplab" / "weights" / "portrait.safetensors"
        shutil.copy(weights, folder / f"{name}.safetensors")
    photo = cv2.imread(str(folder / "photo.jpg"))
    assert photo is not None
    photo = cv2.resize(photo, SIZE[::-1], interpolation=cv2.INTER_AREA)
    writer = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, SIZE[::-1])
    for shift in range(30):
        writer.write(np.roll(photo, shift, axis=1))
    writer.release()
    person = np.zeros(SIZE, np.uint8)
    cv2.ellipse(person, (SIZE[1] // 2, SIZE[0] // 2), (30, 45), 0, 0, 360, 255, -1)
    classes = (np.indices(SIZE).sum(0) // 24 % 11).astype(np.uint8)
    for name, mask in (("mine", person), ("eg", person), ("camvid", classes)):
        for split in ("train", "val"):
            for part in ("images", "masks"):
                (folder / "data" / name / split / part).mkdir(parents=True)
            for k in range(4):
                at = folder / "data" / name / split
                # Different enough that "data check" does not find the same photo in both splits.
                turned = (
                    np.rot90(photo, 2 * (split == "val"))
                    if k % 2
                    else photo[::-1][:, :: (1, -1)[split == "val"]]
                )
                noise = np.random.default_rng(10 * k + (split == "val")).integers(0, 256, (6, 8, 3), np.uint8)
                mixed = cv2.addWeighted(
                    np.ascontiguousarray(turned), 0.3, cv2.resize(noise, SIZE[::-1]), 0.7, 0
                )
                cv2.imwrite(str(at / "images" / f"{split}{k}.jpg"), mixed)
                cv2.imwrite(str(at / "masks" / f"{split}{k}.png"), mask)


def _isolation() -> list[str]:
    try:
        new = int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        new = False
    return ["--no-isolation"] if new else []


def _call(command: Sequence[object]) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=clean)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
