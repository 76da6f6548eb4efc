"""A real Chromium with its fake camera, and pages of the demo in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demos.web.support import clips, served

from fake_camera import camera_flags, chromium, moving_sample, read_film, write_y4m  # isort: skip  (support makes it found)
from web_page import HELPERS, open_bare  # isort: skip

FLAGS = (
    "--no-sandbox",  # containers often forbid what the sandbox needs
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no network: no name resolves
    # A software device where there is no GPU.
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
)


PATIENCE_S = 180
"""Nothing is waited for by the clock, so this is only how long a loaded machine may take for one thing."""

Launch = Callable[..., Any]


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """``launch(*flags)``: a headless Chromium."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'edge-deeplab[dev]'"
    )
    pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
    with playwright.sync_playwright() as running:
        path = chromium() or running.chromium.executable_path
        if not Path(path).is_file():
            pytest.skip("no Chromium: apt-get install chromium, or `playwright install chromium`")
        yield lambda *flags: running.chromium.launch(
            executable_path=path, args=[*FLAGS, *flags], timeout=1000 * PATIENCE_S
        )


@pytest.fixture(scope="session")
def camera_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fake camera sees: a person signing, or the packaged photo moved about."""
    frames = read_film(clips()[0], 30) if clips() else moving_sample(30)
    return write_y4m(tmp_path_factory.mktemp("camera") / "camera.y4m", frames)


@pytest.fixture(scope="session")
def browser(launch: Launch, camera_film: Path) -> Iterator[Any]:
    """With a fake camera; a context must be granted its use."""
    running = launch(*camera_flags(camera_film))
    yield running
    running.close()


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """Address of the demo with the shipped models."""
    pytest.importorskip("starlette", reason="the extra `web` is not installed")
    from edge_deeplab.demos.web.app import Site
    from edge_deeplab.zoo import shipped

    models = {name: files[".onnx"] for name, files in shipped().items() if ".onnx" in files}
    with served(Site("portrait", models)) as address:
        yield address


class Visit:
    """One visitor: a fresh profile, one page, and everything that went wrong in it."""

    def __init__(self, browser: Any, *, camera: bool = True, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.add_init_script(HELPERS)
        if camera:
            self.context.grant_permissions(["camera"])
        self.errors: list[str] = []
        self.asked: set[str] = set()
        self.page = self.context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE_S)
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(request.url))

    def open_bare(self, address: str) -> None:
        """The page without what it does by itself: its modules are there to be imported."""
        open_bare(self.page, address)

    def state(self, wanted: str) -> None:
        """Wait until the picture's area shows ``live``, ``problem`` …"""
        self.page.wait_for_selector(f'#screen[data-state="{wanted}"]')


MakeVisit = Callable[..., Visit]


@pytest.fixture
def visit(browser: Any) -> Iterator[MakeVisit]:
    """``visit(camera=…, **context options)`` in the browser with the fake camera; gone after the test."""
    visits: list[Visit] = []

    def make(**options: Any) -> Visit:
        visits.append(Visit(browser, **options))
        return visits[-1]

    yield make
    for each in visits:
        each.context.close()
