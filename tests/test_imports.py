"""Who may import whom, and what runs without PyTorch."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import write_image
from edge_deeplab.zoo import shipped
from tests.runtimes.artefacts import picture, toy_onnx

ROOT = Path(__file__).resolve().parents[1]

LAYERS = [
    {"version", "errors", "files", "plugins", "spec", "imaging", "metrics"}
    | {"refine", "temporal", "matte", "composite"},
    {"data", "evaluation"},
    {"zoo", "runtimes"},
    {"bench"},
    {"models", "training"},
    {"export"},
    {"cli", "demos"},
]
"""Parts of the package; each may import its own row and those above it (docs/architecture.md)."""

LIGHT = {"numpy", "cv2"}


@dataclass(frozen=True)
class Import:
    """One import statement."""

    module: str
    at_top: bool
    """Runs when the file is imported, not when a function is called."""


def statements(node: ast.AST, at_top: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_top
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        else:
            yield from statements(child, at_top and not isinstance(child, ast.FunctionDef | ast.Lambda))


def imports(path: Path) -> Iterator[Import]:
    """Every module a file imports, type-checking blocks left out; relative imports are not used here."""
    for statement, at_top in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif statement.module == "edge_deeplab":
            names = [f"edge_deeplab.{alias.name}" for alias in statement.names]
        else:
            assert statement.module, f"{path} has a relative import"
            names = [statement.module]
        yield from (Import(name, at_top) for name in names)


def sources() -> dict[str, Path]:
    """Dotted name -> file of every module of the package, wherever its folder lies."""
    found = {}
    for path in sorted((ROOT / "edge_deeplab").rglob("*.py")):
        found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    for folder in ("export", "runtimes", "demos"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found[".".join(("edge_deeplab", *path.relative_to(ROOT).with_suffix("").parts))] = path
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


SOURCES = sources()


def part(module: str) -> str:
    """``imaging`` of ``edge_deeplab.imaging``, ``export`` of ``edge_deeplab.export.verify``."""
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    return next((rank for rank, parts in enumerate(LAYERS) if part(module) in parts), -1)


def ours(module: str) -> bool:
    return module.partition(".")[0] == "edge_deeplab"


def third_party(module: str) -> bool:
    return not ours(module) and module.partition(".")[0] not in sys.stdlib_module_names


# -- reading the sources -------------------------------------------------------------------------


def test_every_part_has_a_layer() -> None:
    parts = {part(name) for name in SOURCES} - {"", "__main__", "weights"}
    assert parts == set.union(*LAYERS)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_point_upwards(name: str) -> None:
    if name in ("edge_deeplab", "edge_deeplab.__main__"):
        pytest.skip("the package itself and its entry point name their parts")
    for found in imports(SOURCES[name]):
        if not ours(found.module):
            continue
        # A runtime opens its own kind of file, and checkpoints are opened by the models' code.
        if name.startswith("edge_deeplab.runtimes.on_") and not found.at_top:
            continue
        assert layer(found.module) <= layer(name), f"{name} imports {found.module}"


@pytest.mark.parametrize("name", [name for name in SOURCES if layer(name) <= 3 and part(name)])
def test_the_lower_layers_need_numpy_and_opencv_only(name: str) -> None:
    """When imported; and the lowest at any time."""
    for found in imports(SOURCES[name]):
        if third_party(found.module) and (found.at_top or layer(name) == 0):
            assert found.module.partition(".")[0] in LIGHT, f"{name} imports {found.module}"


@pytest.mark.parametrize("name", [name for name in SOURCES if part(name) == "runtimes"])
def test_runtimes_import_no_model_code_at_their_top(name: str) -> None:
    tops = {part(found.module) for found in imports(SOURCES[name]) if ours(found.module) and found.at_top}
    assert tops.isdisjoint({"models", "training", "export", "cli"})


SPEAK_FIRST = [
    name
    for name in SOURCES
    if part(name) == "cli" or name.startswith(("edge_deeplab.demos.demo_", "edge_deeplab.demos.options"))
]
"""Commands, and what they import to say what they take."""


@pytest.mark.parametrize("name", SPEAK_FIRST)
def test_commands_import_nothing_heavy_at_their_top(name: str) -> None:
    light = {"errors", "plugins", "version", "cli"}
    for found in imports(SOURCES[name]):
        if found.at_top:
            assert not third_party(found.module), f"{name} imports {found.module}"
            assert not ours(found.module) or part(found.module) in light or found.module in SPEAK_FIRST


def test_only_export_and_its_users_import_export() -> None:
    users = {
        part(name)
        for name, path in SOURCES.items()
        for found in imports(path)
        if part(found.module) == "export" and ours(found.module)
    }
    assert users <= {"export", "cli", "demos"}


@pytest.mark.parametrize("name", SOURCES)
def test_nobody_imports_the_second_copy(name: str) -> None:
    """``export`` and its neighbours can be imported from the checkout's root, as other modules."""
    tops = {found.module.partition(".")[0] for found in imports(SOURCES[name])}
    assert tops.isdisjoint({"export", "runtimes", "demos"})


def test_the_scanner_sees_what_it_should(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "import a.b\nfrom edge_deeplab import c\nif TYPE_CHECKING:\n    import d\n"
        "try:\n    import e\nexcept ImportError:\n    pass\n"
        "def f():\n    with g:\n        from h.i import j\n"
    )
    assert list(imports(path)) == [
        Import("a.b", True),
        Import("edge_deeplab.c", True),
        Import("e", True),
        Import("h.i", False),
    ]


# -- without PyTorch -----------------------------------------------------------------------------

NO_TORCH = """
import sys
for name in ("torch", "torchvision", "safetensors", "tensorboard", "onnx", "onnxscript", "onnxsim"):
    sys.modules[name] = None
"""

CLI = NO_TORCH + "from edge_deeplab.cli import main\nraise SystemExit(main(sys.argv[1:]))\n"


def python(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        # Training starts its process anew unless this is set; the new one would have its torch back.
        env={**os.environ, "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.check=0")},
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import edge_deeplab",
        "import edge_deeplab.spec, edge_deeplab.imaging, edge_deeplab.metrics",
        "import edge_deeplab.runtimes",
        "from edge_deeplab.runtimes import runtimes; runtimes()",
        "from edge_deeplab.export import targets; targets()",
        "import edge_deeplab.data, edge_deeplab.evaluation, edge_deeplab.zoo",
        "from edge_deeplab.models.variants import VARIANTS",
        "from edge_deeplab.training.config import TrainConfig",
    ],
)
def test_importing_brings_no_torch(tmp_path: Path, statement: str) -> None:
    heavy = "sorted({'torch', 'onnxruntime', 'onnx', 'safetensors', 'tensorboard'} & set(sys.modules))"
    done = python(f"import sys\n{statement}\nprint({heavy})", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return toy_onnx(tmp_path / "toy.onnx")


def test_onnx_runtime_reports_to_nobody(toy: Path, tmp_path: Path) -> None:
    """What its reports would be kept in, TMPDIR/.ses, is not even made; whoever set the variable decides."""
    (tmp_path / "own").mkdir()
    said = "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    script = f"from edge_deeplab.runtimes import open_model; open_model({str(toy)!r}).close(); {said}"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for own, wanted in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**environment, **own, "TMPDIR": str(tmp_path / "own")},
        )
        assert done.stdout.strip() == wanted
        if wanted == "1":
            assert list((tmp_path / "own").iterdir()) == []


def test_open_model_runs_without_torch(toy: Path, tmp_path: Path) -> None:
    script = NO_TORCH + (
        "import numpy as np\n"
        "from edge_deeplab.runtimes import open_model\n"
        "with open_model(sys.argv[1], threads=1) as model:\n"
        "    frame = np.full((30, 40, 3), 200, np.uint8)\n"
        "    labels = model.warmup(1).segment(frame).labels\n"
        "    assert model.segment_batch([frame, frame])[1].probability.min() > 0.5\n"
        "print(labels.shape, labels.min())\n"
    )
    done = python(script, toy, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("(30, 40) 1\n", "")


def test_commands_run_without_torch(toy: Path, tmp_path: Path, make_people: Callable[..., Path]) -> None:
    write_image(tmp_path / "photo.png", picture(30, 40))
    kinds = [f"--save={kind}" for kind in ("mask", "alpha", "overlay", "cutout")]
    done = python(CLI, "predict", toy, tmp_path / "photo.png", "--output", "out", *kinds, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    mask = cv2.imread(str(tmp_path / "out" / "photo.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert (mask.shape, mask.dtype) == ((30, 40), np.uint8)

    data = make_people(tmp_path / "people", train=1, val=1)
    for arguments in (["eval", toy, "--data", f"folder:{data}"], ["info", toy, "--json"], ["doctor"]):
        done = python(CLI, *arguments, cwd=tmp_path)
        said = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]  # LiteRT's own
        assert (done.returncode, said) == (0, []), arguments


def test_shipped_models_are_listed_without_torch(tmp_path: Path) -> None:
    done = python(CLI, "models", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["shipped"].keys() <= shipped().keys()
    for files in shipped().values():
        if ".safetensors" in files:
            done = python(CLI, "info", files[".safetensors"], cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")


def test_what_needs_torch_says_so_in_one_line(tmp_path: Path, make_people: Callable[..., Path]) -> None:
    checkpoint = next((f[".safetensors"] for f in shipped().values() if ".safetensors" in f), None)
    if checkpoint is None:
        pytest.skip("no checkpoint is shipped")
    write_image(tmp_path / "photo.png", picture(30, 40))
    data = make_people(tmp_path / "people", train=2, val=1)
    for extra, arguments in (
        ("train", ["predict", checkpoint, "photo.png", "--output", "out"]),
        ("train", ["train", "--data", f"folder:{data}", "--output", "out"]),
        ("train", ["average", checkpoint, checkpoint, "--output", "out/x.safetensors"]),
        ("export", ["export", checkpoint, "--target", "onnx", "--output", "out/x.onnx"]),
        ("export", ["export", checkpoint, "--target", "safetensors", "--output", "out/x.safetensors"]),
        ("export-tflite", ["export", checkpoint, "--target", "tflite", "--output", "out/x.tflite"]),
        ("export", ["export", checkpoint, "--target", "trt", "--prepare", "--output", "out/x.onnx"]),
    ):
        done = python(CLI, *arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert f"is not installed; cure: pip install 'edge-deeplab[{extra}]'" in done.stderr
        assert not (tmp_path / "out").exists()
