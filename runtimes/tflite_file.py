"""Read what a TFLite file says about itself: its metadata, without a TFLite library.

Neither LiteRT's nor tflite-runtime's Python interface gives metadata away, so the few tables of the
format that lead to it are read here (schema.fbs of TensorFlow Lite, version 3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edge_deeplab.errors import UserError

IDENTIFIER = b"TFL3"

# Positions of fields in their tables; FlatBuffers counts them in the order of the schema.
MODEL_BUFFERS, MODEL_METADATA = 4, 6
METADATA_NAME, METADATA_BUFFER = 0, 1
BUFFER_DATA, BUFFER_OFFSET, BUFFER_SIZE = 0, 1, 2


def metadata(data: bytes, *, source: str) -> dict[str, bytes]:
    """The named metadata buffers of a TFLite file.

    Args:
        data: The whole file.
        source: Its name, for messages.

    Raises:
        UserError: No TFLite file, or damaged.
    """
    if data[4:8] != IDENTIFIER:
        raise UserError(f"{source} is damaged or no TFLite model: it does not begin as one")
    try:
        file = _File(data)
        model = file.offset(0)
        buffers = list(file.tables(model, MODEL_BUFFERS))
        found = {}
        for entry in file.tables(model, MODEL_METADATA):
            name = file.blob(entry, METADATA_NAME).decode()
            found[name] = file.buffer(buffers[file.number(entry, METADATA_BUFFER, "<I")])
        return found
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise UserError(
            f"{source} is damaged or no TFLite model: cut short, or changed; copy or download it again"
        ) from error


class _File:
    """FlatBuffers: a table begins with the distance to its list of field positions."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, form: str, at: int) -> int:
        if at < 0:
            raise IndexError("a position lies before the file")
        value: int = struct.unpack_from(form, self.data, at)[0]
        return value

    def offset(self, at: int) -> int:
        return at + self.read("<I", at)

    def field(self, table: int, slot: int) -> int | None:
        """Where a field stands; None: it is left out and has its default."""
        fields = table - self.read("<i", table)
        entry = 4 + 2 * slot
        distance = self.read("<H", fields + entry) if entry < self.read("<H", fields) else 0
        return table + distance if distance else None

    def number(self, table: int, slot: int, form: str) -> int:
        at = self.field(table, slot)
        return 0 if at is None else self.read(form, at)

    def blob(self, table: int, slot: int) -> bytes:
        """A string or a vector of bytes."""
        at = self.field(table, slot)
        if at is None:
            return b""
        start = self.offset(at)
        return self.slice(start + 4, self.read("<I", start))

    def tables(self, table: int, slot: int) -> Iterator[int]:
        """The tables of a vector."""
        at = self.field(table, slot)
        if at is not None:
            start = self.offset(at)
            for index in range(self.read("<I", start)):
                yield self.offset(start + 4 + 4 * index)

    def buffer(self, table: int) -> bytes:
        """A buffer's bytes, wherever they are: writers of large files put them behind the tables."""
        offset = self.number(table, BUFFER_OFFSET, "<Q")
        if offset > 1:  # 1 stands for "not yet placed"
            return self.slice(offset, self.number(table, BUFFER_SIZE, "<Q"))
        return self.blob(table, BUFFER_DATA)

    def slice(self, start: int, size: int) -> bytes:
        if start + size > len(self.data):
            raise IndexError("a part ends behind the file")
        return self.data[start : start + size]
