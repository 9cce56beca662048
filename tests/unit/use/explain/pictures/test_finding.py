"""describe: where relevance was put is what the clause says."""

import numpy as np
import pytest

from vitreous.use.explain.pictures.finding import describe, most_relevant
from vitreous.use.explain.pictures.geometry import View

SQUARE = View.of((90, 90), (90, 90), "squash")


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [(0, 0, "upper left"), (0, 4, "top"), (1, 8, "upper right"), (4, 4, "center"), (5, 0, "left"), (4, 7, "right"),
     (8, 1, "lower left"), (7, 4, "bottom"), (8, 8, "lower right")],
)  # fmt: skip
def test_place_of_the_relevance_is_named(row: int, column: int, place: str) -> None:
    values = np.ones((9, 9))
    values[row, column] = 80.0  # half of all relevance, and 7.1 other patches belong to the top 10%
    values[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] += 1
    assert describe(values, SQUARE, is_signed=False).startswith(f"most relevant: {place}, ")


def test_share_is_that_of_the_most_relevant_tenth() -> None:
    values = np.ones((10, 10))
    values[0, :] = 6.0  # 60 of 150
    said = describe(values, SQUARE, is_signed=False)
    assert said == "most relevant: upper third, 40% of the relevance in 10% of the area"


def test_tenth_of_few_patches_is_a_part_of_a_patch() -> None:
    values = np.array([[4.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(most_relevant(values, np.ones((2, 2))), [[0.4, 0], [0, 0]])
    assert "23% of the relevance in 10% of the area" in describe(values, SQUARE, is_signed=False)  # 0.4 * 4 / 7


def test_equal_values_are_evenly_spread() -> None:
    said = describe(np.full((6, 5), 0.3), SQUARE, is_signed=False)
    assert said == "evenly spread, 10% of the relevance in 10% of the area"


def test_relevance_in_three_places_is_in_several_places() -> None:
    values = np.zeros((10, 10))
    values[0, 0] = values[9, 9] = values[4, 4] = 1
    said = describe(values, SQUARE, is_signed=False)
    assert said == "most relevant: several places, 100% of the relevance in 10% of the area"


def test_a_place_without_the_highest_value_is_not_named() -> None:
    values = np.zeros((10, 10))
    values[0, 5] = 5
    values[9, :3] = values[9, 7:] = 4
    assert describe(values, SQUARE, is_signed=False).startswith("most relevant: several places, ")
    values[9, 4] = 6
    assert describe(values, SQUARE, is_signed=False).startswith("most relevant: lower third, ")


def test_only_what_raises_the_score_counts_for_signed_values() -> None:
    values = np.full((9, 9), -5.0)
    values[8, 8] = 1.0
    said = describe(values, SQUARE, is_signed=True)
    assert said == "most relevant: lower right, 100% of what raises the score in 10% of the area"
    assert describe(-np.abs(values), SQUARE, is_signed=True) == "no part of the photo raises the score"
    assert describe(np.zeros((3, 3)), SQUARE, is_signed=False) == "no part of the photo is relevant"


def test_cropped_photo_is_described_in_its_own_thirds() -> None:
    view = View.of((30, 90), (30, 30), "crop")  # the model sees the middle third
    values = np.zeros((9, 9))
    values[4, 0] = 1  # left in the input, in the center of the photo
    assert describe(values, view, is_signed=False).startswith("most relevant: center")


def test_relevance_in_the_padding_is_mentioned() -> None:
    view = View.of((30, 90), (90, 90), "pad")
    values = np.zeros((9, 9))
    values[0, 0], values[4, 4] = 1, 3
    said = describe(values, view, is_signed=False)
    assert said == "most relevant: center, 100% of the relevance in 10% of the area; 25% of all lies in the padding"


def test_values_that_are_not_finite_are_not_described_as_a_place() -> None:
    assert describe(np.array([[1.0, np.nan]]), SQUARE, is_signed=False) == "the values are not finite"
