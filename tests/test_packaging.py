"""``pyproject.toml`` against the folders: what is listed is there, and what is there is listed."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_deeplab.version import __version__

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read TOML by itself")

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
LINKS = ("export", "runtimes", "demos")
IMPORTED_AS = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "cuda": "cuda-bindings",
    "ai_edge_litert": "ai-edge-litert",
    "ai_edge_quantizer": "ai-edge-quantizer",
    "litert_torch": "litert-torch",
}
"""Modules that are not called as what one installs."""


def folder(package: str) -> Path:
    """Where the mapping puts a package."""
    mapping = SETUPTOOLS["package-dir"]
    if package in mapping:
        return ROOT / mapping[package]
    parent, _, name = package.rpartition(".")
    return folder(parent) / name


def name_of(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower()


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in SETUPTOOLS["packages"]:
        for path in sorted(folder(package).glob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


# -- packages ------------------------------------------------------------------------------------


def test_the_packages_are_the_folders() -> None:
    inside = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "edge_deeplab").rglob("__init__.py")
    }
    # Python before 3.13 does not follow links here, later ones may.
    inside = {name for name in inside if name.split(".")[1:2] not in [[link] for link in LINKS]}
    mapped = {
        f"edge_deeplab.{'.'.join(path.parent.relative_to(ROOT).parts)}"
        for link in LINKS
        for path in (ROOT / link).rglob("__init__.py")
    }
    assert sorted(SETUPTOOLS["packages"]) == sorted(inside | mapped)


def test_every_package_has_its_folder() -> None:
    for package in SETUPTOOLS["packages"]:
        assert (folder(package) / "__init__.py").is_file(), package


@pytest.mark.parametrize("name", LINKS)
def test_the_links_point_to_the_mapped_folders(name: str) -> None:
    link = ROOT / "edge_deeplab" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert SETUPTOOLS["package-dir"][f"edge_deeplab.{name}"] == name


def test_linters_do_not_see_linked_files_twice() -> None:
    links = [f"edge_deeplab/{name}" for name in LINKS]
    assert sorted(PROJECT["tool"]["ruff"]["extend-exclude"]) == sorted(links)
    assert sorted(PROJECT["tool"]["pyright"]["ignore"]) == sorted(links)


NOT_INSTALLED = [ROOT / "demos/web/npm"]
"""Tools of the people who work on the package."""


def data_files(package: str) -> set[Path]:
    """Files of a package's folder that are not Python, those of its sub-packages left out."""
    elsewhere = {folder(name) for name in SETUPTOOLS["packages"] if name != package}
    elsewhere |= {ROOT / "edge_deeplab" / link for link in LINKS} | {*NOT_INSTALLED}
    elsewhere -= set(folder(package).parents)
    return {
        path
        for path in folder(package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and elsewhere.isdisjoint(path.parents)
    }


def test_files_that_are_not_python_are_listed() -> None:
    """What no pattern names would be missing from the wheel."""
    patterns: dict[str, list[str]] = SETUPTOOLS["package-data"]
    for package in SETUPTOOLS["packages"]:
        listed = {path for pattern in patterns.get(package, []) for path in folder(package).glob(pattern)}
        assert data_files(package) == listed, package
    for package, names in patterns.items():
        for name in names:
            assert "*" in name or (folder(package) / name).is_file(), name
    assert (folder("edge_deeplab") / "py.typed").is_file()


def test_the_licences_are_there() -> None:
    for name in PROJECT["project"]["license-files"]:
        assert (ROOT / name).is_file(), name


def test_the_command_is_the_one_installed() -> None:
    assert PROJECT["project"]["scripts"] == {"edge-deeplab": "edge_deeplab.cli:main"}
    from edge_deeplab.cli import main

    assert callable(main)


# -- version -------------------------------------------------------------------------------------


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    module, _, attribute = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
    assert getattr(importlib.import_module(module), attribute) == __version__
    assert importlib.import_module("edge_deeplab").__version__ == __version__
    literal = re.compile(rf"[\"']{re.escape(__version__)}[\"']")
    found = [path.name for path, _ in sources() if literal.search(path.read_text(encoding="utf-8"))]
    assert found == ["version.py"]


def test_the_version_is_in_the_changelog_and_in_what_is_installed() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert __version__ in headings
    assert importlib.metadata.version("edge-deeplab") == __version__


# -- requirements --------------------------------------------------------------------------------


def named_extras() -> Iterator[tuple[str, str]]:
    """Every ``needs("…")`` and every ``extra = "…"``, with the file it is in."""
    for path, tree in sources():
        for node in ast.walk(tree):
            value: ast.expr | None = None
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("needs") and node.args:
                value = node.args[0]
            elif isinstance(node, ast.keyword | ast.AnnAssign | ast.Assign):
                target = (
                    node.arg
                    if isinstance(node, ast.keyword)
                    else ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
                )
                value = node.value if target == "extra" else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
                yield path.name, value.value


def test_extras_that_are_named_exist() -> None:
    found = set(named_extras())
    assert {extra for _, extra in found} >= {"onnx", "train", "export"}
    for path, extra in found:
        assert extra in EXTRAS, f"{path} names {extra}"


def test_extras_that_are_named_in_messages_exist() -> None:
    for path, _ in sources():
        for extras in re.findall(r"edge-deeplab\[(\w[\w,-]*)\]", path.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= set(EXTRAS), path


def test_all_is_everything_but_development_and_what_needs_a_gpu() -> None:
    (requirement,) = EXTRAS["all"]
    listed = set(requirement.removeprefix("edge-deeplab[").removesuffix("]").split(","))
    # pyvirtualcam is under the GPL: whoever wants it asks for it by name.
    assert listed == set(EXTRAS) - {"all", "dev", "trt", "virtual-camera"}


def test_what_is_imported_is_required() -> None:
    required = {name_of(r) for r in PROJECT["project"]["dependencies"]}
    required |= {name_of(r) for requirements in EXTRAS.values() for r in requirements}
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                if name not in sys.stdlib_module_names and name != "edge_deeplab":
                    assert IMPORTED_AS.get(name, name) in required, f"{path} imports {name}"


def test_requirements_have_a_tested_version() -> None:
    tested = {
        name_of(line)
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    }
    wanted = {name_of(r) for r in PROJECT["project"]["dependencies"]}
    wanted |= {name_of(r) for requirements in EXTRAS.values() for r in requirements}
    # TensorRT is whatever the board has; no version of it has been run (docs/tensorrt.md).
    assert wanted - {"edge-deeplab", "tensorrt"} <= tested
