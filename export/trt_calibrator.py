"""TensorRT's own INT8 calibrators, entropy and min-max: they exist up to TensorRT 10.

The route that works in every version is a Q/DQ graph (``--prepare --int8``), whose ranges were measured
and verified before TensorRT sees it. A calibrator is for who wants TensorRT's own ranges, and for DLAs,
which take no others up to TensorRT 10.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_deeplab.errors import UserError
from edge_deeplab.export.base import Progress
from edge_deeplab.export.calibration import Calibration, own_versions
from edge_deeplab.export.trt_builder import Api, Note
from edge_deeplab.files import cache_folder, read_bytes, write_bytes
from edge_deeplab.runtimes.cuda_device import Device
from edge_deeplab.spec import InputContract

TrtMethod = Literal["entropy", "minmax"]

_MARK = b"edge-deeplab calibration cache\n"


def cache_path(question: dict[str, Any]) -> Path:
    """Where the ranges that answer exactly this question are kept."""
    text = json.dumps(question, sort_keys=True)
    return cache_folder() / "trt" / f"{hashlib.sha256(text.encode()).hexdigest()}.calibration"


def question(
    api: Api, method: TrtMethod, calibration: Calibration, contract: InputContract, graph: str, device: Device
) -> dict[str, Any]:
    """Everything that TensorRT's ranges depend on; they differ between GPUs and versions.

    Args:
        api: TensorRT.
        method: Which calibrator.
        calibration: The pictures.
        contract: Of the model.
        graph: SHA-256 of the prepared graph, weights included.
        device: The GPU.
    """
    names = ("height", "width", "resize", "channels", "mean", "std", "layout", "dtype")
    return {
        "tensorrt": api.trt.__version__,
        "gpu": [device.name, list(device.capability)],
        "method": method,
        "graph": graph,
        "input": {name: getattr(contract, name) for name in names},
        "pictures": calibration.sha256,
        "tools": own_versions(),
    }


def make_calibrator(
    api: Api,
    method: TrtMethod,
    calibration: Calibration,
    contract: InputContract,
    *,
    graph: str,
    device: Device,
    progress: Progress,
    note: Note,
) -> Any:
    """An object that TensorRT asks for pictures while it builds.

    Its ``failure`` holds what went wrong in it: an exception thrown into TensorRT would only end the
    calibration early, with ranges from the pictures so far. Arguments: see :func:`question`; ``note`` is
    told of a cache that cannot be read or written.
    """
    path = cache_path(question(api, method, calibration, contract, graph, device))
    base = api.calibrator_class(method)

    class Calibrator(base):  # type: ignore[misc, valid-type]
        """One picture at a time through one buffer."""

        def __init__(self) -> None:
            base.__init__(self)
            self.failure: BaseException | None = None
            self.cached = False
            self._tensors: Iterator[NDArray[Any]] | None = None
            self._buffer: Any = None

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            """Address of the next picture on the GPU; None when there are no more."""
            try:
                if self._tensors is None:
                    tensors = calibration.tensors(contract)
                    self._tensors = iter(progress(tensors, "calibrating"))
                tensor = next(self._tensors, None)
                if tensor is None:
                    return None
                if self._buffer is None:
                    self._buffer = device.buffer(tensor.shape, np.dtype(tensor.dtype))
                self._buffer.host[:] = tensor
                device.upload(self._buffer, 1)
                device.synchronize()
            except BaseException as error:  # noqa: BLE001  # told after the build; C++ would swallow it
                self.failure = error
                return None
            return [self._buffer.pointer]

        def read_calibration_cache(self) -> bytes | None:
            """The ranges of an earlier build that asked the same question."""
            try:
                ranges = _read(path, note)
            except BaseException as error:  # noqa: BLE001  # as above
                self.failure = error
                return None
            self.cached = ranges is not None
            return ranges

        def write_calibration_cache(self, cache: Any) -> None:
            if self.failure is not None:
                return  # ranges of some of the pictures
            try:
                ranges = bytes(cache)
                write_bytes(path, _MARK + hashlib.sha256(ranges).hexdigest().encode() + b"\n" + ranges)
            except UserError as error:
                note(f"ranges were not cached: {error}")
            except BaseException as error:  # noqa: BLE001  # as above
                self.failure = error

    return Calibrator()


def _read(path: Path, note: Note) -> bytes | None:
    if not path.is_file():
        return None
    try:
        mark, stated, ranges = read_bytes(path).split(b"\n", 2)
        whole = mark + b"\n" == _MARK and stated.decode() == hashlib.sha256(ranges).hexdigest()
    except (ValueError, UserError):
        whole = False
    if not whole:
        note(f"the calibration cache {path} is damaged; measured anew")
        return None
    return ranges


def record(calibration: Calibration, method: TrtMethod) -> dict[str, Any]:
    """For the engine's sidecar: what the ranges were measured on."""
    return {
        "calibrator": method,
        "pictures": len(calibration.pictures),
        "source": calibration.source,
        "sha256": calibration.sha256,
        "files": [picture.name for picture in calibration.pictures],
    }
