"""What lies in ``page/``: whole, pinned, and with its licences. Needs neither a browser nor npm."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[3] / "demos" / "web"
PAGE = WEB / "page"
VENDOR = PAGE / "vendor" / "onnxruntime-web"
MANIFEST = json.loads((VENDOR / "manifest.json").read_text(encoding="utf-8"))


def test_the_files_are_those_that_npm_delivers() -> None:
    """The lock file pins the package by its hash, the manifest every file of it that is here."""
    lock = json.loads((WEB / "npm" / "package-lock.json").read_text(encoding="utf-8"))
    pinned = lock["packages"]["node_modules/onnxruntime-web"]
    assert (MANIFEST["version"], MANIFEST["integrity"]) == (pinned["version"], pinned["integrity"])
    package = json.loads((WEB / "npm" / "package.json").read_text(encoding="utf-8"))
    assert package["dependencies"] == {"onnxruntime-web": MANIFEST["version"]}


@pytest.mark.parametrize("name", [*MANIFEST["sha256"], *MANIFEST["licences"]])
def test_a_file_is_unchanged(name: str) -> None:
    path = VENDOR / name
    data = path.read_bytes() if path.is_file() else gzip.decompress((VENDOR / f"{name}.gz").read_bytes())
    assert hashlib.sha256(data).hexdigest() == (MANIFEST["sha256"] | MANIFEST["licences"])[name]


def test_nothing_else_lies_there() -> None:
    expected = {f"{name}.gz" if name.endswith(".wasm") else name for name in MANIFEST["sha256"]}
    expected |= {"manifest.json", *MANIFEST["licences"]}
    assert {path.name for path in VENDOR.iterdir()} == expected


def test_licences_are_kept() -> None:
    assert "MIT License" in (VENDOR / "LICENSE").read_text(encoding="utf-8")
    assert "protobuf" in (VENDOR / "ThirdPartyNotices.txt").read_text(encoding="utf-8").lower()
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        assert f"vendor/onnxruntime-web/{name}" in page


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r'(?:src|href)="([^"#]+)"', (PAGE / "index.html").read_text(encoding="utf-8"))
    for path in PAGE.glob("*.js"):
        named += re.findall(r"from '\./([^']+)'", path.read_text(encoding="utf-8"))
    assert len(named) > 15
    for name in named:
        assert "://" not in name, "the page must need no network"
        assert (PAGE / name).is_file(), name


def test_keys_are_those_of_the_window() -> None:
    from edge_deeplab.demos.options import MODES, SIDE_BY_SIDE

    text = (PAGE / "main.js").read_text(encoding="utf-8")
    keys = dict(re.findall(r"(\w): '(\w+)'", text[text.index("const MODE_KEYS") :].partition("\n")[0]))
    assert {key.upper(): mode for key, mode in keys.items()} == {
        key: "side" if mode == SIDE_BY_SIDE else mode for mode, key in MODES.items()
    }


def test_swatches_show_the_backdrops() -> None:
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    script = (PAGE / "backdrops.js").read_text(encoding="utf-8")
    gradients = re.findall(r"(\w+): \['(#\w+)', '(#\w+)'\]", script)
    assert len(gradients) == 3
    for name, top, bottom in gradients:
        assert f".swatch.{name} {{\n  background: linear-gradient({top}, {bottom});" in style


def luminance(color: str) -> float:
    """Relative luminance of ``#rgb`` or ``#rrggbb`` (WCAG 2.2)."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    levels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


TEXTS = [
    ("text", "page"),
    ("text", "panel"),
    ("soft", "page"),
    ("soft", "panel"),
    ("problem", "panel"),
    ("accent", "accent-wash"),
    ("on-accent", "accent"),
]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "behind"), TEXTS)
def test_text_can_be_read(theme: int, text: str, behind: str) -> None:
    """A contrast of 4.5 at least: WCAG 2.2, 1.4.3."""
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#\w+);", blocks[theme]))
    low, high = sorted(luminance(colors[name]) for name in (text, behind))
    assert (high + 0.05) / (low + 0.05) >= 4.5
