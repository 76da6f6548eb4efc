"""The input contract: what goes into a model, what comes out, and where the model came from.

One frozen record travels inside every checkpoint and artefact and is the only source that the
shared processing in :mod:`edge_deeplab.imaging` reads. Nothing is ever guessed from pixel values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from edge_deeplab.errors import UserError

METADATA_KEY = "edge_deeplab.contract"
"""Key under which the contract's JSON stands in ONNX metadata and safetensors headers."""

FORMAT = 1
"""Version of the record. A reader refuses a newer one instead of misreading it."""

Resize = Literal["stretch", "letterbox"]
Channels = Literal["RGB", "BGR"]
Layout = Literal["NCHW", "NHWC"]
InputDType = Literal["float32", "uint8", "int8"]
Head = Literal["logits", "logits-full", "classmap", "probability"]


class ContractError(UserError):
    """A contract is missing, damaged or of a newer format."""


@dataclass(frozen=True)
class ClassInfo:
    """One class: its name and its palette colour, RGB 0..255."""

    name: str
    color: tuple[int, int, int]


def mirrored_ids(classes: Sequence[ClassInfo]) -> tuple[int, ...]:
    """What each class id becomes in a mirrored picture: a ``left brow`` is a ``right brow`` there.

    Names tell: classes that differ in the words left and right alone change places, all others stay.
    """
    names = [info.name.lower() for info in classes]
    others = [_SIDE.sub(lambda side: "right" if side[0] == "left" else "left", name) for name in names]
    return tuple(names.index(other) if other in names else own for own, other in enumerate(others))


_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])")


@dataclass(frozen=True)
class Provenance:
    """Where the weights came from.

    Attributes:
        data: Data sets trained on, one line each with the licence.
        license: What the weights may be used for.
        commit: Git commit of the training code; ``+dirty`` when the tree had changes.
        date: ISO date of the training run.
        weights_sha256: SHA-256 over the tensors (see ``models.checkpoint.fingerprint``).
    """

    data: tuple[str, ...] = ()
    license: str = ""
    commit: str = ""
    date: str = ""
    weights_sha256: str = ""


@dataclass(frozen=True)
class Quantization:
    """How an INT8 artefact was made.

    Attributes:
        scheme: ``u8s8``: activations uint8, weights int8; ``s8s8``: both int8; ``w8``: weights int8 only.
        method: How ranges follow from the calibration pictures: ``minmax``, ``entropy``, ``percentile``;
            ``dynamic``: from every picture anew, at run time.
        pictures: How many there were; 0 where nothing was calibrated (``int8-dynamic``).
        source: Where they came from.
        sha256: Hash over their names and contents, in order.
        float_layers: Layers that were left in float.
    """

    scheme: str
    method: str
    pictures: int
    source: str
    sha256: str
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class InputContract:
    """What a segmentation model expects and what it answers.

    Attributes:
        name: Name of the model, e.g. ``portrait``.
        variant: Architecture, a name from ``edge-deeplab models``.
        height, width: Input size in pixels. For an artefact with dynamic size: the default size.
        resize: ``stretch`` fills the input, ``letterbox`` keeps the aspect ratio and pads with
            ``mean``.
        channels: Channel order of the input tensor.
        mean, std: The tensor is ``(pixel - mean) / std``. 128 and 128 make an int8 input of scale
            1/128 the camera's bytes themselves. Integer inputs take the pixels and scale them in the
            graph: ``uint8`` as they are, ``int8`` less 128.
        layout, dtype: Of the input tensor.
        classes: Index in this tuple = class id in the label map.
        head: What the output tensor holds: ``logits`` at ``head_stride``, ``logits-full`` at input
            size, ``classmap`` (uint8 ids at input size) or ``probability`` (at ``head_stride``).
        head_stride: Input pixels per output pixel.
        threshold: Binary models: probability from which a pixel is foreground.
        precision: ``fp32``, ``fp16``, ``int8`` …
        dynamic: Axes of the artefact that may change: any of ``batch``, ``height``, ``width``.
        provenance: Data, commit, date, hash of the weights.
        metrics: Measured figures, e.g. ``{"eg/val iou": 0.97}``.
        quantization: How an INT8 artefact was made; None for float models.
    """

    name: str
    variant: str
    height: int
    width: int
    classes: tuple[ClassInfo, ...]
    resize: Resize = "stretch"
    channels: Channels = "RGB"
    mean: tuple[float, float, float] = (128.0, 128.0, 128.0)
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)
    layout: Layout = "NCHW"
    dtype: InputDType = "float32"
    head: Head = "logits"
    head_stride: int = 4
    threshold: float = 0.5
    precision: str = "fp32"
    dynamic: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    metrics: Mapping[str, float] = field(default_factory=dict)
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        problems = [
            ("height and width must be at least 1", self.height < 1 or self.width < 1),
            ("at least two classes are needed", len(self.classes) < 2),
            ("at most 256 classes fit a uint8 label map", len(self.classes) > 256),
            ("threshold must lie between 0 and 1", not 0 < self.threshold < 1),
            ("std must not be 0", not all(self.std)),
            ("mean and std need three values", len(self.mean) != 3 or len(self.std) != 3),
            ("mean and std must be finite", not all(map(math.isfinite, (*self.mean, *self.std)))),
            (
                f"dynamic axes are batch, height and width, not {', '.join(self.dynamic)}",
                not set(self.dynamic) <= {"batch", "height", "width"},
            ),
            (
                "a class color is three numbers, 0..255",
                any(len(c.color) != 3 or not all(0 <= v <= 255 for v in c.color) for c in self.classes),
            ),
            ("head_stride must be at least 1", self.head_stride < 1),
            *(
                (
                    f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}",
                    value not in get_args(kind),
                )
                for name, kind, value in (
                    ("resize", Resize, self.resize),
                    ("channels", Channels, self.channels),
                    ("layout", Layout, self.layout),
                    ("dtype", InputDType, self.dtype),
                    ("head", Head, self.head),
                )
            ),
        ]
        for message, wrong in problems:
            if wrong:
                raise ContractError(f"input contract of {self.name!r}: {message}")

    @property
    def binary(self) -> bool:
        """Two classes, one logit: foreground where its sigmoid reaches ``threshold``."""
        return len(self.classes) == 2

    @property
    def output_channels(self) -> int:
        """Channels of a logits or probability head: 1 for binary models, else one per class."""
        return 1 if self.binary else len(self.classes)

    @property
    def logit_threshold(self) -> float:
        """The threshold on the logit that equals ``threshold`` on the probability."""
        return math.log(self.threshold / (1 - self.threshold))

    def replace(self, **changes: Any) -> InputContract:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self, *, indent: int | None = None) -> str:
        """The record as JSON, its format number first, its checksum last."""
        record = {"format": FORMAT, **dataclasses.asdict(self), "metrics": dict(self.metrics)}
        if self.quantization is None:
            del record["quantization"]
        return json.dumps({**record, "sha256": _checksum(record)}, indent=indent, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, source: str = "the contract") -> InputContract:
        """Read a record back.

        Raises:
            ContractError: Not JSON, a newer format, a missing or an unknown field, no checksum, or changed
                since it was written: another mean or threshold would make a model worse without a word.
        """
        try:
            record = json.loads(text)
            written = record.pop("sha256", None)
            changed = written != _checksum(record)
            number = record.pop("format")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ContractError(f"{source} holds a damaged input contract: {error}") from error
        if number != FORMAT:
            raise ContractError(
                f"{source} has an input contract of format {number}, this version reads {FORMAT}; "
                "cure: pip install -U edge-deeplab"
            )
        try:
            quantization = record.setdefault("quantization", None)
            if quantization is not None:
                _complete(quantization, Quantization)
                layers = tuple(quantization["float_layers"])
                record["quantization"] = Quantization(**{**quantization, "float_layers": layers})
            _complete(record, cls)
            _complete(record["provenance"], Provenance)
            record["classes"] = tuple(ClassInfo(str(c["name"]), _rgb(c["color"])) for c in record["classes"])
            record["provenance"] = Provenance(
                **{**record["provenance"], "data": tuple(record["provenance"]["data"])}
            )
            record["metrics"] = {str(k): float(v) for k, v in record["metrics"].items()}
            for key in ("mean", "std", "dynamic"):
                record[key] = tuple(record[key])
            contract = cls(**record)
        except ContractError as error:
            raise ContractError(f"{source}: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ContractError(f"{source} holds a damaged input contract: {error}") from error
        if changed:
            what = "was changed after it was written" if written else "has lost its checksum"
            raise ContractError(f"{source}: its input contract {what}; export or copy it again")
        return contract


def _checksum(record: dict[str, Any]) -> str:
    """SHA-256 of a record without its checksum, in whatever order and spacing it was stored."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _complete(record: Any, kind: type) -> None:
    """Every field must be written: a default filled in by a reader would be a guess."""
    missing = {f.name for f in dataclasses.fields(kind)} - set(record)
    if missing:
        raise KeyError(f"no {', '.join(sorted(missing))}")


def _rgb(values: Any) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in values)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise ValueError(f"color {values} is not RGB 0..255")
    return red, green, blue


PERSON_CLASSES = (ClassInfo("background", (0, 0, 0)), ClassInfo("person", (0, 158, 115)))
"""The two classes of the portrait models; bluish green from the Okabe-Ito colour-blind-safe set."""
