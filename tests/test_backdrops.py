"""``benchmarks/backdrops.py``: views out of panoramas."""

from __future__ import annotations

import base64
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge_deeplab.errors import UserError
from tests.cli.support import read

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def backdrops(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("backdrops")


def lamp(longitude: float, latitude: float) -> np.ndarray:
    """A dark panorama, 512x1024, with one lamp, degrees to the right of and below its middle."""
    light = np.full((512, 1024, 3), 0.01, np.float32)
    row, column = round(256 + latitude / 180 * 512), round(512 + longitude / 360 * 1024) % 1024
    light[row - 2 : row + 2, column - 2 : column + 2] = 5
    return light


def brightest(view: np.ndarray) -> tuple[float, float]:
    """Middle of the lamp, pixels from the view's middle: (right, down)."""
    rows, columns = np.nonzero(view.mean(axis=-1) > 2)
    assert len(rows), "the lamp is not in the picture"
    return columns.mean() + 0.5 - view.shape[1] / 2, rows.mean() + 0.5 - view.shape[0] / 2


@pytest.mark.parametrize(("longitude", "latitude"), [(0, 0), (90, 0), (-120, 20), (170, -35)])
def test_what_is_looked_at_is_in_the_middle(backdrops: ModuleType, longitude: int, latitude: int) -> None:
    yaw, pitch = np.radians([longitude, latitude])
    seen = backdrops.view(lamp(longitude, latitude), yaw=yaw, pitch=pitch, across=np.radians(70))
    assert seen.shape == (320, 240, 3)
    assert brightest(seen) == pytest.approx((0, 0), abs=1)


def test_a_view_is_a_camera_s(backdrops: ModuleType) -> None:
    """Straight lines stay straight: 30 degrees aside lies at the tangent, whatever the angle of view."""
    for across in np.radians([70, 90]):
        focal = 120 / np.tan(across / 2)
        right = backdrops.view(lamp(30, 0), yaw=0.0, pitch=0.0, across=across)
        assert brightest(right) == pytest.approx((focal * np.tan(np.radians(30)), 0), abs=1.5)
        below = backdrops.view(lamp(0, 30), yaw=0.0, pitch=0.0, across=across)
        assert brightest(below) == pytest.approx((0, focal * np.tan(np.radians(30))), abs=1.5)


def test_development_exposes_for_the_middle(backdrops: ModuleType) -> None:
    scene = np.geomspace(0.001, 1, 320, dtype=np.float32)[:, None, None] * np.ones((320, 240, 3), np.float32)
    dark, light = (backdrops.develop(scene * gain, 1.0) for gain in (1, 100))
    np.testing.assert_allclose(dark.astype(int), light.astype(int), atol=3)
    assert dark[160].mean() == pytest.approx(255 * (0.18 / 1.054) ** (1 / 2.2), abs=2)
    assert backdrops.develop(scene, 2.0).mean() > dark.mean()


def test_a_package_s_panorama(backdrops: ModuleType, tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR", reason="needs: pip install OpenEXR")
    pixels = np.full((8, 16, 3), [1.0, 2.0, -0.5], np.float16)
    pixels[0, 0, 0] = np.inf
    exr.File({"type": exr.scanlineimage}, {"RGB": exr.Channel("RGB", pixels)}).write(str(tmp_path / "x.exr"))
    text = base64.b64encode((tmp_path / "x.exr").read_bytes()).decode()
    package = tmp_path / "room.exr.js"
    package.write_text(f'export default "data:application/octet-stream;base64,{text}"')
    light = backdrops.panorama(package)
    assert light[3, 3].tolist() == [0, 2, 1]  # BGR, nothing below 0
    assert np.isfinite(light).all()


def test_no_panorama(backdrops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "room.exr.js").write_text("export default 1")
    with pytest.raises(UserError, match="holds no panorama"):
        backdrops.panorama(tmp_path / "room.exr.js")


def test_a_data_set(backdrops: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first view of each panorama is for val; people are nowhere."""
    (tmp_path / "hall.exr.js").touch()
    monkeypatch.setattr(backdrops, "panorama", lambda path: lamp(0, 0))
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["backdrops.py", str(tmp_path), str(out), "--views", "4"])
    backdrops.main()
    views = {part: sorted(p.name for p in (out / part / "images").iterdir()) for part in ("train", "val")}
    assert views == {"train": ["hall-01.jpg", "hall-02.jpg", "hall-03.jpg"], "val": ["hall-00.jpg"]}
    assert not any(read(path).any() for path in out.glob("*/masks/*.png"))
