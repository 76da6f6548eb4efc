"""The same artefacts on an emulated aarch64 processor: do they give the labels they give here?

Segments pictures twice, with this Python and with an aarch64 Python under qemu-user, through the same
runtimes and the same versions of their libraries, and compares the labels pixel by pixel. It says nothing
about speed: qemu is about a hundred times slower than a board.

Needs a Debian machine (x86-64) with its usual package sources, network the first time, and no root: qemu,
the aarch64 Python and the aarch64 wheels are unpacked into a folder of their own (about 700 MB).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-deeplab" / "aarch64"

AGREEMENT = 0.995
"""Smallest share of pixels with the same label; float sums are taken in another order over there."""

RELEASE, PYTHON = "bookworm", "3.11"
QEMU = f"{RELEASE}-backports"
"""Where a qemu that can be trusted comes from: 7.2 of the release itself crashes newer LiteRT, or computes
wrong integers without a word."""

OLDEST_QEMU = 10
CPU = "max,sme=off"
GUEST_PACKAGES = (
    "libc6",
    "libstdc++6",
    "libgcc-s1",
    f"python{PYTHON}-minimal",
    f"libpython{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
    "zlib1g",
    "libbz2-1.0",
    "liblzma5",
    "libexpat1",
    "libffi8",
    "libssl3",
    "libuuid1",
)
WHEELS = ("numpy", "opencv-python-headless", "ai-edge-litert", "onnxruntime")
PLATFORMS = (
    "manylinux2014_aarch64",
    *(f"manylinux_2_{minor}_aarch64" for minor in (17, 27, 28, 31, 34, 35)),
)
MODELS = (".tflite", ".onnx")


# -- run in both worlds --------------------------------------------------------------------------


def answer(models: Sequence[Path], pictures: Sequence[Path], output: Path) -> None:
    """Segment every picture with every model; one ``.npy`` of labels each."""
    from edge_deeplab.imaging import read_image
    from edge_deeplab.runtimes import open_model

    for model in models:
        begin = time.perf_counter()
        with open_model(model, threads=1) as runtime:
            for picture in pictures:
                labels = runtime.segment(read_image(picture)).labels
                np.save(output / f"{model.name}.{picture.stem}.npy", labels)
        took = (time.perf_counter() - begin) / len(pictures)
        print(f"  {model.name}: {took:.1f} s a picture", flush=True)


# -- the other world -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Guest:
    """An aarch64 Python in a folder."""

    qemu: Path
    system: Path
    site: Path

    def run(self, arguments: Sequence[str]) -> None:
        """Run Python there; its output goes to ours."""
        python = self.system / "usr" / "bin" / f"python{PYTHON}"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (self.site, ROOT))),
            "PYTHONHOME": str(self.system / "usr"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "QEMU_LD_PREFIX": str(self.system),
        }
        command = [str(self.qemu), "-cpu", CPU, "-L", str(self.system), str(python), *arguments]
        subprocess.run(command, check=True, env=environment)


def prepare(folder: Path) -> Guest:
    """Fetch and unpack what is missing in ``folder``."""
    guest = Guest(_qemu(folder), folder / "system", folder / "site")
    _step(guest.system, lambda place: _debian(place, folder / "apt-arm64", "arm64", GUEST_PACKAGES, RELEASE))
    _step(guest.site, _wheels)
    return guest


def _step(place: Path, make: Callable[[Path], None]) -> None:
    """Make a folder whole or not at all."""
    if place.is_dir():
        return
    print(f"preparing {place}", flush=True)
    unfinished = place.with_name(place.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    make(unfinished)
    unfinished.rename(place)


def _qemu(folder: Path) -> Path:
    """A qemu-aarch64 that is new enough: this system's, or Debian's backport."""
    own = shutil.which("qemu-aarch64")
    if own and _qemu_version(Path(own)) >= OLDEST_QEMU:
        return Path(own)
    place = folder / "qemu"
    _step(place, lambda part: _debian(part, folder / "apt-amd64", "amd64", ("qemu-user",), QEMU))
    return place / "usr" / "bin" / "qemu-aarch64"


def _qemu_version(path: Path) -> int:
    text = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
    return int(text.split("version ")[1].split(".")[0])


def _debian(place: Path, state: Path, architecture: str, packages: Sequence[str], release: str) -> None:
    """Unpack Debian packages of any architecture, with an apt whose state lies in a folder."""
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    lines = [f"deb [signed-by={key}] {_mirror()} {name} main" for name in dict.fromkeys((RELEASE, release))]
    (state / "sources").write_text("\n".join(lines) + "\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "sources",
        "Dir::Etc::sourceparts": os.devnull,
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    debs = state / "debs"
    debs.mkdir(exist_ok=True)
    subprocess.run(["apt-get", *options, "-q=2", "update"], check=True)
    wanted = [f"{name}/{release}" for name in packages]
    subprocess.run(["apt-get", *options, "-q=2", "download", *wanted], check=True, cwd=debs)
    for deb in sorted(debs.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(deb), str(place)], check=True)


def _mirror() -> str:
    """The Debian mirror this machine takes its packages from."""
    form = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)"]
    text = subprocess.run(form, check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        origin, _, rest = line.partition(" ")
        codename, _, address = rest.partition(" ")
        if origin == "Debian" and not codename.endswith("-security"):
            return address
    raise SystemExit("this system's package sources are not Debian's, or `apt-get update` was never run")


def _wheels(place: Path) -> None:
    """The same versions as here, built for aarch64, with what they need."""
    pinned = []
    for name in WHEELS:
        try:
            pinned.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            other = name.removesuffix("-headless")  # opencv-python brings the same module
            pinned.append(f"{name}=={version(other)}")
    wheels = place.with_name("wheels")
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", *platforms]
    command += ["--python-version", PYTHON, "--implementation", "cp", "--dest", str(wheels), *pinned]
    subprocess.run(command, check=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place)


# -- comparing -----------------------------------------------------------------------------------


def compare(here: Path, there: Path, models: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Model -> picture -> share of pixels with the same label."""
    found: dict[str, dict[str, float]] = {}
    for model in models:
        found[model.name] = {}
        for file in sorted(here.glob(f"{model.name}.*.npy")):
            ours: NDArray[np.uint8] = np.load(file)
            theirs: NDArray[np.uint8] = np.load(there / file.name)
            name = file.name.removeprefix(f"{model.name}.").removesuffix(".npy")
            found[model.name][name] = float(np.mean(ours == theirs))
    return found


def report(found: Mapping[str, Mapping[str, float]]) -> bool:
    """Print the table; whether all agree well enough."""
    width = max(map(len, found))
    print(f"{'model':{width}}  pictures  same labels     worst")
    for model, shares in found.items():
        values = list(shares.values())
        print(f"{model:{width}}  {len(values):8}  {np.mean(values):10.4%}  {min(values):8.4%}")
    return all(min(shares.values()) >= AGREEMENT for shares in found.values())


def pictures_of(folder: Path | None, count: int, work: Path) -> list[Path]:
    """Some pictures of a folder, or views of the packaged portrait written to files."""
    if folder is None:
        from edge_deeplab.export.sample import views

        chosen = []
        for number, (_, view) in enumerate(views()[:count]):
            chosen.append(work / f"view{number}.png")
            cv2.imwrite(str(chosen[-1]), view)
        return chosen
    from edge_deeplab.imaging import pictures_in

    every = pictures_in(folder)
    return [every[i] for i in np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int)]


def run(args: argparse.Namespace) -> int:
    """Both worlds, then the table."""
    models = [path.resolve() for path in args.models]
    for path in models:
        if not path.is_file() or path.suffix not in MODELS:
            raise SystemExit(f"aarch64: {path} is no artefact ({', '.join(MODELS)})")
    guest = prepare(args.folder)
    work = args.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    here, there = work / "here", work / "there"
    for folder in (here, there):
        folder.mkdir(parents=True)
    pictures = pictures_of(args.pictures, args.count, work)
    listed = work / "task.json"
    listed.write_text(json.dumps({"models": list(map(str, models)), "pictures": list(map(str, pictures))}))
    print("here:", flush=True)
    answer(models, pictures, here)
    print(f"aarch64, qemu {_qemu_version(guest.qemu)}, -cpu {CPU}:", flush=True)
    guest.run([__file__, "--task", str(listed), "--answers", str(there)])
    found = compare(here, there, models)
    passed = report(found)
    if args.json:
        args.json.write_text(json.dumps({"least": AGREEMENT, "passed": passed, "agreement": found}, indent=1))
    print("passed" if passed else f"FAILED: a picture has less than {AGREEMENT:.1%} of its labels in common")
    return 0 if passed else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("models", nargs="*", type=Path, metavar="ARTEFACT", help=".tflite and .onnx files")
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="to segment (default: views of the packaged portrait)"
    )
    parser.add_argument("--count", type=int, default=4, metavar="N", help="of them (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=CACHE, metavar="DIR", help="of the other system (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every picture's agreement")
    parser.add_argument("--prepare", action="store_true", help="fetch what is missing, and no more")
    parser.add_argument("--task", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.task:  # we are the guest
        task = json.loads(args.task.read_text())
        answer([Path(p) for p in task["models"]], [Path(p) for p in task["pictures"]], args.answers)
        return 0
    if args.prepare:
        prepare(args.folder)
        return 0
    if not args.models:
        parser.error("name at least one artefact")
    return run(args)


if __name__ == "__main__":
    raise SystemExit(main())
