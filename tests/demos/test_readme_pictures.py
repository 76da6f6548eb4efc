"""The README's pictures: made by the script, small, and there."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_deeplab.demos import readme_pictures
from edge_deeplab.runtimes import open_model
from tests.demos.support import frame
from tests.runtimes.artefacts import toy_onnx

ROOT = Path(__file__).resolve().parents[2]
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def test_strip_and_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme_pictures, "SECONDS", 0.2)
    photo = cv2.resize(frame(3), (512, 512))
    modes = readme_pictures.Modes(np.full((8, 8, 3), (0, 255, 0), np.uint8))
    with open_model(toy_onnx(tmp_path / "toy.onnx")) as model:
        strip = readme_pictures.strip(model, photo, modes)
        film = readme_pictures.animated(readme_pictures.clip(model, photo, modes))
    width, height = readme_pictures.PANEL
    assert strip.shape == (height, width * len(modes.names), 3)
    assert (strip[-1, 3 * width + 10] == (0, 255, 0)).all()  # the new background
    opened = Image.open(io.BytesIO(film))
    assert opened.n_frames == 3 * len(modes.names)
    assert opened.info["loop"] == 0


@pytest.mark.parametrize("name", ["modes.jpg", "modes.webp"])
def test_the_readme_shows_pictures_that_are_there_and_small(name: str) -> None:
    path = ROOT / "docs" / "pictures" / name
    assert 10_000 < path.stat().st_size < 1_500_000
    with Image.open(path) as picture:
        assert picture.width >= 400
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in ("README.md", "docs/demo-webcam.md")]
    assert any(f"pictures/{name}" in text for text in texts)
