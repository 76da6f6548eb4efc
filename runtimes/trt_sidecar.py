"""The JSON beside an engine: what it was built with and for, checked before TensorRT reads a byte of it.

An engine is machine code for one GPU and one TensorRT; TensorRT's own refusal is a null pointer and a
line of C++ in the log, or a crash. So the file beside it says what it needs, and this module compares.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from edge_deeplab.errors import UserError
from edge_deeplab.files import read_bytes, write_text
from edge_deeplab.spec import InputContract

FORMAT = 1
"""Version of the record. A reader refuses a newer one instead of misreading it."""

Hardware = Literal["same-gpu", "same-compute-capability", "ampere-plus"]
"""GPUs an engine runs on: the kind it was built on; all of that compute capability; Ampere and newer."""

OLDER_MAJOR_READABLE = {(8, 10), (10, 11)}
"""(built by, read by): the pairs of major versions between which version-compatible engines are supported
(TensorRT 11.4 support matrix, "Engine Portability")."""


class SidecarError(UserError):
    """The sidecar is missing, damaged or was changed, or the engine is not the one it describes."""


class HostError(UserError):
    """The engine is whole, but was built for another TensorRT or another GPU."""


@dataclass(frozen=True)
class Sidecar:
    """What an engine was built with and for.

    Attributes:
        engine_sha256: Of the engine file.
        prepared_sha256: Of the ONNX file it was built from.
        tensorrt: Version that built it.
        compute_capability: Of the GPU it was built on, e.g. ``8.7``; ``gpu`` is its name.
        hardware: GPUs it runs on.
        version_compatible: Whether later TensorRT versions can read it.
        dla_core: DLA core it was built for; None: the GPU alone.
        batch: Smallest, best and largest batch.
        contract: What goes in, what comes out.
        build: What else went into it, for people: flags, calibration, libraries.
    """

    engine_sha256: str
    prepared_sha256: str
    tensorrt: str
    compute_capability: str
    gpu: str
    hardware: Hardware
    version_compatible: bool
    dla_core: int | None
    batch: tuple[int, int, int]
    contract: InputContract
    build: Mapping[str, Any] = field(default_factory=dict)

    def check_host(
        self, path: str | Path, *, tensorrt: str, capability: tuple[int, int], gpu: str
    ) -> list[str]:
        """Compare with the TensorRT and the GPU at hand.

        Args:
            path: The engine, for messages.
            tensorrt: Version at hand.
            capability: Compute capability at hand.
            gpu: Its name.

        Returns:
            Doubts, a line each: it may run slower than one built here.

        Raises:
            HostError: It cannot run here.
        """
        if not self._reads(tensorrt):
            raise HostError(
                f"{path} was built by TensorRT {self.tensorrt}, here is {tensorrt}: an engine "
                + (
                    "with --version-compatible runs under later versions only, "
                    "and across major versions from 8 to 10 and from 10 to 11"
                    if self.version_compatible
                    else "runs under the version that built it"
                )
                + "; cure: build it again here from its prepared ONNX file"
            )
        here = f"{capability[0]}.{capability[1]}"
        built = f"{self.gpu} (compute capability {self.compute_capability})"
        ampere_plus = self.hardware == "ampere-plus"
        runs = capability >= (8, 0) if ampere_plus else here == self.compute_capability
        if not runs:
            raise HostError(
                f"{path} was built on {built} for {_for_people(self.hardware)}, here is {gpu} "
                f"(compute capability {here}); cure: build it again here from its prepared ONNX file"
            )
        if self.hardware == "same-gpu" and gpu != self.gpu:
            return [f"{path} was built on {built}, here is {gpu}: one built here may be faster"]
        return []

    def _reads(self, tensorrt: str) -> bool:
        built, here = version_of(self.tensorrt), version_of(tensorrt)
        if not self.version_compatible:
            # Some packages leave the build number away: 10.3.0 and 10.3.0.30 are the same release.
            shared = min(len(built), len(here))
            return built[:shared] == here[:shared]
        if built[0] == here[0]:
            return here[:3] >= built[:3]
        return (built[0], here[0]) in OLDER_MAJOR_READABLE

    def to_json(self) -> str:
        """The record, with a hash over all of it at its end."""
        record = {
            "format": FORMAT,
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "batch": list(self.batch),
            "build": dict(self.build),
            "contract": json.loads(self.contract.to_json()),
        }
        return json.dumps({**record, "sha256": _digest(record)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Sidecar:
        """Read a record back.

        Raises:
            SidecarError: Damaged, changed since it was written, or of a newer format.
        """
        try:
            record = json.loads(text)
            stated = record.pop("sha256")
            number = record.pop("format")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise SidecarError(f"{source} is damaged: it is no sidecar of an engine; {AGAIN}") from error
        if number != FORMAT:
            raise SidecarError(
                f"{source} has format {number}, this version reads {FORMAT}; "
                "cure: pip install -U edge-deeplab"
            )
        if stated != _digest({"format": number, **record}):
            raise SidecarError(f"{source} was changed after it was written, or is damaged; {AGAIN}")
        try:
            contract = InputContract.from_json(json.dumps(record.pop("contract")), source=source)
            smallest, best, largest = (int(n) for n in record.pop("batch"))
            if record["hardware"] not in get_args(Hardware):
                raise ValueError(f"hardware {record['hardware']!r}")
            version_of(record["tensorrt"])
            return cls(contract=contract, batch=(smallest, best, largest), **record)
        except (KeyError, TypeError, ValueError) as error:
            raise SidecarError(f"{source} is damaged: {error}; {AGAIN}") from error


AGAIN = "cure: copy engine and sidecar together, or build the engine again"


def sidecar_path(engine: str | Path) -> Path:
    """``x.engine`` -> ``x.engine.json``."""
    return Path(f"{engine}.json")


def write_sidecar(engine: str | Path, sidecar: Sidecar) -> None:
    """Write the record beside the engine, whole or not at all."""
    write_text(sidecar_path(engine), sidecar.to_json() + "\n")


def read_engine(path: str | Path) -> tuple[bytes, Sidecar]:
    """An engine's bytes and its record, when they belong together. Needs neither TensorRT nor a GPU.

    Raises:
        UserError: One of the two is missing, empty, damaged or changed, or they do not belong together.
    """
    data = read_bytes(path)
    beside = sidecar_path(path)
    if not beside.is_file():
        raise SidecarError(
            f"{path} has no {beside.name} beside it, so a damaged or foreign engine cannot be told from a "
            f"good one; {AGAIN}"
        )
    text = read_bytes(beside).decode("utf-8", errors="replace")
    sidecar = Sidecar.from_json(text, source=str(beside))
    if hashlib.sha256(data).hexdigest() != sidecar.engine_sha256:
        raise SidecarError(f"{path} is damaged or not the engine that {beside.name} describes; {AGAIN}")
    return data, sidecar


def version_of(text: str) -> tuple[int, ...]:
    """``10.3.0.30`` -> (10, 3, 0, 30); ``8.6.1.post1`` -> (8, 6, 1).

    Raises:
        ValueError: No version of that kind.
    """
    found = re.match(r"\d+\.\d+\.\d+(\.\d+)?", text)
    if found is None:
        raise ValueError(f"{text!r} is no version of TensorRT")
    return tuple(int(part) for part in found[0].split("."))


def _for_people(hardware: Hardware) -> str:
    return {
        "same-gpu": "that kind of GPU",
        "same-compute-capability": "GPUs of that compute capability",
        "ampere-plus": "Ampere GPUs and newer (8.0 and up)",
    }[hardware]


def _digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of the record in one fixed spelling."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
