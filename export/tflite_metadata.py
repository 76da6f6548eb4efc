"""What a TFLite file tells about itself: our contract, and the standard metadata other tools read.

The standard one (TFLITE_METADATA, metadata_schema.fbs of TensorFlow Lite Support and MediaPipe) names
input and output, gives mean and standard deviation, and refers to ``labels.txt``, a file packed behind the
model as a zip archive, as the format wants it. With it MediaPipe's ImageSegmenter, on Android too, runs a
file as it is. MediaPipe's package could write it, but brings an OpenCV that collides with ours.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_deeplab.errors import needs
from edge_deeplab.export.tflite_model import EXTRA, TfliteModel
from edge_deeplab.spec import METADATA_KEY, InputContract

STANDARD_KEY = "TFLITE_METADATA"
IDENTIFIER = b"M001"
SEGMENTER_KEY, SEGMENTER_IDENTIFIER = "SEGMENTER_METADATA", b"V001"
"""MediaPipe's own part: what its ImageSegmenter must do to the output to get probabilities."""

PARSER = "1.0.0"
"""Oldest parser that understands all that is written here."""

LABELS = "labels.txt"
IMAGE_PROPERTIES, NORMALIZATION_OPTIONS = 2, 1  # numbers in the schema's unions
RGB = 1
AXIS_LABELS, VALUE_LABELS = 2, 3
SIGMOID, SOFTMAX = 1, 2

OUTPUTS = {
    "logits": "one plane of logits per class",
    "logits-full": "one plane of logits per class, at input size",
    "probability": "one plane of probabilities per class",
    "classmap": "class ids, see labels.txt",
}


def describe(model: TfliteModel, contract: InputContract, names: tuple[str, str]) -> bytes:
    """Put contract and standard metadata into a model.

    Args:
        model: Changed in place.
        contract: As it shall stand in the file.
        names: Of input and output.

    Returns:
        The finished file.
    """
    model.model.description = f"{contract.name}: {contract.variant}, {contract.precision}, edge-deeplab"
    model.rename(*names)
    model.add_metadata(METADATA_KEY, contract.to_json().encode())
    model.add_metadata(STANDARD_KEY, standard(contract, names))
    return _with_files(model.to_bytes(), {LABELS: "".join(f"{c.name}\n" for c in contract.classes)})


def _with_files(model: bytes, files: dict[str, str]) -> bytes:
    """A zip archive behind the model, uncompressed, the same bytes every time."""
    memory = io.BytesIO(model)
    with zipfile.ZipFile(memory, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return memory.getvalue()


def standard(contract: InputContract, names: tuple[str, str]) -> bytes:
    """The TFLITE_METADATA flatbuffer."""
    with needs(EXTRA):
        import flatbuffers
    write = _Writer(flatbuffers.Builder(1024))
    binary = contract.binary and contract.head != "classmap"
    what = f"logit of {contract.classes[1].name}" if binary else OUTPUTS[contract.head]
    if binary and contract.head == "probability":
        what = f"probability of {contract.classes[1].name}"
    low, high = ((v - contract.mean[0]) / contract.std[0] for v in (0, 255))
    content = write.table({0: _Byte(IMAGE_PROPERTIES), 1: write.table({0: _Byte(RGB)})})
    scaling = write.table({0: write.floats(contract.mean), 1: write.floats(contract.std)})
    unit = write.table({0: _Byte(NORMALIZATION_OPTIONS), 1: scaling})
    given: dict[int, int | _Byte] = {
        0: write.text(names[0]),
        1: write.text(
            f"{contract.channels} picture, {contract.resize} to {contract.height}x{contract.width}"
        ),
        3: content,
        4: write.tables([unit]),
        5: write.table({0: write.floats([high] * 3), 1: write.floats([low] * 3)}),
    }
    answered: dict[int, int | _Byte] = {0: write.text(names[1]), 1: write.text(what)}
    if not binary:
        kind = VALUE_LABELS if contract.head == "classmap" else AXIS_LABELS
        labels: dict[int, int | _Byte] = {0: write.text(LABELS), 1: write.text("class names"), 2: _Byte(kind)}
        answered[6] = write.tables([write.table(labels)])
    tensors = {2: write.tables([write.table(given)]), 3: write.tables([write.table(answered)])}
    subgraph = write.table({**tensors, **_activation(write, contract)})
    whole: dict[int, int | _Byte] = {
        0: write.text(contract.name),
        1: write.text(f"{contract.variant}, {len(contract.classes)} classes, {contract.precision}"),
        3: write.tables([subgraph]),
        5: write.text(contract.provenance.license),
        6: write.tables([write.table({0: write.text(LABELS), 1: write.text("class names, by id")})]),
        7: write.text(PARSER),
    }
    write.builder.Finish(write.table(whole), IDENTIFIER)
    return bytes(write.builder.Output())


def _activation(write: _Writer, contract: InputContract) -> dict[int, int | _Byte]:
    """The subgraph's custom metadata: nothing where the output needs no activation."""
    if contract.head not in ("logits", "logits-full"):
        return {}
    inner = _Writer(type(write.builder)(64))
    kind = SIGMOID if contract.binary else SOFTMAX
    inner.builder.Finish(inner.table({0: _Byte(kind)}), SEGMENTER_IDENTIFIER)
    data = write.blob(bytes(inner.builder.Output()))
    return {9: write.tables([write.table({0: write.text(SEGMENTER_KEY), 1: data})])}


@dataclass(frozen=True)
class _Byte:
    """A value that stands in the table itself; everything else is an offset."""

    value: int


class _Writer:
    """FlatBuffers by slot number; children are written before the tables that refer to them."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def table(self, fields: dict[int, int | _Byte]) -> int:
        self.builder.StartObject(max(fields) + 1)
        for slot, field in fields.items():
            if isinstance(field, _Byte):
                self.builder.PrependInt8Slot(slot, field.value, 0)
            else:
                self.builder.PrependUOffsetTRelativeSlot(slot, field, 0)
        return int(self.builder.EndObject())

    def text(self, value: str) -> int:
        return int(self.builder.CreateString(value))

    def blob(self, value: bytes) -> int:
        return int(self.builder.CreateByteVector(value))

    def floats(self, values: Sequence[float]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return int(self.builder.EndVector())

    def tables(self, places: Sequence[int]) -> int:
        self.builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self.builder.PrependUOffsetTRelative(place)
        return int(self.builder.EndVector())
