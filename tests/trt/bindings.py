"""TensorRT's real Python bindings, without TensorRT: what they define is read, nothing is computed.

The bindings come as small wheels of their own and only need nine functions of TensorRT's large
libraries, all of them factories. Libraries that hold these functions and nothing behind them are enough
to import the bindings, so that every class, method, signature and enum can be looked at.

``python -m tests.trt.bindings`` writes ``api.json`` anew from the wheels.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TABLE = HERE / "api.json"

WHEELS = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.16.1.11": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4.0.106": "tensorrt-cu13-bindings==11.4.0.106",
}
"""TensorRT version -> the wheel with its bindings. 10.3 is what JetPack 6 has."""

LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")

FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    # 8.6 only: parsers of Caffe and UFF files
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
)

CLASSES = (
    "Builder",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "IInt8EntropyCalibrator2",
    "IInt8MinMaxCalibrator",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "Runtime",
)
"""Classes that the adapter touches."""

ENUMS = (
    "BuilderFlag",
    "DataType",
    "DeviceType",
    "HardwareCompatibilityLevel",
    "ILogger.Severity",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParserFlag",
    "PreviewFeature",
    "TensorIOMode",
)

UNHELPFUL = ("_pybind11", "__", "add_")
"""Attributes of these prefixes are Python's and pybind11's own, or add layers, which the parser does."""


KEPT = ("__init__", "add_optimization_profile")


class Unavailable(Exception):
    """The wheels, or a compiler for the libraries, cannot be had here."""


@dataclass(frozen=True)
class Bindings:
    """One version's bindings, unpacked, and the folder of libraries to import them over."""

    version: str
    folder: Path
    libraries: Path

    def python(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script that may ``import tensorrt_bindings`` in a process of its own."""
        path = os.pathsep.join([str(self.folder), str(HERE.parents[1])])
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "LD_LIBRARY_PATH": str(self.libraries), "PYTHONPATH": path},
        )


def wheels_folder() -> Path:
    """Where downloaded wheels are kept: ``$EDGE_DEEPLAB_TEST_WHEELS``, else the user's cache."""
    own = os.environ.get("EDGE_DEEPLAB_TEST_WHEELS")
    return Path(own) if own else Path.home() / ".cache" / "edge-deeplab" / "test-wheels"


@cache
def bindings(version: str, scratch: Path) -> Bindings:
    """Download (once), unpack and make importable.

    Raises:
        Unavailable: They cannot be had; the message says why.
    """
    if sys.platform != "linux":
        raise Unavailable("the stand-in libraries are made for Linux")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable("no C compiler to make the stand-in libraries with")
    wheel = _wheel(version)
    folder = scratch / f"bindings-{version}"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    libraries = scratch / f"libraries-{version}"
    libraries.mkdir(exist_ok=True)
    source = libraries / "none.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for library in LIBRARIES:
        name = f"lib{library}.so.{version.partition('.')[0]}"
        command = [
            compiler,
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{name}",
            "-o",
            str(libraries / name),
            str(source),
        ]
        subprocess.run(command, check=True, capture_output=True)
    return Bindings(version, folder, libraries)


def _wheel(version: str) -> Path:
    """The wheel of this version for this Python, downloaded if it is not there."""
    requirement = WHEELS[version]
    stem = requirement.replace("-", "_").replace("==", "-")
    pattern = f"{stem}-cp{sys.version_info[0]}{sys.version_info[1]}-*.whl"
    folder = wheels_folder()
    found = sorted(folder.glob(pattern))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += [
            "--disable-pip-version-check",
            "--retries=0",
            "--timeout=10",
            "--dest",
            str(folder),
            requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(folder.glob(pattern))
        if not found:
            last = (done.stderr.strip() or "no such wheel").splitlines()[-1]
            raise Unavailable(f"{requirement} cannot be downloaded: {last}")
    return found[0]


# -- what the bindings define --------------------------------------------------------------------


def table(version: str) -> dict[str, Any]:
    """The checked-in record of a version: see :func:`describe`."""
    record: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))[version]
    return record


def describe(trt: Any) -> dict[str, Any]:
    """What a ``tensorrt`` module defines of :data:`CLASSES` and :data:`ENUMS`.

    Returns:
        ``classes``: class -> attribute -> for methods the list of overloads, each a list of parameter
        names, ``=`` behind those with a default; for properties ``rw`` or ``ro``. ``enums``: enum ->
        member -> number.
    """
    classes = {}
    for name in CLASSES:
        found = getattr(trt, name, None)
        if found is not None:
            own = (n for n in sorted(vars(found)) if not n.startswith(UNHELPFUL) or n in KEPT)
            kinds = {n: _kind(vars(found)[n], n) for n in own}
            classes[name] = {n: kind for n, kind in kinds.items() if kind is not None}
    enums = {}
    for name in ENUMS:
        found = trt
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            members = getattr(found, "__members__")  # noqa: B009  # a pybind11 enum, unknown to type checkers
            enums[name] = {member: int(value) for member, value in sorted(members.items())}
    return {"classes": classes, "enums": enums}


def _kind(value: Any, name: str) -> list[list[str]] | str | None:
    if isinstance(value, property):
        return "rw" if value.fset else "ro"
    text = getattr(value, "__doc__", None) or ""
    heads = [line.partition(". ")[2] if line[:1].isdigit() else line for line in text.splitlines()]
    overloads = [h for h in heads if h.startswith(f"{name}(self:")]
    return [_parameters(head) for head in overloads] or None


def _parameters(head: str) -> list[str]:
    """``f(self: X, a: int, b: str = None) -> C`` -> ``["a", "b="]``."""
    inside = head[head.index("(") + 1 :]
    depth, part, parts = 0, "", []
    for letter in inside:
        if letter == ")" and depth == 0:
            break
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    parts.append(part)
    return [p.partition(":")[0].strip() + ("=" if " = " in p else "") for p in parts[1:]]


DUMP = """
import json
import tensorrt_bindings
from tests.trt.bindings import describe
print(json.dumps(describe(tensorrt_bindings)))
"""


def main() -> None:
    """Write the table anew."""
    import tempfile

    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for version in WHEELS:
            done = bindings(version, Path(scratch)).python(DUMP)
            if done.returncode:
                raise SystemExit(done.stderr)
            found[version] = json.loads(done.stdout)
    TABLE.write_text(_spelled(found) + "\n", encoding="utf-8")


def _spelled(value: Any, depth: int = 0) -> str:
    """JSON with one line per attribute and per enum."""
    if depth == 4 or not isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    inner = " " * (depth + 1)
    enums = depth == 2 and all(
        isinstance(v, dict) and all(isinstance(n, int) for n in v.values()) for v in value.values()
    )
    lines = [
        f"{inner}{json.dumps(k)}: {json.dumps(v, sort_keys=True) if enums else _spelled(v, depth + 1)}"
        for k, v in sorted(value.items())
    ]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


if __name__ == "__main__":
    main()
