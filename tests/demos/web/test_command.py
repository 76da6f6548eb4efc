"""``edge-deeplab demo web`` as it is typed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from edge_deeplab.cli import main
from tests.runtimes.artefacts import toy_onnx

pytest.importorskip("starlette", reason="the extra `web` is not installed")
pytest.importorskip("uvicorn", reason="the extra `web` is not installed")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a user error ends with."""
    assert main(["demo", "web", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert not said.out
    return said.err


def test_it_prints_its_address_serves_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    model = toy_onnx(tmp_path / "toy.onnx")
    command = [sys.executable, "-m", "edge_deeplab", "demo", "web", "--port", "0", "--model", str(model)]
    with subprocess.Popen(
        [*command, "--server-runtime", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as running:
        assert running.stdout and running.stderr
        line = running.stdout.readline()
        assert line.startswith("toy on the server: ONNX Runtime ("), line or running.stderr.read()
        url = line.split()[-1]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url) as answer:
            assert b"edge-deeplab" in answer.read()
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
        assert running.stderr.read() == "stopped\n"


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(capsys, "--port", str(port))
    assert f"port {port}" in said
    assert "address already in use" in said
    assert "--port 0" in said


def test_an_address_that_is_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot listen on 192.0.2.1" in refused(capsys, "--host", "192.0.2.1", "--port", "0")


def test_a_checkpoint_needs_the_server_runtime(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"x")
    said = refused(capsys, "--model", str(path))
    assert "--server-runtime" in said
    assert "edge-deeplab export" in said


@pytest.mark.parametrize("flag", ["--threads 2", "--provider cpu", "--delegate none", "--device cpu"])
def test_what_the_browser_would_not_hear_of(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    name, value = flag.split()
    assert f"{name} is for --server-runtime" in refused(capsys, name, value)


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model 'nothing'" in refused(capsys, "--model", "nothing")


def test_half_a_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--certificate and --key" in refused(capsys, "--certificate", "a.pem")


def test_a_certificate_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(tmp_path / "a.pem")
    assert "no such file" in refused(capsys, "--certificate", path, "--key", path).lower()
    Path(path).write_text("no certificate")
    assert "must be PEM files" in refused(capsys, "--certificate", path, "--key", path)


@pytest.mark.parametrize("port", ["70000", "-1", "http"])
def test_ports_that_are_none(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", "web", "--port", port])
    assert stop.value.code == 2
    assert "is no port" in capsys.readouterr().err
