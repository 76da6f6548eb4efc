"""What every runtime must do. A new file ``on_NAME.py`` joins by itself; see ``artefacts.MAKERS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_deeplab import imaging
from edge_deeplab.errors import MissingExtra, UserError
from edge_deeplab.imaging import Frame
from edge_deeplab.runtimes import Runtime, Segmentation, open_model, runtimes
from tests.runtimes.artefacts import MAKERS, picture


@dataclass(frozen=True)
class Case:
    """A runtime, one of its suffixes and the artefact to open with it."""

    runtime: str
    suffix: str
    artefact: str


CASES = [
    Case(name, suffix, artefact)
    for name, runtime in runtimes().items()
    for suffix in runtime.suffixes
    for artefact in MAKERS.get(suffix, {"missing": None})
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.runtime}-{case.artefact}")
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefact."""
    case: Case = request.param
    try:
        runtimes()[case.runtime].versions()
    except MissingExtra as error:
        pytest.skip(str(error))
    if case.suffix not in MAKERS:
        pytest.fail(
            f"no artefact to test {case.runtime} with: "
            f"tests/runtimes/artefacts.py needs a maker for {case.suffix}"
        )
    return MAKERS[case.suffix][case.artefact](tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Runtime]:
    with open_model(path, threads=1) as opened:
        yield opened


FRAMES = {
    "odd size": picture(37, 53),
    "the input's size": picture(64, 96),
    "larger": picture(211, 150),
    "gray": picture(41, 30)[..., 0],
    "gray with an axis": picture(41, 30)[..., :1],
    "with alpha": np.dstack([picture(30, 41), picture(30, 41, seed=5)[..., 0]]),
    "one pixel": picture(1, 1),
    "one row": picture(1, 4000),
    "one column": picture(4000, 1),
    "black": np.zeros((20, 30, 3), np.uint8),
    "mirrored view": picture(37, 53)[:, ::-1],
    "every second pixel": picture(75, 107)[::2, ::2],
}


def sure(result: Segmentation) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Pixels that are not decided by the last bit of a sum."""
    assert result.scores is not None
    contract = result.contract
    cut = contract.threshold if contract.head == "probability" else contract.logit_threshold
    return np.abs(result.scores - cut) > 1e-3


def assert_same(a: Segmentation, b: Segmentation) -> None:
    """Equal but for the order in which a network's sums were taken."""
    assert a.labels.shape == b.labels.shape
    if a.scores is None or b.scores is None:
        np.testing.assert_array_equal(a.labels, b.labels)
        return
    np.testing.assert_allclose(a.scores, b.scores, atol=5e-4)
    np.testing.assert_array_equal(a.labels[sure(a)], b.labels[sure(a)])


@pytest.mark.parametrize("name", FRAMES)
def test_labels_have_the_frames_own_size(model: Runtime, name: str) -> None:
    frame = FRAMES[name]
    before = frame.copy()
    result = model.segment(frame)
    assert (result.labels.shape, result.labels.dtype) == (frame.shape[:2], np.uint8)
    assert result.labels.max() < len(model.contract.classes)
    np.testing.assert_array_equal(frame, before)


def test_there_is_something_to_see(model: Runtime) -> None:
    """Both classes occur, so that the other tests compare more than empty masks."""
    labels = model.segment(picture(110, 150)).labels
    assert 0.02 < labels.mean() < 0.98


def test_the_layout_in_memory_does_not_matter(model: Runtime) -> None:
    for name in ("mirrored view", "every second pixel"):
        frame = FRAMES[name]
        whole = model.segment(np.ascontiguousarray(frame))
        np.testing.assert_array_equal(model.segment(frame).labels, whole.labels)
    locked = picture(37, 53)
    locked.flags.writeable = False
    np.testing.assert_array_equal(model.segment(locked).labels, model.segment(picture(37, 53)).labels)


def test_gray_and_alpha_are_what_they_look_like(model: Runtime) -> None:
    gray = FRAMES["gray"]
    wanted = model.segment(np.dstack([gray] * 3)).labels
    np.testing.assert_array_equal(model.segment(gray).labels, wanted)
    np.testing.assert_array_equal(model.segment(gray[..., None]).labels, wanted)
    alpha = FRAMES["with alpha"]
    np.testing.assert_array_equal(
        model.segment(alpha).labels, model.segment(np.ascontiguousarray(alpha[..., :3])).labels
    )


def test_channel_order(model: Runtime) -> None:
    bgr = FRAMES["odd size"]
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    right, same, wrong = model.segment(bgr), model.segment(rgb, channels="RGB"), model.segment(rgb)
    np.testing.assert_array_equal(right.labels, same.labels)
    assert (right.labels != wrong.labels).any()
    for a, b in zip(
        model.segment_batch([bgr, bgr]), model.segment_batch([rgb, rgb], channels="RGB"), strict=True
    ):
        np.testing.assert_array_equal(a.labels, b.labels)


def test_a_channel_order_is_never_guessed(model: Runtime) -> None:
    """Anything but RGB would pass for BGR, and swap red and blue without a word."""
    for order in ("rgb", "GBR", ""):
        with pytest.raises(UserError, match="channels"):
            model.segment(FRAMES["odd size"], channels=order)  # type: ignore[arg-type]


def test_probability_and_labels_say_the_same(model: Runtime) -> None:
    result = model.segment(FRAMES["odd size"])
    if result.probability is None:
        pytest.skip("this artefact gives no probability")
    assert (result.probability.dtype, result.probability.shape) == (np.float32, (37, 53))
    assert 0 <= result.probability.min() <= result.probability.max() <= 1
    above = result.probability >= model.contract.threshold
    np.testing.assert_array_equal(result.labels[sure(result)], above[sure(result)])
    assert sure(result).mean() > 0.99
    assert (result.alpha.dtype, result.alpha.shape) == (np.uint8, (37, 53))


def test_logits_are_positive_where_the_labels_say_foreground(model: Runtime) -> None:
    result = model.segment(FRAMES["odd size"])
    assert (result.logits.dtype, result.logits.shape) == (np.float32, (37, 53))
    certain = sure(result) if result.scores is not None else np.full((37, 53), True)
    np.testing.assert_array_equal((result.logits >= 0)[certain], (result.labels > 0)[certain])


def test_the_answer_knows_its_model(model: Runtime) -> None:
    assert model.segment(FRAMES["one pixel"]).contract == model.contract
    assert model.contract.name == "random nano"
    assert (model.contract.height, model.contract.width) == (64, 96)


def test_times(model: Runtime) -> None:
    for result in (model.segment(FRAMES["odd size"]), *model.segment_batch([FRAMES["odd size"]] * 3)):
        times = result.times
        assert min(times.preprocess, times.inference, times.postprocess) >= 0
        assert times.total == pytest.approx(times.preprocess + times.inference + times.postprocess)
        assert times.total > 0


def test_the_same_frame_gets_the_same_answer(model: Runtime) -> None:
    first, _, again = (model.segment(FRAMES[n]) for n in ("odd size", "larger", "odd size"))
    np.testing.assert_array_equal(first.labels, again.labels)
    if first.scores is not None:
        np.testing.assert_array_equal(first.scores, again.scores)


def test_an_answer_is_not_overwritten_by_the_next(model: Runtime) -> None:
    """Runtimes that reuse their output buffer must copy."""
    tensor, other = (imaging.preprocess(FRAMES[n], model.contract) for n in ("odd size", "larger"))
    output = model.infer(tensor)
    before = output.copy()
    assert (model.infer(other) != before).any()
    np.testing.assert_array_equal(output, before)
    result = model.segment(FRAMES["the input's size"])
    labels = result.labels.copy()
    model.segment(FRAMES["black"])
    np.testing.assert_array_equal(result.labels, labels)


def test_infer_keeps_the_batch_axis(model: Runtime) -> None:
    tensor = imaging.preprocess(FRAMES["odd size"], model.contract)
    before = tensor.copy()
    assert model.infer(tensor).shape[0] == 1
    np.testing.assert_array_equal(tensor, before)


@pytest.mark.parametrize(
    "names",
    [
        ["odd size"],
        ["odd size", "odd size", "odd size"],
        ["odd size", "larger", "one pixel", "gray", "with alpha"],
    ],
    ids=lambda names: f"{len(set(names))} sizes of {len(names)}",
)
def test_a_batch_is_what_its_frames_are(model: Runtime, names: list[str]) -> None:
    frames = [FRAMES[name] for name in names]
    answers = model.segment_batch(frames)
    assert len(answers) == len(frames)
    for frame, answer in zip(frames, answers, strict=True):
        assert_same(answer, model.segment(frame))


def test_a_batch_may_be_an_array_or_empty(model: Runtime) -> None:
    frames = np.stack([picture(37, 53, seed=s) for s in range(2)])
    for frame, answer in zip(frames, model.segment_batch(frames), strict=True):  # type: ignore[arg-type]
        assert_same(answer, model.segment(frame))
    assert model.segment_batch([]) == []


BAD_FRAMES: dict[str, object] = {
    "float": np.zeros((8, 8, 3), np.float32),
    "bool": np.zeros((8, 8), bool),
    "16 bit": np.zeros((8, 8, 3), np.uint16),
    "two channels": np.zeros((8, 8, 2), np.uint8),
    "five channels": np.zeros((8, 8, 5), np.uint8),
    "planes first": np.zeros((3, 8, 8), np.uint8),
    "batch": np.zeros((1, 8, 8, 3), np.uint8),
    "row": np.zeros(8, np.uint8),
    "no pixels": np.zeros((0, 8, 3), np.uint8),
    "list": [[1, 2], [3, 4]],
    "nothing": None,
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_wrong_frame_is_refused(model: Runtime, name: str) -> None:
    frame: Frame = BAD_FRAMES[name]  # type: ignore[assignment]
    with pytest.raises(UserError, match="a frame must"):
        model.segment(frame)
    with pytest.raises(UserError, match="a frame must"):
        model.segment_batch([picture(8, 8), frame])


def test_threads_may_share_it(model: Runtime) -> None:
    frames = [picture(30 + 7 * n, 50, seed=n) for n in range(4)]
    alone = [model.segment(frame).labels for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(lambda n: model.segment(frames[n % 4]).labels, range(24)))
    for n, labels in enumerate(shared):
        np.testing.assert_array_equal(labels, alone[n % 4])


def test_warmup_returns_the_runtime(model: Runtime) -> None:
    assert model.warmup(1) is model
    assert model.warmup(0) is model


def test_closing(path: Path) -> None:
    with open_model(path) as model:
        model.segment(FRAMES["one pixel"])
    for call in (
        lambda: model.segment(FRAMES["one pixel"]),
        lambda: model.segment_batch([FRAMES["one pixel"]] * 2),
        model.warmup,
    ):
        with pytest.raises(UserError, match="was closed; open the model again"):
            call()
    model.close()


def test_an_error_inside_closes_it_too(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_model(path) as model:
        _ = 1 / 0
    with pytest.raises(UserError, match="was closed"):
        model.segment(FRAMES["one pixel"])


def test_it_says_what_it_is(model: Runtime) -> None:
    for record in (model.describe(), model.versions()):
        assert record
        assert all(isinstance(k, str) and isinstance(v, str) and k and v for k, v in record.items())
    assert model.title
    assert model.extra
    assert model.describe().get("threads") in (None, "1")


def test_an_unknown_option_is_named(path: Path) -> None:
    with pytest.raises(UserError, match="does not know the option 'colour'"):
        open_model(path, colour="red")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda data: data[: len(data) // 2],
    "ten bytes": lambda data: data[:10],
    "empty": lambda _: b"",
    "text": lambda _: b"just a text\n" * 50,
}


@pytest.mark.parametrize("threads", [0, -1])
def test_there_is_at_least_one_thread(path: Path, threads: int) -> None:
    with pytest.raises(UserError, match=f"threads must be from 1 to 256, not {threads}"):
        open_model(path, threads=threads)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(path: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / f"broken{path.suffix}"
    broken.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(UserError, match=r"damaged|empty") as caught:
        open_model(broken)
    assert str(broken) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"folder{path.suffix}"
    folder.mkdir()
    for place in (tmp_path / f"missing{path.suffix}", folder):
        with pytest.raises(UserError, match="no model"):
            open_model(place)
