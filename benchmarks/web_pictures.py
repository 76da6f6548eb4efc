"""Pictures of the browser demo: every mode on a desktop and on a phone, and what it says when it cannot work.

For looking at after a change of the page. A real Chromium, its camera shows a film; `--sheet` puts some of
the pictures into one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fake_camera import camera_flags, chromium, moving_sample, read_film, write_y4m
from measuring import exit_status
from web_demo import demo

from edge_deeplab.errors import needs
from edge_deeplab.imaging import Frame, read_image, write_image

MODES = ("Blur", "Replace", "Cut-out", "Mask", "Side by side")

SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}

SHEET = ("desktop-blur", "phone-replace", "phone-refused")

Visit = Callable[[Any, str], None]


def without_isolation(route: Any) -> None:
    """As behind a proxy that removes the headers which WASM threads need."""
    answer = route.fetch()
    headers = {name: value for name, value in answer.headers.items() if not name.startswith("cross-origin-")}
    route.fulfill(response=answer, headers=headers)


def modes(page: Any, take: Callable[[str], None]) -> None:
    """One picture of every mode."""
    take("welcome")
    start(page)
    for mode in MODES:
        page.get_by_label(mode, exact=True).check(force=True)
        page.wait_for_timeout(3000)  # so that the figures are those of this mode
        take(mode.lower().replace(" ", "-"))


def start(page: Any) -> None:
    """Press the button, and wait for a picture or a reason why there is none."""
    page.locator("#start").click()
    page.wait_for_selector("#screen:is([data-state=live], [data-state=problem])", timeout=120_000)


# -- what goes wrong -----------------------------------------------------------------------------


def refused(page: Any, address: str) -> None:
    """The visitor says no."""
    page.context.clear_permissions()
    page.goto(address)
    start(page)


def one_thread(page: Any, address: str) -> None:
    """No SharedArrayBuffer."""
    page.route("**/*", without_isolation)
    page.goto(address)
    start(page)
    page.wait_for_timeout(3000)


def offline(page: Any, address: str) -> None:
    """The network goes away after the page is there."""
    page.goto(address)
    page.wait_for_selector("#model-line:not(:empty)", timeout=120_000)
    page.context.set_offline(True)
    start(page)
    page.wait_for_timeout(3000)


def server_gone(page: Any, address: str) -> None:
    """The server does not answer."""
    page.route("**/config.json", lambda route: route.abort())
    page.goto(address)
    page.wait_for_selector("#screen[data-state=problem]")


def plain(page: Any, address: str) -> None:
    """What the browser's flags bring about."""
    page.goto(address)
    page.wait_for_selector("#screen:is([data-state=problem]), #model-line:not(:empty)", timeout=120_000)
    if page.get_attribute("#screen", "data-state") != "problem":
        start(page)


NO_CAMERA = "--use-fake-device-for-media-stream=device-count=0"

TROUBLES: dict[str, tuple[Visit, tuple[str, ...]]] = {
    "refused": (refused, ()),
    "no-camera": (plain, (NO_CAMERA,)),
    "one-thread": (one_thread, ()),
    "no-wasm": (plain, ("--js-flags=--jitless",)),
    "offline": (offline, ()),
    "server-gone": (server_gone, ()),
}
"""Name -> how a visitor gets there, and flags that the browser needs for it."""


# -- the script ----------------------------------------------------------------------------------


@contextmanager
def browser(playwright: Any, film: Path, extra: Sequence[str] = ()) -> Iterator[Any]:
    """A Chromium whose camera, if it has one, shows the film."""
    flags = ["--no-sandbox", *(() if NO_CAMERA in extra else camera_flags(film)), *extra]
    running = playwright.chromium.launch(executable_path=chromium(), args=flags)
    try:
        yield running
    finally:
        running.close()


def pictures(playwright: Any, address: str, film: Path, folder: Path, args: argparse.Namespace) -> list[str]:
    """Take them all; their names."""
    taken: list[str] = []

    def shoot(page: Any, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        taken.append(name)

    colors = {"color_scheme": "dark"} if args.dark else {}
    for screen, options in SCREENS.items():
        with browser(playwright, film) as running:
            page = running.new_context(permissions=["camera"], **options, **colors).new_page()
            page.goto(address)
            page.wait_for_selector("#model-line:not(:empty)", timeout=120_000)
            modes(page, lambda name, page=page, screen=screen: shoot(page, f"{screen}-{name}"))  # type: ignore[misc]
        for name, (visit, flags) in TROUBLES.items():
            with browser(playwright, film, flags) as running:
                page = running.new_context(permissions=["camera"], **options, **colors).new_page()
                visit(page, address)
                shoot(page, f"{screen}-{name}")
    return taken


def sheet(folder: Path, names: Sequence[str], height: int = 700) -> Frame:
    """Pictures in a row, cut and scaled to one height."""
    row = []
    for name in names:
        picture = read_image(folder / f"{name}.png")
        screen = SCREENS[name.partition("-")[0]]
        seen = screen["viewport"]["height"] * screen.get("device_scale_factor", 1)
        picture = picture[:seen]  # without scrolling
        width = round(picture.shape[1] * height / picture.shape[0])
        scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        row.append(cv2.copyMakeBorder(scaled, 8, 8, 8, 8, cv2.BORDER_CONSTANT, value=(160, 160, 160)))
    return np.ascontiguousarray(np.hstack(row), np.uint8)


def run(args: argparse.Namespace) -> None:
    """Take the pictures."""
    with needs("dev"):
        from playwright.sync_api import sync_playwright
    args.output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        demo(args.model, None, server=False) as address,
        sync_playwright() as playwright,
    ):
        frames = read_film(args.film, 300) if args.film else moving_sample(60)
        film = write_y4m(Path(folder) / "camera.y4m", frames)
        taken = pictures(playwright, address, film, args.output, args)
    print(f"{len(taken)} pictures in {args.output}: {', '.join(taken)}")
    if args.sheet:
        write_image(args.sheet, sheet(args.output, SHEET))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="portrait", help="default: portrait")
    parser.add_argument("--film", type=Path, help="for the camera (default: the packaged photo, moving)")
    parser.add_argument("--dark", action="store_true", help="in the page's dark colours")
    parser.add_argument("--output", type=Path, default=Path("out/web-pictures"), help="default: %(default)s")
    parser.add_argument("--sheet", type=Path, help=f"put {', '.join(SHEET)} into one picture")
    args = parser.parse_args(argv)
    return exit_status("web_pictures", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
