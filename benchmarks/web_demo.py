"""How fast is the browser demo? Frames per second and latency as the page itself shows them.

Starts `edge-deeplab demo web --server-runtime` and a Chromium whose camera shows a film at 30 frames a
second, and lets the ways to run the model take turns in one page. Without `--headed` Chromium has no
window, and on most machines then draws without a GPU, which makes "rest" longer than a visitor sees.
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
from pathlib import Path
from statistics import median
from typing import Any

from fake_camera import camera_flags, chromium, moving_sample, read_film, write_y4m
from measuring import as_text, exit_status, load_average, machine, warn_if_busy

from edge_deeplab.bench.tables import as_markdown
from edge_deeplab.cli.arguments import bar, positive
from edge_deeplab.errors import UserError, needs
from edge_deeplab.files import write_text

BACKENDS = ("wasm", "webgpu", "server")
FIGURES = ("fps", "latency", "network", "rest")
SETTLE_S = 3
"""Before figures count: the page shows medians of the last two seconds."""

Turns = dict[str, list[dict[str, float]]]
"""Backend -> figures of each of its turns: frames per second, and milliseconds."""


@contextmanager
def demo(model: str, threads: int | None) -> Iterator[str]:
    """The command as it is typed; gives the page's address."""
    command = [sys.executable, "-m", "edge_deeplab", "demo", "web", "--port", "0", "--server-runtime"]
    command += ["--model", model, *(["--threads", str(threads)] if threads else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            line = running.stdout.readline() if running.stdout else ""
            found = re.search(r"http://\S+", line)
            if not found:
                raise UserError(f"the demo did not start; try `{' '.join(command[1:])}`")
            yield found[0]
        finally:
            running.send_signal(signal.SIGINT)


def measure(page: Any, backends: Sequence[str], *, rounds: int, seconds: int, mode: str) -> Turns:
    """Let the backends take turns in a page whose camera runs.

    Raises:
        UserError: The page reports a problem.
    """
    turns: Turns = {backend: [] for backend in backends}
    page.get_by_label(mode, exact=True).check()
    for _ in bar(range(rounds), unit="round"):
        for backend in backends:
            page.select_option("select[name=backend]", backend)
            # The turn begins when the new engine answers.
            page.wait_for_selector("#busy:empty", state="attached", timeout=120_000)
            page.wait_for_timeout(1000 * SETTLE_S)
            samples = []
            for _ in range(seconds):
                page.wait_for_timeout(1000)
                samples.append({name: page.inner_text(f"#{name}") for name in FIGURES})
            if page.get_attribute("#screen", "data-state") != "live":
                raise UserError(f"{backend}: {page.inner_text('#problem-text')}")
            turns[backend].append(
                {name: median(float(s[name].removesuffix(" ms")) for s in samples) for name in FIGURES}
            )
    return turns


def offered(page: Any) -> list[str]:
    """Backends that this page can run its model on."""
    found: list[str] = page.eval_on_selector_all(
        "select[name=backend] option", "all => all.map((o) => o.value)"
    )
    return found


def table(turns: Turns) -> list[list[str]]:
    """Medians over the turns of each backend."""
    rows = [["runs on", "frames/s", "latency ms", "network ms", "rest ms"]]
    for backend, figures in turns.items():
        rows.append([backend, *(f"{median(turn[name] for turn in figures):.1f}" for name in FIGURES)])
    return rows


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    with needs("dev"):
        from playwright.sync_api import sync_playwright
    warn_if_busy()
    frames = read_film(args.film, 300) if args.film else moving_sample(60)
    with (
        tempfile.TemporaryDirectory() as folder,
        demo(args.model, args.threads) as address,
        sync_playwright() as playwright,
    ):
        film = write_y4m(Path(folder) / "camera.y4m", frames)
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            headless=not args.headed,
            args=["--no-sandbox", *args.flag, *camera_flags(film)],
        )
        context = browser.new_context(permissions=["camera"])
        page = context.new_page()
        page.goto(address)
        page.get_by_role("button", name="Start camera").click()
        page.wait_for_selector('#screen[data-state="live"]', timeout=120_000)
        missing = set(args.backend or ()) - set(offered(page))
        if missing:
            raise UserError(f"this browser does not offer {', '.join(sorted(missing))}")
        backends = args.backend or offered(page)
        turns = measure(page, backends, rounds=args.rounds, seconds=args.seconds, mode=args.mode)
        version = browser.version
        browser.close()
    rows = table(turns)
    print(as_text(rows))
    print(f"Chromium {version}, {machine()['cpu']}, load {load_average():.1f}, mode {args.mode}")
    if args.markdown:
        write_text(args.markdown, as_markdown(rows))
    if args.json:
        record = {"machine": machine(), "chromium": version, "load": load_average(), "turns": turns}
        write_text(args.json, json.dumps(record, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="portrait", help="default: portrait")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="default: all that are there")
    parser.add_argument("--mode", default="Blur", help="as on the page's buttons (default: Blur)")
    parser.add_argument("--film", type=Path, help="for the camera (default: the packaged photo, moving)")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each backend (default: 3)")
    parser.add_argument("--seconds", type=positive, default=10, help="of a turn (default: 10)")
    parser.add_argument("--threads", type=positive, help="of the server's runtime")
    parser.add_argument("--headed", action="store_true", help="with a window, and its GPU")
    parser.add_argument("--flag", action="append", default=[], help="for Chromium; repeat for several")
    parser.add_argument("--json", type=Path, help="write the figures of every turn here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    args = parser.parse_args(argv)
    return exit_status("web_demo", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
