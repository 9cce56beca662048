"""A place is reported if its pixels give a class to other images more often than objects do."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from vitreous.use.explain.shortcuts import (
    MAX_CHANCE,
    MAX_P_VALUE,
    MIN_IMAGES,
    Shortcuts,
    classes_to_check,
    find_shortcuts,
    places_near_border,
)  # fmt: skip

ROWS, COLUMNS, PER_CLASS = 8, 12, 40
CLASSES = ("cat", "dog", "two words")
PREDICTED = np.repeat(np.arange(3), PER_CLASS)
PLACES = places_near_border(ROWS, COLUMNS)
SLICES = {
    "upper left corner": np.s_[:2, :3],
    "upper right corner": np.s_[:2, 9:],
    "lower left corner": np.s_[6:, :3],
    "lower right corner": np.s_[6:, 9:],
    "upper edge": np.s_[:1, :],
    "lower edge": np.s_[7:, :],
    "left edge": np.s_[:, :2],
    "right edge": np.s_[:, 10:],
}


def moved(counts: dict[str, int], number: int = 1) -> NDArray[np.bool_]:
    """Return what moved if this many images of a class moved a prediction with each place, and others with none."""
    found = np.zeros((len(PREDICTED), len(PLACES)), dtype=np.bool_)
    for name, count in counts.items():
        found[number * PER_CLASS : number * PER_CLASS + count, list(PLACES).index(name)] = True
    return found


def find(given: NDArray[np.bool_], classes: Sequence[str] = CLASSES) -> Shortcuts:
    return find_shortcuts(given, PREDICTED, [0, 1, 2], classes, PLACES)


@pytest.mark.parametrize("place", SLICES)
def test_class_and_place_are_named(place: str) -> None:
    (found,) = find(moved({place: 25})).found
    assert (found.class_name, found.place, found.images) == ("dog", place, tuple(range(40, 65)))
    assert (found.num_images, found.followed) == (PER_CLASS, 25 / PER_CLASS)
    inside = np.zeros((ROWS, COLUMNS))
    inside[SLICES[place]] = 1
    assert PLACES[place].tolist() == inside.astype(bool).tolist()
    assert found.area == pytest.approx(inside.mean())
    left, top, right, bottom = found.box
    in_box = inside[round(top * ROWS) : round(bottom * ROWS), round(left * COLUMNS) : round(right * COLUMNS)]
    assert in_box.all()
    assert in_box.sum() == inside.sum()


def test_the_border_suggests_the_background() -> None:
    (found,) = find(moved({"border": 30, "upper edge": 3})).found
    assert (found.place, found.box, found.area) == ("border", (0, 0, 1, 1), PLACES["border"].mean())
    assert "when the border (50% of the area) is copied" in found.sentence
    assert "it may use the background" in found.sentence


@pytest.mark.parametrize(
    ("counts", "place"),
    [
        ({"border": 30, "upper edge": 26, "upper left corner": 25}, "upper left corner"),
        ({"border": 30, "upper edge": 26, "upper left corner": 20}, "upper edge"),
        ({"border": 30, "upper edge": 20, "upper left corner": 20}, "border"),
    ],
)
def test_the_smallest_place_that_moves_nearly_as_much_as_the_best_one_is_reported(
    counts: dict[str, int], place: str
) -> None:
    assert [found.place for found in find(moved(counts)).found] == [place]


def test_classes_with_the_largest_share_of_images_come_first() -> None:
    given = moved({"left edge": 20}, 0) | moved({"left edge": 40}, 1) | moved({"lower edge": 30}, 2)
    assert [(one.class_name, one.followed) for one in find(given).found] == [
        ("dog", 1.0), ("two words", 0.75), ("cat", 0.5)
    ]  # fmt: skip


def test_a_place_is_reported_from_the_corrected_p_value_of_the_binomial_test() -> None:
    def p_value(count: int) -> float:
        return binomtest(count, PER_CLASS, MAX_CHANCE, alternative="greater").pvalue * 3 * 9

    fewest = next(count for count in range(PER_CLASS) if p_value(count) <= MAX_P_VALUE)
    (found,) = find(moved({"right edge": fewest})).found
    assert found.p_value == pytest.approx(p_value(fewest))
    assert not find(moved({"right edge": fewest - 1})).found


def test_predictions_that_move_by_chance_are_rarely_reported() -> None:
    draw, tries = np.random.default_rng(1), 500
    alarms = sum(bool(find(draw.random((len(PREDICTED), len(PLACES))) < MAX_CHANCE).found) for _ in range(tries))
    assert alarms <= 3 * MAX_P_VALUE * tries


def test_classes_with_few_images_are_not_checked() -> None:
    predicted = np.repeat([0, 1, 3], [MIN_IMAGES, MIN_IMAGES - 1, 30])
    assert classes_to_check(predicted, 5, (ROWS, COLUMNS)) == [0, 3]
    given = np.ones((len(predicted), len(PLACES)), dtype=np.bool_)
    found = find_shortcuts(given, predicted, [0, 3], ("a", "b\n", "c", "d", "e"), PLACES)
    assert ([one.class_name for one in found.found], found.num_checked) == (["a", "d"], 2)
    assert found.unchecked == ("b\n", "c", "e")
    assert r"not checked for b\n, c and e; this needs 10 images" in found.sentences[-1]


@pytest.mark.parametrize("grid_size", [(4, 9), (9, 4)])
def test_small_grids_and_lone_classes_are_not_checked(grid_size: tuple[int, int]) -> None:
    assert classes_to_check(PREDICTED, 3, grid_size) == []
    assert classes_to_check(PREDICTED, 3, (5, 5)) == [0, 1, 2]
    assert classes_to_check(np.zeros(100, dtype=np.int64), 3, (9, 9)) == []
    assert classes_to_check(np.zeros(0, dtype=np.int64), 3, (9, 9)) == []


def test_small_grids_have_no_border() -> None:
    assert "border" in places_near_border(6, 6)
    assert "border" not in places_near_border(5, 5)


def test_the_sentence_says_where_and_in_how_many_images() -> None:
    assert find(moved({"upper left corner": 25}), ("cat", "dog\x1b[31m", "fish")).sentences == (
        r"class dog\x1b[31m: when the upper left corner (6% of the area) is copied into an image of another class, "
        r"the model predicts dog\x1b[31m for 25 of 40 images; it may use a mark there: look at these images",
    )
    assert find(moved({})).sentences == (
        "shortcuts: none of 3 classes is recognized by a place near the border; a mark in the middle is not noticed",
    )
