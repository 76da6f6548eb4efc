"""TensorRT's own calibrators: every picture once, nothing swallowed, and a cache that cannot be mistaken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deeplab import imaging
from edge_deeplab.errors import UserError
from edge_deeplab.export.base import silent
from edge_deeplab.export.calibration import Calibration, Picture
from edge_deeplab.export.trt_builder import Api, BuildSettings, build
from edge_deeplab.export.trt_calibrator import TrtMethod, make_calibrator
from edge_deeplab.runtimes.cuda_device import BindingsDevice
from edge_deeplab.spec import InputContract
from tests.runtimes.artefacts import picture, toy_contract
from tests.trt.double import TensorRTDouble
from tests.trt.test_builder import Notes
from tests.trt.toys import toy_prepared

CONTRACT = toy_contract()


def pictures(count: int = 4, *, first: int = 0) -> Calibration:
    def read(seed: int) -> Callable[[], Any]:
        return lambda: picture(40, 50, seed=seed)

    made = (Picture(f"{n}.png", f"{n:064x}", read(n)) for n in range(first, first + count))
    return Calibration("a folder", tuple(made))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return toy_prepared(tmp_path / "toy.onnx")


@pytest.fixture
def old(trt: TensorRTDouble) -> TensorRTDouble:
    """The versions that have calibrators."""
    if trt.major >= 11:
        pytest.skip("TensorRT 11 has no calibrators")
    return trt


class Attempt:
    """One calibrated build."""

    def __init__(
        self,
        trt: TensorRTDouble,
        path: Path,
        calibration: Calibration,
        *,
        method: TrtMethod = "entropy",
        contract: InputContract = CONTRACT,
        graph: str = "g" * 64,
        batch: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        self.notes = Notes()
        device = BindingsDevice()
        api = Api(trt)
        self.fed: list[str] = []
        try:
            self.calibrator = make_calibrator(
                api,
                method,
                calibration,
                contract,
                graph=graph,
                device=device,
                progress=silent,
                note=self.notes,
            )
            self.engine = build(
                api,
                path.read_bytes(),
                BuildSettings(precision="int8", batch=batch),
                graph="fp32",
                source=path.name,
                calibrator=self.calibrator,
                progress=silent,
                note=self.notes,
            )
        finally:
            device.close()

    @property
    def measured(self) -> bool:
        return not self.calibrator.cached


@pytest.mark.parametrize(
    ("method", "base"), [("entropy", "IInt8EntropyCalibrator2"), ("minmax", "IInt8MinMaxCalibrator")]
)
def test_every_picture_reaches_the_gpu(
    old: TensorRTDouble, plain: Path, tmp_path: Path, method: TrtMethod, base: str
) -> None:
    done = Attempt(old, plain, pictures(), method=method)
    assert isinstance(done.calibrator, getattr(old, base))
    (stored,) = (tmp_path / "cache" / "trt").iterdir()
    first_pixels = [imaging.preprocess(picture(40, 50, seed=n), CONTRACT)[0, 0, 0, :1] for n in range(4)]
    assert stored.read_bytes().splitlines()[-1].split() == [p.tobytes().hex().encode() for p in first_pixels]
    assert {f.name for (f,) in old.called("IBuilderConfig.set_flag")} == {"FP16", "INT8"}
    assert done.notes == []


@pytest.mark.parametrize("batch", [(1, 1, 8), (1, 4, 8), (4, 8, 16)])
def test_a_dynamic_batch_is_calibrated_picture_by_picture(
    old: TensorRTDouble, tmp_path: Path, batch: tuple[int, int, int]
) -> None:
    """TensorRT reads as many pictures as the profile's best batch; the calibrator gives one at a time."""
    path = toy_prepared(tmp_path / "toy.onnx", dynamic=("batch",))
    done = Attempt(old, path, pictures(), batch=batch)
    assert done.measured
    ((given,),) = old.called("IBuilderConfig.set_calibration_profile")
    assert given._shapes == {"image": [[1, 3, 64, 96]] * 3}
    record = json.loads(done.engine.splitlines()[1])  # the engine's own range is what was asked for
    assert record["profile"] == {"image": [[size, 3, 64, 96] for size in batch]}


def test_the_same_question_is_not_measured_twice(old: TensorRTDouble, plain: Path) -> None:
    assert Attempt(old, plain, pictures()).measured
    assert not Attempt(old, plain, pictures()).measured


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"calibration": pictures(3)}, id="fewer pictures"),
        pytest.param({"calibration": pictures(first=1)}, id="other pictures"),
        pytest.param({"method": "minmax"}, id="another method"),
        pytest.param({"graph": "h" * 64}, id="other weights"),
        pytest.param({"contract": toy_contract(mean=(0.0, 0.0, 0.0))}, id="other preprocessing"),
    ],
)
def test_another_question_is_measured_anew(old: TensorRTDouble, plain: Path, changed: dict[str, Any]) -> None:
    Attempt(old, plain, pictures())
    assert Attempt(old, plain, **{"calibration": pictures(), **changed}).measured


def test_another_gpu_or_version_is_measured_anew(old: TensorRTDouble, plain: Path) -> None:
    Attempt(old, plain, pictures())
    old.cuda._name = "Orin Nano"
    assert Attempt(old, plain, pictures()).measured
    old.__version__ += ".9"
    assert Attempt(old, plain, pictures()).measured


def test_another_decoder_is_measured_anew(
    old: TensorRTDouble, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Attempt(old, plain, pictures())
    monkeypatch.setattr("cv2.__version__", "0.0.0")
    assert Attempt(old, plain, pictures()).measured


@pytest.mark.parametrize("damage", [lambda d: d[:-3], lambda d: b"", lambda d: b"x" * 99, lambda d: d + b"1"])
def test_a_damaged_cache_is_measured_anew(
    old: TensorRTDouble, plain: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    Attempt(old, plain, pictures())
    (stored,) = (tmp_path / "cache" / "trt").iterdir()
    whole = stored.read_bytes()
    stored.write_bytes(damage(whole))
    done = Attempt(old, plain, pictures())
    assert done.measured
    assert done.notes == [f"the calibration cache {stored} is damaged; measured anew"]
    assert stored.read_bytes() == whole


def test_a_picture_that_cannot_be_read_stops_the_build(
    old: TensorRTDouble, plain: Path, tmp_path: Path
) -> None:
    """And leaves no ranges of the pictures before it in the cache."""

    def gone() -> np.ndarray[Any, Any]:
        raise UserError("cannot read 4.png: no such file")

    some = pictures()
    broken = Calibration("a folder", (*some.pictures, Picture("4.png", "4" * 64, gone)))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"cannot read 4\.png"):
        Attempt(old, plain, broken)
    assert not (tmp_path / "cache" / "trt").exists()


def test_ctrl_c_while_calibrating(old: TensorRTDouble, plain: Path, tmp_path: Path) -> None:
    def stop() -> Any:
        raise KeyboardInterrupt

    broken = Calibration("a folder", (*pictures().pictures, Picture("4.png", "4" * 64, stop)))
    with pytest.raises(KeyboardInterrupt):
        Attempt(old, plain, broken)
    assert not (tmp_path / "cache" / "trt").exists()


def test_a_cache_that_cannot_be_written_is_only_a_note(
    old: TensorRTDouble, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setenv("EDGE_DEEPLAB_CACHE", str(tmp_path / "file"))
    done = Attempt(old, plain, pictures())
    assert done.measured
    (note,) = done.notes
    assert note.startswith("ranges were not cached: cannot write")
