"""Files as the authors of data sets write them: photos, gray and palette masks, cut-outs."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

SIZE = (48, 64)


class Make:
    """Writes small files of a data set; folders are made as needed."""

    size = SIZE

    def photo(self, path: Path, size: tuple[int, int] = SIZE) -> Path:
        """A photo that depends on its file name only, unlike any other's."""
        noise = np.random.default_rng(zlib.crc32(path.stem.encode())).integers(0, 256, (6, 8, 3))
        image = cv2.resize(noise.astype(np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
        return self.gray(path, image)

    def gray(self, path: Path, pixels: Any) -> Path:
        """A picture with the pixels as they are: (H, W), BGR or BGRA."""
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.asarray(pixels, np.uint8))
        return path

    def ids(self, *values: int) -> Any:
        """Labels of the usual size in vertical stripes, uint8 (48, 64)."""
        return np.repeat(np.resize(np.array(values, np.uint8), 64)[None], 48, axis=0)

    def palette(
        self,
        path: Path,
        ids: Any,
        colors: Sequence[tuple[int, int, int]],
        depth: int = 8,
        line_filter: int = 0,
    ) -> Path:
        """A palette PNG: indices ``ids`` (H, W) at ``depth`` bits, lines under PNG filter 0 to 2."""
        ids = np.asarray(ids, np.uint8)
        bits = np.unpackbits(ids[..., None], axis=2)[..., 8 - depth :].reshape(len(ids), -1)
        lines = np.packbits(bits, axis=1)
        stored = lines.copy()
        if line_filter == 1:
            stored[:, 1:] -= lines[:, :-1]
        elif line_filter == 2:
            stored[1:] -= lines[:-1]
        body = b"".join(bytes([line_filter]) + line.tobytes() for line in stored)
        header = (
            ids.shape[1].to_bytes(4, "big") + ids.shape[0].to_bytes(4, "big") + bytes([depth, 3, 0, 0, 0])
        )
        chunks = [
            (b"IHDR", header),
            (b"PLTE", bytes(value for color in colors for value in color)),
            (b"tRNS", b"\0"),
            (b"IDAT", zlib.compress(body)[:20]),
            (b"IDAT", zlib.compress(body)[20:]),
            (b"IEND", b""),
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            for kind, content in chunks:
                check = zlib.crc32(kind + content).to_bytes(4, "big")
                file.write(len(content).to_bytes(4, "big") + kind + content + check)
        return path

    def text(self, path: Path, text: str) -> Path:
        """A text file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def json(self, path: Path, record: Any) -> Path:
        """A JSON file."""
        return self.text(path, json.dumps(record))


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()
