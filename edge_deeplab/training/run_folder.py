"""The folder of a run: what is in it and how it gets there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edge_deeplab import imaging
from edge_deeplab.errors import UserError, because
from edge_deeplab.files import read_bytes, write_text
from edge_deeplab.imaging import Frame
from edge_deeplab.training.board import Board
from edge_deeplab.training.config import TrainConfig
from edge_deeplab.training.config_file import write_config
from edge_deeplab.training.curves import draw_curves
from edge_deeplab.training.environment import environment, git_patch
from edge_deeplab.training.place import BEST, STATE


class RunFolder:
    """Writes a run's files. Only the first process of a run has one open; the others only know its paths.

    ``config.yaml`` (every setting), ``environment.json`` (versions, commit), ``changes.patch`` (where the
    checkout had changes), ``metrics.jsonl``, ``tensorboard/``, ``samples/``, ``curves.png``,
    ``best.safetensors`` and ``last.safetensors``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / STATE
        self.best = path / BEST
        self._log = path / "metrics.jsonl"
        self._board: Board | None = None

    def open(self, config: TrainConfig, step: int, processes: int) -> None:
        """Make the folder ready for the steps after ``step``."""
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.rglob(".part-*"):  # of a process killed while it wrote
            left.unlink(missing_ok=True)
        write_config(self.path / "config.yaml", config)
        write_text(self.path / "environment.json", json.dumps(environment(processes), indent=2))
        if patch := git_patch():
            write_text(self.path / "changes.patch", patch)
        self._drop_records_after(step)
        with self._writing():
            self._board = Board(self.path / "tensorboard", step + 1)

    def close(self) -> None:
        """Finish TensorBoard's file, as far as the disk lets it: what ended the run has been said already."""
        board, self._board = self._board, None
        if board is not None:
            with suppress(OSError):
                board.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write into {self.path}: {because(error)}; --resume once it can"
            ) from error

    def log(self, record: dict[str, Any], *, scalars: dict[str, float] | None = None) -> None:
        """Add a line to ``metrics.jsonl``, and ``scalars`` to TensorBoard at ``record["step"]``."""
        with self._writing():
            with self._log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            for tag, value in (scalars or {}).items():
                if self._board is not None and math.isfinite(value):
                    self._board.scalar(tag, value, record["step"])

    def picture(self, step: int, sheet: Frame) -> None:
        """Keep a picture (BGR) under ``samples/`` and in TensorBoard."""
        imaging.write_image(self.path / "samples" / f"{step:06d}.jpg", sheet)
        if self._board is not None:
            with self._writing():
                self._board.image("val/samples", sheet, step)

    def draw(self) -> None:
        """Draw ``curves.png`` anew from all records."""
        draw_curves(self.records(), self.path / "curves.png")

    def records(self) -> list[dict[str, Any]]:
        """All records so far."""
        if not self._log.exists() or not self._log.stat().st_size:
            return []
        lines = read_bytes(self._log).decode(errors="replace").splitlines()
        return [json.loads(line) for line in lines if _step_of(line) < math.inf]

    def _drop_records_after(self, step: int) -> None:
        """Drop records of steps that were lost with a kill and will be done again."""
        if self._log.exists():
            kept = [record for record in self.records() if record["step"] <= step]
            write_text(self._log, "".join(json.dumps(record) + "\n" for record in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut in half by a kill
