"""Every runtime and precision of a model beside each other and beside six peers, in one interleaved run.

Exports what is missing first (``exports.py``), each artefact by the command a user types. Then ``peers.py``
measures the shipped files, PyTorch eager and compiled, all artefacts and all peers, with IoU on three sets of
labelled pictures. ``--shots`` looks at the page in Chromium at two window sizes, light and dark.

Further options are those of ``edge-deeplab bench``. Needs ``pip install -e '.[all]'``, and for ``--shots``
``'.[dev]'`` and Chromium.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import peers
from measuring import ROOT, SHARED, exit_status

from edge_deeplab.errors import UserError, needs

EXPORTS = ("onnx-fp16", "onnx-int8", "tflite-fp32", "tflite-fp16", "tflite-int8-dynamic", "tflite-int8")
"""Of ``exports.py``; FP32 in ONNX is shipped."""

WINDOWS = {"laptop": (1280, 800), "telephone": (390, 844)}

STICKS_OUT = """() => [...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"""

OVERLAP = """() => {
  const found = [];
  for (const plot of document.querySelectorAll('svg')) {
    const texts = [...plot.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
    texts.forEach(([a, r], k) => texts.slice(0, k).forEach(([b, s]) => {
      if (r.left < s.right - 1 && s.left < r.right - 1 && r.top < s.bottom - 2 && s.top < r.bottom - 2)
        found.push(a + ' on ' + b);
    }));
  }
  return found;
}"""


def artefacts(model: str, folder: Path, shared: Path) -> list[str]:
    """Files of all precisions, exported where they are missing; one that fails is named and left out."""
    paths = {name: folder / f"{model}-{name}-logits.{name.partition('-')[0]}" for name in EXPORTS}
    if missing := [name for name, path in paths.items() if not path.is_file()]:
        words = [model, "--packaged", "--export-only", "--heads", "logits", "--only", *missing]
        words += ["--shared", str(shared), "--output", str(folder)]
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "exports.py"), *words], check=False)
    for path in paths.values():
        if not path.is_file():
            print(f"left out: {path.name} could not be exported, see above", file=sys.stderr)
    return [str(path) for path in paths.values() if path.is_file()]


def shots(page: Path) -> list[str]:
    """Photograph a page beside itself; says what sticks out of a window or lies on something else."""
    with needs("dev"):
        from playwright.sync_api import sync_playwright
    from fake_camera import chromium

    wrong = []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium() or None, args=["--no-sandbox"])
        for name, (width, height) in WINDOWS.items():
            for scheme in ("light", "dark"):
                tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                tab.goto(page.resolve().as_uri())
                wrong += [f"{name}, {scheme}: {text}" for text in tab.evaluate(STICKS_OUT)]
                wrong += [f"{name}, {scheme}: {text}" for text in tab.evaluate(OVERLAP)]
                tab.screenshot(path=page.with_name(f"bench-{name}-{scheme}.png"), full_page=True)
                tab.close()
        browser.close()
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Everything else (--threads, --rounds, --data-limit N ...): see edge-deeplab bench --help.",
    )
    parser.add_argument("--model", default="portrait", metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--artefacts", type=Path, default=Path("out/exports"), metavar="DIR",
                        help="of exports.py (default: %(default)s)")  # fmt: skip
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="DIR", help="as for peers.py")
    parser.add_argument("--output", type=Path, default=Path("out/everything"), metavar="DIR",
                        help="for bench.json, bench.md and bench.html (default: %(default)s)")  # fmt: skip
    parser.add_argument("--shots", action="store_true", help="photograph the page in Chromium")
    args, more = parser.parse_known_args(argv)

    def run() -> None:
        files = artefacts(args.model, args.artefacts, args.shared)
        words = ["--models", args.model, *files, "--shared", str(args.shared), "--torch", "eager,compiled"]
        status = peers.main([*words, "--output", str(args.output), *more])
        if status:
            raise SystemExit(status)
        if args.shots and (wrong := shots(args.output / "bench.html")):
            raise UserError(f"the page is not right: {'; '.join(wrong)}")

    return exit_status("everything", run)


if __name__ == "__main__":
    raise SystemExit(main())
