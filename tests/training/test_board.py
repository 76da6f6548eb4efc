"""TensorBoard's file: read back by TensorBoard, and loud where it cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edge_deeplab.imaging import decode_image
from edge_deeplab.training.board import Board


def written(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 2] = 200
    board = Board(tmp_path / "new" / "board", 1)
    board.scalar("train/loss", 0.5, 1)
    board.scalar("train/loss", 0.25, 2)
    board.image("val/samples", picture, 2)
    board.close()
    events = written(tmp_path / "new" / "board")
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    (image,) = events.Images("val/samples")
    assert (image.height, image.width) == (4, 6)
    assert (decode_image(image.encoded_image_string, "board")[0, 0] == (0, 0, 200)).all()


def test_steps_that_a_killed_run_did_are_void_once_they_are_done_again(tmp_path: Path) -> None:
    for first, value in ((1, 0.5), (3, 0.25)):
        board = Board(tmp_path, first)
        for step in range(first, 5):
            board.scalar("train/loss", value, step)
        board.close()
    assert [e.value for e in written(tmp_path).Scalars("train/loss")] == [0.5, 0.5, 0.25, 0.25]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 200 bytes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_at_once_and_to_the_caller(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    board = Board(tmp_path, 1)
    with full_disk():
        with pytest.raises(OSError, match="large"):
            for step in range(20):
                board.scalar("train/loss", 0.5, step)
        with pytest.raises(OSError, match="large"):
            board.close()
    board.close()
    assert not capfd.readouterr().err
