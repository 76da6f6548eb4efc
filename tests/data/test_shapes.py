"""Polygons and run lengths. The compressed strings were written by pycocotools 2.0.11."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_deeplab.data.shapes import fill_polygon, mask_from_counts, unpack_counts

ELLIPSE = """
...........#
....#####...
...#######..
..########..
..#########.
...########.
....######..
.....####...
#..........."""
PACKED = "81<1J2N2O1O000001N3MMO5"

# Counts above 31, negative differences, 120x90: a disc and a bar.
DISC = (
    ":2f3000000000jMOe01SO?e0AXOe0e0[OXOk0e0UOYOo0e0QOYOS1e0mNZOU1e0kNYOY1e0gNZO[1e0eNZO]1e0cNZO_1e0aNZOa1e0_NZO"
    "c1e0]NZOe1e0[NZOg1e0YN[Og1e0YNZOi1e0WNZOk1e0UN[Ok1e0UNZOm1e0SN[Om1e0SNZOo1e0QN[Oo1e0QN[Oo1e0QNZOQ2e0oM[OQ2"
    "e0oM[OQ2e0oMZOS2e0mM[OS2e0mM[OS2e0mM[OS2e0mM[OS2e0mM[OS2e0mM[OS2e0mM[OS2e0mMZOU2e0kM\\OS2e0mM[OS2e0mM[OS2e0"
    "mM[OS2e0mM[OS2e0mM[OS2e0mM[OS2e0mM[OS2e0mM\\OQ2e0oM[OQ2e0oM[OQ2e0oM\\Oo1e0QN[Oo1e0QN[Oo1e0QN\\Om1e0SN[Om1e0"
    "SN\\Ok1e0UN[Ok1e0UN\\Oi1e0WN\\Og1e0YN[Og1e0YN\\Oe1e0[N\\Oc1e0]N\\Oa1e0_N\\O_1e0aN\\O]1e0cN\\O[1e0eN\\OY1e0g"
    "N]OU1e0kN\\OS1e0mN]Oo0e0QO]Ok0e0UO^Oe0e0[O^O?e0ACOe01a10000000000000000000000000F"
)


def drawn(text: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in text.split()], np.uint8)


def test_a_compressed_string() -> None:
    mask = mask_from_counts(unpack_counts(PACKED), 9, 12)
    np.testing.assert_array_equal(mask, drawn(ELLIPSE))


def test_a_longer_compressed_string() -> None:
    expected = np.zeros((120, 90), np.uint8)
    cv2.circle(expected, (40, 60), 35, 1, -1)
    expected[10:12] = 1
    np.testing.assert_array_equal(mask_from_counts(unpack_counts(DISC), 120, 90), expected)


def test_run_lengths_go_down_the_columns() -> None:
    np.testing.assert_array_equal(mask_from_counts([1, 2, 3], 2, 3), [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("counts", [[1, 2], [5, 2], [-1, 7], []])
def test_runs_that_do_not_fill_the_picture(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="run lengths do not add up to 3x2 pixels"):
        mask_from_counts(counts, 2, 3)


@pytest.mark.parametrize("text", ["", "P", "a b", "\x7f", "PPPPPPPPPPPPP0"])
def test_no_compressed_string(text: str) -> None:
    with pytest.raises(ValueError, match="run"):
        unpack_counts(text)


def test_a_rectangle_covers_its_pixels() -> None:
    mask = np.zeros((6, 8), np.uint8)
    fill_polygon(mask, np.array([[1, 2], [5, 2], [5, 4], [1, 4]], np.float32), 7)
    expected = np.zeros((6, 8), np.uint8)
    expected[2:4, 1:5] = 7
    np.testing.assert_array_equal(mask, expected)


def test_area_is_that_of_the_polygon() -> None:
    """Not half a pixel more all round, as OpenCV's own filling has it."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([50 + 30 * np.cos(angles), 40 + 20 * np.sin(angles)], axis=1).astype(np.float32)
    mask = np.zeros((80, 100), np.uint8)
    fill_polygon(mask, points, 1)
    assert mask.sum() == pytest.approx(cv2.contourArea(points), rel=0.02)


def test_a_polygon_over_the_edge() -> None:
    mask = np.zeros((10, 10), np.uint8)
    fill_polygon(mask, np.array([[-5, -5], [4, -5], [4, 30], [-5, 30]], np.float32), 1)
    np.testing.assert_array_equal(mask[:, :4], 1)
    np.testing.assert_array_equal(mask[:, 4:], 0)
    fill_polygon(mask, np.array([[20, 20], [30, 20], [30, 30]], np.float32), 1)
    assert mask.sum() == 40
