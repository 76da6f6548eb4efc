"""The page's own modules, in a real browser, against Python on the same frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_deeplab import composite, matte, refine, temporal
from edge_deeplab.imaging import Floats, Frame, alpha_image, preprocess, read_image
from edge_deeplab.matte import Matte
from edge_deeplab.runtimes import open_model
from edge_deeplab.spec import InputContract
from edge_deeplab.zoo import shipped
from tests.demos.web.conftest import MakeVisit
from tests.demos.web.support import ROOT, alphas, clips, rgba, served, shown_by
from tests.runtimes.artefacts import RED_GREEN_BLUE, picture, toy_contract, toy_onnx

from fake_camera import SAMPLE, moving_sample, read_film  # isort: skip
from web_page import agreement as agreement_of_camera, packed, unpacked  # isort: skip

PAGE = ROOT / "demos" / "web" / "page"

AGREEMENT = 0.99
"""Share of pixels with the same class. What differs lies on the edge: resampling rounds differently by 1."""

needs_clips = pytest.mark.skipif(not clips(), reason="no ../shared/video beside the checkout")


@pytest.fixture
def page(visit: MakeVisit, site: str) -> Iterator[Any]:
    """Of the demo's origin, so that its modules can be imported; nothing may go wrong in it."""
    visitor = visit(camera=False)
    visitor.open_bare(site)
    yield visitor.page
    assert visitor.errors == []


def agreement(page: Any, frames: list[Frame], site: str, model: str = "portrait", **options: Any) -> float:
    """Least share of equal pixels over some frames."""
    shown = alphas(page, frames, url=f"{site}/models/{model}.onnx", **options)
    shares = []
    with open_model(model, threads=1) as runtime:
        for frame, alpha in zip(frames, shown, strict=True):
            result = runtime.segment(frame)
            shares.append(float(((alpha >= 128) == result.labels).mean()))
            assert np.abs(alpha.astype(int) - result.alpha).mean() < 2  # logits are cut at 6
            assert 0.02 < result.labels.mean() < 0.98, "the frame shows no person, so it proves nothing"
    return min(shares)


# -- the shipped models --------------------------------------------------------------------------


@pytest.mark.parametrize("model", [name for name, files in shipped().items() if ".onnx" in files])
def test_a_photo_has_the_mask_that_python_gives_it(page: Any, site: str, model: str) -> None:
    photo = read_image(SAMPLE)
    frames = [photo, photo[40:450, :], cv2.resize(photo, (1280, 960)), cv2.resize(photo, (200, 150))]
    assert agreement(page, frames, site, model, backend="wasm", threads=1) >= AGREEMENT


def test_threads_give_the_same_mask(page: Any, site: str) -> None:
    assert page.evaluate("crossOriginIsolated")
    assert agreement(page, [read_image(SAMPLE)], site, backend="wasm", threads=2) >= AGREEMENT


@needs_clips
@pytest.mark.parametrize("clip", clips(), ids=lambda path: path.stem)
def test_frames_of_a_film_have_the_masks_that_python_gives_them(page: Any, site: str, clip: Path) -> None:
    assert agreement(page, read_film(clip, 2, every=30), site, backend="wasm", threads=1) >= AGREEMENT


@pytest.mark.parametrize("quality", [(False, False), (True, True)], ids=["network", "matte"])
def test_frames_of_the_camera_have_the_masks_that_python_gives_them(
    visit: MakeVisit, site: str, quality: tuple[bool, bool]
) -> None:
    visitor = visit()
    visitor.open_bare(site)
    smooth, refine = quality
    with open_model("portrait", threads=1) as runtime:
        url = f"{site}/models/portrait.onnx"
        shares, frames = agreement_of_camera(visitor.page, url, runtime, 4, smooth=smooth, refine=refine)
    assert min(shares) >= AGREEMENT
    for seen in frames:
        assert seen.frame.shape == (480, 640, 3)
        assert 0.02 < (seen.alpha >= 128).mean() < 0.98, "the frame shows no person, so it proves nothing"
    assert visitor.errors == []


# -- what is made of the answers -----------------------------------------------------------------


def film_or_sample() -> list[Frame]:
    """Five frames a third of a second apart, and the last one again: motion and rest."""
    frames = read_film(clips()[0], 5, every=10) if clips() else moving_sample(5)
    return [*frames, frames[-1], frames[-1]]


@pytest.mark.parametrize("quality", [(True, True), (True, False), (False, True)], ids=str)
def test_mattes_over_time_are_those_of_python(page: Any, site: str, quality: tuple[bool, bool]) -> None:
    smooth, refine = quality
    frames = film_or_sample()
    url = f"{site}/models/portrait.onnx"
    shown = alphas(page, frames, smooth=smooth, refine=refine, url=url, backend="wasm", threads=1)
    stream = Matte(smooth=smooth, refine=refine)
    with open_model("portrait", threads=1) as runtime:
        for frame, alpha in zip(frames, shown, strict=True):
            expected = alpha_image(stream.update(frame, runtime.segment(frame).logits, 1 / 30))
            assert ((alpha >= 128) == (expected >= 128)).mean() >= AGREEMENT
            assert np.abs(alpha.astype(int) - expected).mean() < 1


EFFECTS: dict[str, Callable[[Frame, Floats], Frame]] = {
    "blur": composite.blur_background,
    "replace": lambda frame, alpha: composite.replace_background(
        frame, alpha, composite.plain((0, 176, 64), *alpha.shape)
    ),
    "cutout": lambda frame, alpha: composite.unmix(frame, alpha),
}


@pytest.mark.parametrize("effect", EFFECTS)
def test_effects_look_as_in_python(page: Any, site: str, effect: str) -> None:
    frame = read_image(SAMPLE)
    url = f"{site}/models/portrait.onnx"
    options = {"smooth": True, "refine": True, "url": url, "backend": "wasm", "threads": 1}
    shown = shown_by(page, [frame], effect=effect, **options)[0].astype(int)
    with open_model("portrait", threads=1) as runtime:
        alpha = Matte().update(frame, runtime.segment(frame).logits)
    difference = np.abs(shown - EFFECTS[effect](frame, alpha)).max(axis=2)
    if effect == "cutout":  # a colour without opacity cannot be read back
        difference = difference[alpha > 0.5]
    assert np.abs(difference).mean() < 1
    assert np.percentile(difference, 99.5) < 12
    assert np.abs(shown - frame).mean() > 2, "the effect does nothing"


NO_FLOATS = """
const get = WebGL2RenderingContext.prototype.getExtension;
WebGL2RenderingContext.prototype.getExtension = function (name) {
  return name.startsWith('EXT_color_buffer') ? null : get.call(this, name);
};
"""


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_device_that_draws_into_bytes_only(visit: MakeVisit, site: str, effect: str) -> None:
    """Coarser, but without holes where weights are small."""
    visitor = visit(camera=False)
    visitor.context.add_init_script(NO_FLOATS)
    visitor.open_bare(site)
    frame = read_image(SAMPLE)
    options = {"smooth": True, "refine": True, "url": f"{site}/models/portrait.onnx", "backend": "wasm"}
    shown = shown_by(visitor.page, [frame], effect=effect, threads=1, **options)[0].astype(int)
    with open_model("portrait", threads=1) as runtime:
        alpha = Matte().update(frame, runtime.segment(frame).logits)
    difference = np.abs(shown - EFFECTS[effect](frame, alpha)).max(axis=2)
    if effect == "cutout":
        difference = difference[alpha > 0.5]
    assert np.abs(difference).mean() < 3
    assert np.percentile(difference, 99.5) < 40


CONSTANTS = {
    "matte.js": (matte, temporal, refine),
    "compositor.js": (composite,),
}


def test_constants_are_those_of_python() -> None:
    compared = set()
    for name, modules in CONSTANTS.items():
        text = (PAGE / name).read_text(encoding="utf-8")
        for constant, value in re.findall(r"^const ([A-Z_]+) = ([\d./e -]+);", text, re.MULTILINE):
            numerator, _, denominator = value.partition(" / ")
            for module in modules:
                if hasattr(module, constant):
                    expected = float(numerator) / float(denominator or 1)
                    assert getattr(module, constant) == pytest.approx(expected), constant
                    compared.add(constant)
    assert {"GRID", "SURE", "MEMORY_S", "LINGER_S", "STILL", "MOVING", "REACH"} < compared
    assert {"RADIUS", "EPSILON", "CONTRAST", "SMALL", "BAND"} < compared


# -- every kind of model -------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "logits": {},
    "threshold": {"threshold": 0.8},
    "probability": {"head": "probability"},
    "full": {"head": "logits-full", "head_stride": 1},
    "classmap": {"head": "classmap", "head_stride": 1},
    "letterbox": {"resize": "letterbox", "mean": (10.0, 120.0, 250.0), "std": (60.0, 70.0, 80.0)},
    "letterbox-classmap": {"resize": "letterbox", "head": "classmap", "head_stride": 1},
    "bgr": {"channels": "BGR", "mean": (104.0, 117.0, 123.0), "std": (57.0, 57.5, 58.0)},
    "classes": {"classes": RED_GREEN_BLUE},
    "classes-letterbox": {"classes": RED_GREEN_BLUE, "resize": "letterbox"},
    # On a software device the shipped models take minutes; benchmarks/web_demo.py --backend webgpu runs them.
    "webgpu": {},
    "webgpu-classes": {"classes": RED_GREEN_BLUE},
}
HAS_WEBGPU = "import('/engines.js').then(({ hasWebGpu }) => hasWebGpu())"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_read_from_its_contract(visit: MakeVisit, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("starlette", reason="the extra `web` is not installed")
    from edge_deeplab.demos.web.app import Site

    contract = toy_contract(**KINDS[kind])
    path = toy_onnx(tmp_path / "toy.onnx", contract)
    # Smooth, so that no pixel's class hangs on a rounding; sizes that shrink, grow and do both.
    frames = [picture(h, w, seed=k) for k, (h, w) in enumerate([(64, 96), (130, 77), (480, 640), (40, 300)])]
    with served(Site("toy", {"toy": path})) as address, open_model(path, threads=1) as runtime:
        visitor = visit(camera=False)
        visitor.open_bare(address)
        backend = "webgpu" if kind.startswith("webgpu") else "wasm"
        if backend == "webgpu" and not visitor.page.evaluate(HAS_WEBGPU):
            pytest.skip("this Chromium has no WebGPU device")
        shown = alphas(visitor.page, frames, url=f"{address}/models/toy.onnx", backend=backend, threads=1)
        for frame, alpha in zip(frames, shown, strict=True):
            result = runtime.segment(frame)
            assert ((alpha >= 128) == (result.labels > 0)).mean() >= AGREEMENT
            if result.scores is not None and contract.threshold == 0.5:
                assert np.abs(alpha.astype(int) - result.alpha).mean() <= 2
            assert len(np.unique(result.labels)) > 1, "one class only proves nothing"
        visitor.page.goto("about:blank")
    assert visitor.errors == []


# -- the steps on their own ----------------------------------------------------------------------

PREPROCESS = """
async ({ frame, contract }) => {
  const { preprocess } = await import('/imaging.js');
  const { parseContract } = await import('/contract.js');
  const { data, dims } = preprocess(unpack(frame.bytes), frame.width, frame.height, parseContract(contract));
  return { dims, data: pack(data) };
}
"""

SIZES = [(64, 96), (128, 192), (480, 640), (190, 300), (31, 47), (1, 1), (1, 500), (64, 97), (720, 100)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resize": "letterbox", "mean": (1.0, 100.0, 254.5)},
        {"channels": "BGR", "layout": "NHWC", "std": (30.0, 60.0, 90.0)},
        {"dtype": "uint8", "layout": "NHWC"},
        {"dtype": "uint8", "channels": "BGR", "resize": "letterbox"},
    ],
    ids=["plain", "letterbox", "nhwc", "bytes", "bytes-bgr"],
)
def test_the_tensor_is_the_one_python_makes(
    page: Any, rng: np.random.Generator, contract: InputContract, changes: dict[str, Any]
) -> None:
    contract = contract.replace(**changes)
    for height, width in SIZES:
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = preprocess(frame, contract)
        said = page.evaluate(PREPROCESS, {"frame": rgba(frame), "contract": contract.to_json()})
        assert tuple(said["dims"]) == expected.shape
        got = unpacked(said["data"], expected.dtype).reshape(expected.shape)
        # In pixel values: resampling may round the other way, no more.
        axes = (1, 1, 1, 3) if contract.layout == "NHWC" else (1, 3, 1, 1)
        scale = 1 if contract.dtype == "uint8" else np.reshape(contract.std, axes)
        assert (np.abs(got.astype(float) - expected) * scale).max() <= 1.01, (height, width)
        if frame.shape[:2] == (contract.height, contract.width):
            assert np.array_equal(got, expected)


# -- what is refused -----------------------------------------------------------------------------

REFUSED = """
async ({ bytes }) => {
  const { contractOf } = await import('/contract.js');
  try {
    contractOf(unpack(bytes));
    return 'taken';
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}
"""


def refusal(page: Any, data: bytes) -> str:
    said: str = page.evaluate(REFUSED, {"bytes": packed(np.frombuffer(data, np.uint8))})
    return said


def test_a_model_without_a_contract_is_refused(page: Any, tmp_path: Path) -> None:
    path = toy_onnx(tmp_path / "toy.onnx", metadata={"author": "nobody"})
    assert "carries no input contract" in refusal(page, path.read_bytes())


def test_a_damaged_file_is_refused(page: Any, tmp_path: Path) -> None:
    data = toy_onnx(tmp_path / "toy.onnx").read_bytes()
    assert refusal(page, data) == "taken"
    assert "damaged or no ONNX file" in refusal(page, data[: len(data) // 2])
    assert "damaged or no ONNX file" in refusal(page, b"\xff" * 100)
    assert "carries no input contract" in refusal(page, b"")


def test_a_damaged_contract_is_refused(page: Any, tmp_path: Path) -> None:
    text = toy_contract().to_json()
    for wrong, words in {
        text.replace('"format": 1', '"format": 2'): "format 2",
        text.replace('"stretch"', '"fit"'): 'resize is "fit"',
        text.replace("0.5", "1.5"): "threshold is 1.5",
        text[:-1]: "not JSON",
        text.replace("128.0", "64.0"): "was changed after it was written",
        text.replace('"toy"', '"boy"'): "was changed after it was written",
        text[: text.rindex(', "sha256"')] + "}": "has lost its checksum",
    }.items():
        assert wrong != text
        path = toy_onnx(tmp_path / "toy.onnx", metadata={"edge_deeplab.contract": wrong})
        assert words in refusal(page, path.read_bytes())


@pytest.mark.parametrize("indent", [None, 2])
def test_the_checksum_is_python_s(page: Any, tmp_path: Path, indent: int | None) -> None:
    """Numbers and letters that JavaScript would write in its own way."""
    metrics = {"eg/val iou": 0.97, 'Güte "ä"\n\x7f\U0001f600': 1e-12, "much": 1e22}
    contract = toy_contract(threshold=1e-7, std=(1 / 3, 255.0, 1e-5), metrics=metrics)
    text = contract.to_json(indent=indent)
    path = toy_onnx(tmp_path / "toy.onnx", metadata={"edge_deeplab.contract": text})
    assert refusal(page, path.read_bytes()) == "taken"


def test_python_and_the_page_know_the_same_fields() -> None:
    """A field the page does not check must be one that it need not know."""
    from dataclasses import fields

    text = (PAGE / "contract.js").read_text(encoding="utf-8")
    checks = text[text.index("const CHECKS") : text.index("};")]
    unknown = {f.name for f in fields(InputContract) if f" {f.name}:" not in checks}
    assert unknown == {"variant", "dynamic", "metrics", "quantization"}
