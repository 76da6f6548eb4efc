"""How good and how fast is the browser demo? In a real Chromium whose camera shows films.

For every film and model: the share of pixels that the page and Python give the same class on the same
frames of the camera; then the ways to run the model take turns in one page, and what the page shows is
noted: frames per second, latency, network, rest. It fails when the page writes an error to the browser's
console, or asks anybody but its own server.

Without `--headed` Chromium has no window, and on most machines then draws without a GPU, which makes
"rest" longer than a visitor sees. WebGPU on a software device takes seconds per frame, so it is measured
only where `--backend` names it.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

from fake_camera import camera_flags, chromium, moving_sample, read_film, write_y4m
from measuring import as_text, exit_status, load_average, machine, warn_if_busy
from web_page import HELPERS, agreement, open_bare

from edge_deeplab.bench.tables import as_markdown
from edge_deeplab.cli.arguments import bar, positive
from edge_deeplab.errors import UserError, needs
from edge_deeplab.files import write_text
from edge_deeplab.runtimes import Runtime, open_model

BACKENDS = ("wasm", "webgpu", "server")
FIGURES = ("fps", "latency", "network", "rest")
SETTLE_S = 3
"""Before figures count: the page shows medians of the last two seconds."""

QUALITIES = {"network": {"smooth": False, "refine": False}, "matte": {"smooth": True, "refine": True}}
"""What is compared with Python: the network's own mask, and the one that is shown."""


@dataclass
class Measured:
    """One film and model.

    Attributes:
        film, model: Their names.
        agreement: Key of ``QUALITIES`` -> share of equal pixels of each frame.
        turns: Backend -> figures of each of its turns: frames per second, and milliseconds.
    """

    film: str
    model: str
    agreement: dict[str, list[float]] = field(default_factory=dict)
    turns: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def rows(self) -> list[list[str]]:
        """One for each backend: medians over its turns."""
        least = [f"{100 * min(self.agreement[name]):.2f}" for name in QUALITIES]
        return [
            [
                self.film,
                self.model,
                *least,
                backend,
                *(f"{median(turn[name] for turn in turns):.1f}" for name in FIGURES),
            ]
            for backend, turns in self.turns.items()
        ]


HEAD = [
    "film",
    "model",
    *(f"least agreement, {name} %" for name in QUALITIES),
    "runs on",
    "frames/s",
    "latency ms",
    "network ms",
    "rest ms",
]


# -- the demo and its visitor --------------------------------------------------------------------


@contextmanager
def demo(model: str, threads: int | None, *, server: bool = True) -> Iterator[str]:
    """The command as it is typed; gives the page's address."""
    command = [sys.executable, "-m", "edge_deeplab", "demo", "web", "--port", "0", "--model", model]
    command += ["--server-runtime"] if server else []
    command += ["--threads", str(threads)] if threads else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        try:
            line = running.stdout.readline() if running.stdout else ""
            found = re.search(r"http://\S+", line)
            if not found:
                raise UserError(f"the demo did not start; try `{' '.join(command[1:])}`")
            yield found[0]
        finally:
            running.send_signal(signal.SIGINT)


class Visitor:
    """A browser whose camera shows a film, and what went wrong in it."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser, self.address = browser, address
        self.wrong: list[str] = []
        self.context = browser.new_context(permissions=["camera"])
        self.context.add_init_script(HELPERS)

    def page(self) -> Any:
        """A new page, not yet at the address."""
        page = self.context.new_page()
        page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self._note(request.url))
        return page

    def _note(self, url: str) -> None:
        if not url.startswith((self.address, "blob:", "data:")):
            self.wrong.append(f"asked for {url}")

    def check(self) -> None:
        """Raise what went wrong."""
        if self.wrong:
            raise UserError(f"the page did what it must not: {'; '.join(self.wrong[:5])}")


@contextmanager
def visitor(playwright: Any, address: str, film: Path, args: argparse.Namespace) -> Iterator[Visitor]:
    """A browser, closed in the end; raises what went wrong in it."""
    flags = ["--no-sandbox", *args.flag, *camera_flags(film)]
    browser = playwright.chromium.launch(executable_path=chromium(), headless=not args.headed, args=flags)
    try:
        one = Visitor(browser, address)
        yield one
        one.check()
    finally:
        browser.close()


# -- measuring -----------------------------------------------------------------------------------


def compare(visit: Visitor, model: str, runtime: Runtime, count: int) -> dict[str, list[float]]:
    """Agreement with Python on frames of the camera."""
    page = visit.page()
    open_bare(page, visit.address)
    url = f"{visit.address}models/{model}.onnx"
    shares = {name: agreement(page, url, runtime, count, **quality)[0] for name, quality in QUALITIES.items()}
    page.close()
    return shares


def offered(page: Any) -> list[str]:
    """Backends that this page can run its model on."""
    found: list[str] = page.eval_on_selector_all(
        "select[name=backend] option", "all => all.map((o) => o.value)"
    )
    return found


def speed(visit: Visitor, args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Let the backends take turns in a page whose camera runs.

    Raises:
        UserError: The page reports a problem, or lacks a backend.
    """
    page = visit.page()
    page.goto(visit.address)
    page.get_by_role("button", name="Start camera").click()
    page.wait_for_selector('#screen[data-state="live"]', timeout=120_000)
    missing = set(args.backend) - set(offered(page))
    if missing:
        raise UserError(f"this browser does not offer {', '.join(sorted(missing))}")
    page.get_by_label(args.mode, exact=True).check()
    turns: dict[str, list[dict[str, float]]] = {backend: [] for backend in args.backend}
    for _ in range(args.rounds):
        for backend in args.backend:
            page.select_option("select[name=backend]", backend)
            # The turn begins when the new engine answers.
            page.wait_for_selector("#busy:empty", state="attached", timeout=120_000)
            page.wait_for_timeout(1000 * SETTLE_S)
            page.wait_for_selector("#fps:not(:text('–')), [data-state=problem]", timeout=120_000)
            if page.get_attribute("#screen", "data-state") == "problem":
                raise UserError(f"{backend}: {page.inner_text('#problem-text')}")
            turns[backend].append(sample(page, args.seconds))
    page.close()
    return turns


READ = """
(names) => Object.fromEntries(names.map((name) => {
  const value = parseFloat(document.getElementById(name).textContent);
  return [name, Number.isNaN(value) ? null : value]; // a dash where no frames flow
}))
"""


def sample(page: Any, seconds: int) -> dict[str, float]:
    """Medians of what the page shows, read once a second."""
    samples = []
    for _ in range(seconds):
        page.wait_for_timeout(1000)
        samples.append(page.evaluate(READ, FIGURES))
    shown = [s for s in samples if s["fps"] is not None]
    if not shown:
        raise UserError("the page showed no frames; give it more --seconds")
    return {name: median(s[name] for s in shown) for name in FIGURES}


def measure(playwright: Any, films: dict[str, Path], args: argparse.Namespace) -> tuple[list[Measured], str]:
    """All films with all models; and the browser's version."""
    results: list[Measured] = []
    version = ""
    for model, (name, film) in bar(list(product(args.model, films.items())), unit="film"):
        with (
            demo(model, args.threads) as address,
            open_model(model, threads=1) as runtime,
            visitor(playwright, address, film, args) as visit,
        ):
            version = visit.browser.version
            shares = compare(visit, Path(model).stem, runtime, args.frames)
            results.append(Measured(name, model, shares, speed(visit, args)))
    return results, version


# -- the script ----------------------------------------------------------------------------------


def table(results: Sequence[Measured]) -> list[list[str]]:
    """A row for each film, model and backend."""
    return [HEAD, *(row for result in results for row in result.rows())]


def summary(results: Sequence[Measured], name: str) -> str:
    """Agreement over all frames, in a line."""
    shares = [share for result in results for share in result.agreement[name]]
    return (
        f"{name}: {100 * min(shares):.2f} % of the pixels agree with Python at least, "
        f"{100 * mean(shares):.2f} % on average, {len(shares)} frames"
    )


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    with needs("dev"):
        from playwright.sync_api import sync_playwright
    warn_if_busy()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        films = {}
        for path in args.film or [None]:
            name = path.stem if path else "sample"
            frames = read_film(path, 300) if path else moving_sample(60)
            films[name] = write_y4m(Path(folder) / f"{name}.y4m", frames)
        results, version = measure(playwright, films, args)
    rows = table(results)
    print(as_text(rows))
    lines = [summary(results, name) for name in QUALITIES]
    lines.append(f"Chromium {version}, {machine()['cpu']}, load {load_average():.1f}, mode {args.mode}")
    print("\n".join(lines))
    if args.output:
        write_text(args.output / "web.md", as_markdown(rows) + "\n\n" + "\n\n".join(lines) + "\n")
        record = {
            "machine": machine(),
            "chromium": version,
            "load": load_average(),
            "mode": args.mode,
            "results": [asdict(result) for result in results],
        }
        write_text(args.output / "web.json", json.dumps(record, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["portrait"], help="default: portrait")
    parser.add_argument(
        "--backend", nargs="+", choices=BACKENDS, default=["wasm", "server"], help="default: wasm server"
    )
    parser.add_argument("--mode", default="Blur", help="as on the page's buttons (default: Blur)")
    parser.add_argument(
        "--film", type=Path, nargs="+", help="for the camera (default: the packaged photo, moving)"
    )
    parser.add_argument("--frames", type=positive, default=20, help="compared with Python (default: 20)")
    parser.add_argument("--rounds", type=positive, default=2, help="turns of each backend (default: 2)")
    parser.add_argument("--seconds", type=positive, default=6, help="of a turn (default: 6)")
    parser.add_argument("--threads", type=positive, help="of the server's runtime")
    parser.add_argument("--headed", action="store_true", help="with a window, and its GPU")
    parser.add_argument("--flag", action="append", default=[], help="for Chromium; repeat for several")
    parser.add_argument("--output", type=Path, help="write web.json and web.md into this folder")
    args = parser.parse_args(argv)
    return exit_status("web_demo", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
