"""What a run says it was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edge_deeplab.training import environment


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's checkout with this package inside, and a change that is not committed."""
    inside = tmp_path / ".venv" / "edge_deeplab" / "training"
    inside.mkdir(parents=True)
    (inside / "environment.py").write_text("installed\n")
    (tmp_path / "theirs.py").write_text("one\n")
    (tmp_path / ".gitignore").write_text(".venv\n")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "theirs")
    (tmp_path / "theirs.py").write_text("two\n")
    monkeypatch.setattr(environment, "HERE", inside)
    return tmp_path


def _git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True)


def test_the_checkout_around_an_installed_package_is_not_its_own(project: Path) -> None:
    assert environment.git_commit() == ""
    assert environment.git_patch() == ""


def test_the_checkout_of_the_code_itself(project: Path) -> None:
    _git(project, "add", "--force", ".venv")
    assert environment.git_commit().endswith("+dirty")
    assert "+two" in environment.git_patch()
