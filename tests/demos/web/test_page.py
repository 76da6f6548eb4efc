"""The page as its visitors meet it: every mode, every way it can go wrong, and no word to the outside."""

from __future__ import annotations

import io
import re
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab.imaging import Frame
from tests.demos.support import make_film
from tests.demos.web.conftest import PATIENCE_S, Launch, MakeVisit, Visit
from tests.demos.web.support import served
from tests.runtimes.artefacts import picture, toy_contract, toy_onnx

from fake_camera import SAMPLE  # isort: skip

Start = Callable[..., Visit]


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[str]:
    """Address of a demo whose model is small: bright pixels are people."""
    pytest.importorskip("starlette", reason="the extra `web` is not installed")
    from edge_deeplab.demos.web.app import Site

    path = toy_onnx(tmp_path / "toy.onnx")
    with served(Site("toy", {"toy": path})) as address:
        yield address


@pytest.fixture
def start(visit: MakeVisit, toy: str) -> Start:
    """``start(**context options)``: a visitor whose camera is running."""

    def begin(address: str = toy, **options: Any) -> Visit:
        visitor = visit(**options)
        visitor.page.goto(address)
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("live")
        return visitor

    return begin


def until(visitor: Visit, condition: str) -> None:
    """Wait for a JavaScript expression; Playwright's own way needs an ``eval``, which the page forbids."""
    deadline = time.monotonic() + PATIENCE_S
    while not visitor.page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        visitor.page.wait_for_timeout(20)


def saved(visitor: Visit, folder: Path) -> Frame:
    """What "Save picture" writes, BGRA."""
    with visitor.page.expect_download() as download:
        visitor.page.get_by_role("button", name="Save picture").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.uint8)


# -- what it shows -------------------------------------------------------------------------------


def test_all_modes(start: Start, site: str, tmp_path: Path) -> None:
    visitor = start(site)
    page = visitor.page
    page.get_by_role("button", name="Pause").click()  # one frame for all pictures
    pictures = {}
    for name in ("Blur", "Side by side", "Replace", "Cut-out", "Mask"):  # beside: the mode before
        page.get_by_label(name, exact=True).check()
        pictures[name] = saved(visitor, tmp_path)
    assert visitor.errors == []
    assert {name: p.shape[:2] for name, p in pictures.items()} == {
        **dict.fromkeys(pictures, (480, 640)),
        "Side by side": (480, 1280),
    }
    camera, blurred = pictures["Side by side"][:, :640, :3], pictures["Side by side"][:, 640:, :3]
    assert np.abs(blurred.astype(int) - pictures["Blur"][..., :3]).max() <= 1
    alpha = pictures["Cut-out"][..., 3]
    person, behind = alpha == 255, alpha == 0
    assert person.mean() > 0.02
    assert behind.mean() > 0.02
    # The person is untouched, the background is not.
    for name in ("Blur", "Replace", "Cut-out"):
        inner = cv2.erode(person.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
        assert inner.any()
        assert np.abs(pictures[name][..., :3].astype(int) - camera)[inner].mean() < 2, name
        if name != "Cut-out":
            assert np.abs(pictures[name][..., :3].astype(int) - camera)[behind].mean() > 2, name
            assert (pictures[name][..., 3] == 255).all()
    assert not np.array_equal(pictures["Mask"], pictures["Blur"])


def test_the_camera_is_mirrored_and_need_not_be(start: Start, tmp_path: Path) -> None:
    visitor = start()
    visitor.page.keyboard.press("5")  # side by side, whose left half is the camera's picture
    visitor.page.keyboard.press(" ")
    mirrored = saved(visitor, tmp_path)[:, :640]
    visitor.page.keyboard.press("f")
    plain = saved(visitor, tmp_path)[:, :640]
    assert np.abs(mirrored[:, ::-1].astype(int) - plain).max() <= 1
    assert np.abs(mirrored.astype(int) - plain).mean() > 2


def test_a_new_background_from_a_file(start: Start, site: str, tmp_path: Path) -> None:
    wall = np.zeros((90, 120, 3), np.uint8)
    wall[:] = 30, 200, 60
    cv2.imwrite(str(tmp_path / "wall.png"), wall)
    visitor = start(site)
    visitor.page.keyboard.press("2")
    choose_background(visitor, tmp_path / "wall.png")
    deadline = time.monotonic() + PATIENCE_S
    green = np.zeros(1)
    while green.mean() <= 0.02 and time.monotonic() < deadline:  # until the file is read
        picture = saved(visitor, tmp_path)
        green = np.abs(picture[..., :3].astype(int) - (30, 200, 60)).max(axis=2) <= 3
    assert green.mean() > 0.02
    assert visitor.errors == []


def test_figures_are_shown(start: Start) -> None:
    visitor = start()
    visitor.page.locator("#fps", has_text=re.compile(r"\d")).wait_for()
    for name, unit in (("latency", " ms"), ("network", " ms"), ("rest", " ms"), ("dropped", "")):
        text = visitor.page.inner_text(f"#{name}")
        assert text.endswith(unit)
        assert float(text.removesuffix(" ms")) >= 0
    assert "toy, fp32, WASM" in visitor.page.inner_text("#model-line")


def test_pause_stop_and_start_again(start: Start) -> None:
    visitor = start()
    page = visitor.page
    page.keyboard.press(" ")
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Stop").click()
    visitor.state("welcome")
    assert page.get_by_role("button", name="Save picture").is_disabled()
    page.get_by_role("button", name="Start camera").click()
    visitor.state("live")
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "false"
    assert visitor.errors == []


def pressed(visitor: Visit) -> bool:
    """Whether the button says that the picture stands still."""
    return visitor.page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("change", ["refine", "model"])
def test_what_begins_anew_is_not_paused(visit: MakeVisit, tmp_path: Path, change: str) -> None:
    """A button that says "paused" beside a picture that moves would be a lie."""
    pytest.importorskip("starlette", reason="the extra `web` is not installed")
    from edge_deeplab.demos.web.app import Site

    other = toy_onnx(tmp_path / "other.onnx", toy_contract(name="other"))
    models = {"toy": toy_onnx(tmp_path / "toy.onnx"), "other": other}
    with served(Site("toy", models)) as address:
        visitor = visit()
        visitor.page.goto(address)
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("live")
        visitor.page.get_by_role("button", name="Pause").click()
        assert pressed(visitor)
        if change == "model":
            visitor.page.select_option("select[name=model]", "other")
        else:
            visitor.page.get_by_label("Refine edges").click()
        visitor.page.locator("#pause[aria-pressed=false]").wait_for()
        visitor.page.locator("#fps", has_text=re.compile(r"\d")).wait_for()
        assert visitor.errors == []


def test_a_model_that_does_not_load_while_settings_change(visit: MakeVisit, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the extra `web` is not installed")
    from edge_deeplab.demos.web.app import Site

    models = {"toy": toy_onnx(tmp_path / "toy.onnx"), "other": toy_onnx(tmp_path / "other.onnx", metadata={})}
    with served(Site("toy", models)) as address:
        visitor = visit()
        visitor.page.goto(address)
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("live")
        visitor.page.evaluate(
            """() => {
              const { elements } = document.querySelector('#controls');
              elements.model.value = 'other';
              elements.model.dispatchEvent(new Event('input', { bubbles: true }));
              elements.refine.click();
            }"""
        )
        assert "carries no input contract" in problem(visitor)
        visitor.page.select_option("select[name=model]", "toy")
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("live")
        assert visitor.errors == []


def choose_background(visitor: Visit, file: Any) -> None:
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_text("File…").click()
    chooser.value.set_files(file)


def test_a_background_that_is_none_does_not_end_the_show(start: Start) -> None:
    visitor = start()
    visitor.page.keyboard.press("2")
    choose_background(visitor, {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture"})
    hint = visitor.page.locator("#backdrop-hint")
    hint.wait_for()
    assert "notes.png is not a picture" in hint.inner_text()
    assert visitor.page.get_attribute("#screen", "data-state") == "live"
    choose_background(visitor, SAMPLE)  # the same press again, for another file
    hint.wait_for(state="hidden")
    assert visitor.errors == []


def test_a_video_that_is_no_longer_behind_is_let_go(start: Start, tmp_path: Path) -> None:
    visitor = start()
    visitor.page.evaluate(
        """() => {
          window.held = new Set();
          const { createObjectURL, revokeObjectURL } = URL;
          URL.createObjectURL = (file) => { const url = createObjectURL(file); held.add(url); return url; };
          URL.revokeObjectURL = (url) => { held.delete(url); revokeObjectURL(url); };
        }"""
    )
    visitor.page.keyboard.press("2")
    for _ in range(2):
        choose_background(visitor, make_film(tmp_path / "behind.mp4", 30))
        until(visitor, "held.size > 0")
    until(visitor, "held.size === 1")
    visitor.page.get_by_label("Sea").click()
    until(visitor, "held.size === 0")
    assert visitor.errors == []


# -- cameras that come and go --------------------------------------------------------------------

DEVICES = """
window.cameras = ['Front', 'Back'];
navigator.mediaDevices.enumerateDevices = async () =>
  cameras.map((label) => ({ kind: 'videoinput', deviceId: `id ${label}`, label }));
"""


def test_the_list_of_cameras_is_that_of_now(visit: MakeVisit, toy: str) -> None:
    """Also while none runs: who is told to choose another one must be able to."""
    visitor = visit()
    visitor.context.add_init_script(DEVICES)
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    visitor.state("live")
    visitor.page.get_by_role("button", name="Stop").click()
    change = "cameras = ['Back', 'USB']; navigator.mediaDevices.dispatchEvent(new Event('devicechange'))"
    visitor.page.evaluate(change)
    options = "[...document.querySelectorAll('select[name=camera] option')].map((o) => o.text).join()"
    until(visitor, f"{options} === 'Default,Back,USB'")


ENDS_EARLY = """
const { mediaDevices } = navigator;
const ask = mediaDevices.getUserMedia.bind(mediaDevices);
mediaDevices.getUserMedia = async (wanted) => {
  const stream = await ask(wanted);
  [window.track] = stream.getVideoTracks();
  return stream;
};
mediaDevices.enumerateDevices = async () => {
  track.dispatchEvent(new Event('ended'));
  return [];
};
"""


def test_a_camera_that_is_unplugged_while_it_starts(visit: MakeVisit, toy: str) -> None:
    visitor = visit()
    visitor.context.add_init_script(ENDS_EARLY)
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    assert "unplugged" in problem(visitor)
    until(visitor, "track.readyState === 'ended'")
    assert visitor.page.get_attribute("#screen", "data-state") == "problem"
    assert visitor.errors == []


def test_a_graphics_device_that_is_lost_and_comes_back(start: Start) -> None:
    visitor = start()
    lose = "document.querySelector('canvas').getContext('webgl2').getExtension('WEBGL_lose_context')"
    visitor.page.evaluate(f"window.device = {lose}; device.loseContext()")
    for key in "cr":
        visitor.page.keyboard.press(key)
    visitor.page.wait_for_timeout(300)
    visitor.page.evaluate("device.restoreContext()")
    until(visitor, "!document.querySelector('canvas').getContext('webgl2').isContextLost()")
    visitor.state("live")
    visitor.page.locator("#fps", has_text=re.compile(r"\d")).wait_for()
    assert visitor.errors == []


def choose(visitor: Visit, file: Any) -> None:
    """Open a file as a visitor does: the button waits until the page's script listens."""
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name="Open a picture or video").click()
    chooser.value.set_files(file)


@pytest.mark.parametrize("name", ["Start camera", "Open a picture or video"])
def test_nothing_can_be_pressed_before_the_page_listens(visit: MakeVisit, toy: str, name: str) -> None:
    """A press on a page that is still loading would be lost, and nobody would know why."""
    held: list[Any] = []
    visitor = visit()
    visitor.page.route("**/config.json", lambda route: held.append(route))
    with visitor.page.expect_request("**/config.json"):
        visitor.page.goto(toy)
    button = visitor.page.get_by_role("button", name=name)
    assert button.is_disabled()
    while not held:
        visitor.page.wait_for_timeout(10)
    held[0].continue_()
    button.click()
    assert visitor.errors == []


def test_a_picture_instead_of_a_camera(visit: MakeVisit, toy: str) -> None:
    visitor = visit(camera=False)
    visitor.page.goto(toy)
    choose(visitor, SAMPLE)
    visitor.state("live")
    assert visitor.page.evaluate("document.querySelector('canvas').width") == 512
    assert not visitor.page.get_by_label("Mirror").is_checked()
    assert "sample.jpg" in (visitor.page.get_by_role("img").get_attribute("aria-label") or "")
    assert visitor.errors == []


def test_settings_are_kept_for_the_next_visit(start: Start) -> None:
    visitor = start()
    visitor.page.keyboard.press("4")
    visitor.page.reload()
    from playwright.sync_api import expect  # waits until the page's script has read them

    expect(visitor.page.get_by_label("Mask", exact=True)).to_be_checked(timeout=1000 * PATIENCE_S)


def test_settings_of_another_version_do_no_harm(visit: MakeVisit, toy: str) -> None:
    visitor = visit()
    stored = "mode=nonsense&height=9&blur=x&color=blue&mirror=on"
    visitor.context.add_init_script(f"localStorage.setItem('edge-deeplab', '{stored}')")
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    visitor.state("live")
    assert visitor.page.get_by_label("Blur", exact=True).is_checked()
    assert visitor.page.input_value("select[name=height]") == "480"
    assert visitor.errors == []


def test_a_browser_that_keeps_nothing(visit: MakeVisit, toy: str) -> None:
    """With cookies blocked, already looking at the storage is an error."""
    visitor = visit()
    visitor.context.add_init_script(
        """const get = () => { throw new DOMException('denied', 'SecurityError'); };
        for (const area of ['localStorage', 'sessionStorage']) {
          Object.defineProperty(window, area, { get });
        }"""
    )
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    visitor.state("live")
    visitor.page.keyboard.press("r")
    assert visitor.errors == []


def test_keys(start: Start) -> None:
    visitor = start()
    labels = {"b": "Blur", "r": "Replace", "c": "Cut-out", "m": "Mask", "s": "Side by side"}
    for index, (key, label) in enumerate(labels.items(), start=1):
        visitor.page.keyboard.press(key)
        assert visitor.page.get_by_label(label, exact=True).is_checked()
        visitor.page.keyboard.press(str(index % 5 + 1))
        assert not visitor.page.get_by_label(label, exact=True).is_checked()
    for key, label in {"f": "Mirror", "t": "Steady over time", "e": "Refine edges"}.items():
        before = visitor.page.get_by_label(label).is_checked()
        visitor.page.keyboard.press(key)
        assert visitor.page.get_by_label(label).is_checked() is not before
    with visitor.page.expect_download():
        visitor.page.keyboard.press("p")
    assert visitor.errors == []


def test_a_picture_larger_than_any_screen(visit: MakeVisit, toy: str, tmp_path: Path) -> None:
    """It is shrunk to what every graphics device can hold, and keeps its shape."""
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), picture(1500, 9000))
    visitor = visit(camera=False)
    visitor.page.goto(toy)
    choose(visitor, path)
    visitor.state("live")
    canvas = "(({ width, height }) => [width, height])(document.querySelector('canvas'))"
    assert visitor.page.evaluate(canvas) == [4096, 682]
    visitor.page.keyboard.press("s")
    assert visitor.page.evaluate(canvas) == [4096, 341]
    assert visitor.errors == []


# -- models --------------------------------------------------------------------------------------


def test_every_shipped_model_can_be_chosen(
    visit: MakeVisit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is added to the folder needs no word of the page's."""
    pytest.importorskip("starlette", reason="the extra `web` is not installed")
    from edge_deeplab import zoo
    from edge_deeplab.cli import parser
    from edge_deeplab.demos.demo_web import _site

    names = ("portrait", "portrait-nano", "portrait-open")
    for name in names:
        toy_onnx(tmp_path / f"{name}.onnx", toy_contract(name=name))
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    with served(_site(parser().parse_args(["demo", "web"]), None)) as address:
        visitor = visit()
        visitor.page.goto(address)
        visitor.page.get_by_role("button", name="Start camera").click()
        visitor.state("live")
        options = visitor.page.locator("select[name=model] option").all_inner_texts()
        assert sorted(options) == sorted(names)
        for name in reversed(names):
            visitor.page.select_option("select[name=model]", name)
            visitor.page.locator("#model-line", has_text=f"{name}, fp32").wait_for()
        assert visitor.page.get_attribute("#screen", "data-state") == "live"
    assert visitor.errors == []


# -- nothing leaves the machine ------------------------------------------------------------------


def test_it_asks_nobody_but_its_own_server(start: Start, toy: str) -> None:
    """The browser of these tests resolves no names, so whatever needed a network would have failed too."""
    visitor = start()
    visitor.page.wait_for_timeout(500)
    outside = {url for url in visitor.asked if not url.startswith((toy, "blob:", "data:"))}
    assert outside == set()
    assert visitor.errors == []


def test_it_works_on_without_any_network(visit: MakeVisit, toy: str) -> None:
    visitor = visit()
    visitor.page.goto(toy)
    visitor.page.locator("#model-line", has_text="toy, fp32").wait_for()
    visitor.context.set_offline(True)
    visitor.page.get_by_role("button", name="Start camera").click()
    visitor.state("live")
    for key in "brcms":
        visitor.page.keyboard.press(key)
    visitor.page.locator("#fps", has_text=re.compile(r"\d")).wait_for()
    assert visitor.errors == []


@pytest.mark.parametrize("address", ["https://example.org/x", "http://127.0.0.1:9/x"])
def test_the_browser_refuses_to_send_elsewhere(visit: MakeVisit, toy: str, address: str) -> None:
    visitor = visit(camera=False)
    visitor.page.goto(toy)
    said = visitor.page.evaluate(
        """(url) => new Promise((resolve) => {
          document.addEventListener('securitypolicyviolation', (event) => resolve(event.violatedDirective));
          fetch(url, { method: 'POST', body: 'x' }).then(() => resolve('sent'), () => {});
        })""",
        address,
    )
    assert said == "connect-src"


# -- when it cannot work -------------------------------------------------------------------------


def problem(visitor: Visit) -> str:
    visitor.state("problem")
    said: str = visitor.page.get_by_role("alert").inner_text()
    return said


def test_a_refused_camera(visit: MakeVisit, toy: str) -> None:
    visitor = visit(camera=False)
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    assert "The camera is blocked. Allow it for this page" in problem(visitor)
    # Allowed after all.
    visitor.context.grant_permissions(["camera"])
    visitor.page.locator("#retry").click()
    visitor.state("live")
    assert visitor.errors == []


def test_no_camera(launch: Launch, toy: str) -> None:
    browser = launch("--use-fake-device-for-media-stream=device-count=0")
    visitor = Visit(browser)
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    said = problem(visitor)
    browser.close()
    assert "No camera was found" in said
    assert visitor.errors == []


def test_an_insecure_page_has_no_camera(visit: MakeVisit, toy: str) -> None:
    """As when the page comes over http from another computer."""
    visitor = visit()
    visitor.context.add_init_script("delete Navigator.prototype.mediaDevices")
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    assert "only to pages from this computer" in problem(visitor)


def test_without_shared_memory_one_thread_does_it(visit: MakeVisit, toy: str) -> None:
    visitor = visit()

    def without_isolation(route: Any) -> None:
        answer = route.fetch()
        headers = {k: v for k, v in answer.headers.items() if not k.startswith("cross-origin-")}
        route.fulfill(response=answer, headers=headers)

    visitor.page.route("**/*", without_isolation)
    visitor.page.goto(toy)
    assert not visitor.page.evaluate("crossOriginIsolated")
    visitor.page.get_by_role("button", name="Start camera").click()
    visitor.state("live")
    assert "WASM runs on one thread" in visitor.page.inner_text("#engine-hint")
    assert "WASM, 1 thread" in visitor.page.inner_text("#model-line")
    assert visitor.errors == []


def test_a_browser_without_shared_memory(visit: MakeVisit, toy: str) -> None:
    visitor = visit()
    visitor.context.add_init_script("delete window.SharedArrayBuffer")
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    visitor.state("live")
    assert "this browser shares no memory between threads" in visitor.page.inner_text("#engine-hint")
    assert "WASM, 1 thread" in visitor.page.inner_text("#model-line")
    assert visitor.errors == []


def test_a_browser_without_webassembly(launch: Launch, toy: str) -> None:
    """As in a phone's lockdown mode."""
    browser = launch("--js-flags=--jitless")
    visitor = Visit(browser)
    visitor.page.goto(toy)
    said = problem(visitor)
    browser.close()
    assert "does not run WebAssembly with SIMD" in said
    assert "--server-runtime" in said
    assert visitor.errors == []


def test_a_film_without_pictures(visit: MakeVisit, toy: str) -> None:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    visitor = visit(camera=False)
    visitor.page.goto(toy)
    payload = {"name": "song.mp4", "mimeType": "video/mp4", "buffer": sound.getvalue()}
    choose(visitor, payload)
    assert "song.mp4 holds sound, but no pictures" in problem(visitor)


def test_a_model_that_is_not_ours(visit: MakeVisit, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the extra `web` is not installed")
    from edge_deeplab.demos.web.app import Site

    path = toy_onnx(tmp_path / "other.onnx", metadata={})
    with served(Site("other", {"other": path})) as address:
        visitor = visit()
        visitor.page.goto(address)
        assert "carries no input contract" in problem(visitor)


def test_a_file_that_is_no_picture(visit: MakeVisit, toy: str, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    visitor = visit(camera=False)
    visitor.page.goto(toy)
    choose(visitor, tmp_path / "notes.png")
    assert "notes.png is not a picture" in problem(visitor)


def test_the_server_has_gone(visit: MakeVisit, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the extra `web` is not installed")
    from edge_deeplab.demos.web.app import Site

    with served(Site("toy", {"toy": toy_onnx(tmp_path / "toy.onnx")})) as address:
        visitor = visit()
        visitor.page.route("**/config.json", lambda route: route.abort())
        visitor.page.goto(address)
        assert "The server does not answer" in problem(visitor)
        visitor.page.unroute("**/config.json")
        visitor.page.get_by_role("button", name="Load the page again").click()
        visitor.state("welcome")


# -- for everybody -------------------------------------------------------------------------------


def test_the_page_fits_a_phone(start: Start) -> None:
    visitor = start(viewport={"width": 360, "height": 740}, has_touch=True)
    widest = (
        "Math.max(...[...document.querySelectorAll('body *')].map((e) => e.getBoundingClientRect().right))"
    )
    for key in "12345":
        visitor.page.keyboard.press(key)
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert visitor.page.evaluate(widest) <= 360
    assert visitor.errors == []


SMALL_TARGETS = """
() => [...document.querySelectorAll('button, select, label, input[type=range]')]
  .filter((e) => e.checkVisibility() && !e.querySelector('select, input[type=range]'))
  .filter((e) => e.getBoundingClientRect().height < 44)
  .map((e) => e.textContent.trim() || e.name)
"""


def test_a_finger_can_hit_everything(start: Start) -> None:
    """44 pixels: WCAG 2.2, 2.5.5."""
    visitor = start(viewport={"width": 390, "height": 844}, has_touch=True)
    for key in "br":
        visitor.page.keyboard.press(key)
        assert visitor.page.evaluate(SMALL_TARGETS) == []


def test_the_controls_stay_where_they_are(start: Start) -> None:
    """Whatever is shown, the button that was just pressed does not move away."""
    visitor = start(viewport={"width": 390, "height": 844}, has_touch=True)
    places = set()
    for key in "brcms":
        visitor.page.keyboard.press(key)
        visitor.page.wait_for_timeout(200)
        places.add(visitor.page.evaluate("document.querySelector('.modes').getBoundingClientRect().top"))
    assert len(places) == 1


def test_a_message_is_whole_on_a_phone(visit: MakeVisit, toy: str) -> None:
    visitor = visit(camera=False, viewport={"width": 320, "height": 640})
    visitor.page.goto(toy)
    visitor.page.get_by_role("button", name="Start camera").click()
    visitor.state("problem")
    screen, card = (visitor.page.locator(name).bounding_box() for name in ("#screen", "#problem"))
    assert screen and card
    assert screen["y"] <= card["y"]
    assert card["y"] + card["height"] <= screen["y"] + screen["height"]


def test_everything_has_a_name_and_is_reached_by_keyboard(start: Start) -> None:
    visitor = start()
    nameless = visitor.page.evaluate(
        """() => [...document.querySelectorAll('button, select, input:not([hidden])')]
          .filter((e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel))
          .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    reached = set()
    visitor.page.locator("body").focus()
    for _ in range(20):
        visitor.page.keyboard.press("Tab")
        reached.add(visitor.page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {"pause", "save", "stop", "mode", "blur", "model", "backend", "camera", "mirror"} <= reached
