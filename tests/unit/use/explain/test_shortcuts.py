"""Relevance concentrated on a place near the border is found and named; relevance of centered objects is not."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from vitreous.use.explain.shortcuts import MAX_P_VALUE, MIN_IMAGES, find_shortcuts

ROWS, COLUMNS, CLASSES = 8, 12, ("cat", "dog", "two words")
PER_CLASS = 40
PLACES = {
    "upper left corner": np.s_[:2, :3],
    "upper right corner": np.s_[:2, 9:],
    "lower left corner": np.s_[6:, :3],
    "lower right corner": np.s_[6:, 9:],
    "upper edge": np.s_[:1, :],
    "lower edge": np.s_[7:, :],
    "left edge": np.s_[:, :2],
    "right edge": np.s_[:, 10:],
}


def objects(seed: int = 0, *, num_classes: int = 3, per_class: int = PER_CLASS) -> tuple[NDArray, NDArray]:
    """Return maps of an object near the middle, of another width and height for each class, and the classes."""
    draw = np.random.default_rng(seed)
    predicted = np.repeat(np.arange(num_classes), per_class)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    at_y, at_x = (draw.normal((side - 1) / 2, 0.8, (len(predicted), 1, 1)) for side in (ROWS, COLUMNS))
    high, wide = (1 + predicted / 2)[:, None, None], (2.5 - predicted / 3)[:, None, None]
    maps = np.exp(-(((y - at_y) / high) ** 2) - ((x - at_x) / wide) ** 2)
    return maps + draw.exponential(0.05, maps.shape), predicted


def marked(place: tuple[slice, slice], *, number: int = 1, count: int = 25, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Return such maps, and half of the relevance of `count` images of a class at a place."""
    maps, predicted = objects(seed)
    chosen = np.flatnonzero(predicted == number)[:count]
    total = maps[chosen].sum(axis=(1, 2))
    patches = np.zeros((ROWS, COLUMNS))
    patches[place] = 1 / patches[place].size
    maps[chosen] += total[:, None, None] * patches
    return maps, predicted


@pytest.mark.parametrize("place", PLACES)
def test_a_mark_is_found_and_class_and_place_are_named(place: str) -> None:
    (found,) = find_shortcuts(*marked(PLACES[place]), CLASSES).found
    assert (found.class_name, found.place, len(found.images), found.num_images) == ("dog", place, 25, PER_CLASS)
    assert found.area == pytest.approx(np.zeros((ROWS, COLUMNS))[PLACES[place]].size / (ROWS * COLUMNS))
    assert 0.5 <= found.relevance < 0.65
    rows, columns = PLACES[place]
    inside = np.zeros((ROWS, COLUMNS))
    inside[rows, columns] = 1
    left, top, right, bottom = found.box
    assert (
        inside[round(top * ROWS) : round(bottom * ROWS), round(left * COLUMNS) : round(right * COLUMNS)].sum()
        == inside.sum()
    )


def test_images_are_listed_by_their_share_of_relevance() -> None:
    maps, predicted = marked(PLACES["upper left corner"], number=2)
    (found,) = find_shortcuts(maps, predicted, CLASSES).found
    share = maps[:, :2, :3].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    assert list(found.images) == sorted(found.images, key=lambda number: -share[number])
    assert set(found.images) == set(range(80, 105))
    assert found.relevance == pytest.approx(share[80:105].mean())


def test_relevance_all_along_the_border_suggests_the_background() -> None:
    maps, predicted = objects()
    border = np.ones((ROWS, COLUMNS), dtype=bool)
    border[1:-1, 2:-2] = False
    maps[predicted == 0] = border * 1.0
    (found,) = find_shortcuts(maps, predicted, CLASSES).found
    assert (found.place, found.box, found.area) == ("border", (0, 0, 1, 1), border.mean())
    assert "of the relevance lies along the border" in found.sentence
    assert "the model may use the background" in found.sentence


def test_backgrounds_of_all_classes_are_reported_although_classes_are_alike() -> None:
    maps, predicted = objects()
    border = np.ones((ROWS, COLUMNS), dtype=bool)
    border[1:-1, 2:-2] = False
    maps += 2 * border
    found = find_shortcuts(maps, predicted, CLASSES).found
    assert [(one.class_name, one.place, one.others_rate) for one in found] == [(name, "border", 1) for name in CLASSES]


@pytest.mark.parametrize("seed", range(20))
def test_objects_of_different_shapes_in_the_middle_are_not_found(seed: int) -> None:
    found = find_shortcuts(*objects(seed), CLASSES)
    assert not found.found
    assert (found.num_checked, found.unchecked) == (3, ())
    assert found.sentences == (
        "shortcuts: none of 3 classes relies on a place near the border more than the others; a mark in the middle is "
        "not noticed",
    )


def test_a_place_that_all_classes_have_in_common_is_not_found() -> None:
    maps, predicted = objects()
    maps[:, :2, :3] += 1
    assert not find_shortcuts(maps, predicted, CLASSES).found


def test_a_mark_that_fewer_than_half_of_the_other_classes_share_is_found_in_each() -> None:
    maps, predicted = objects(num_classes=6)
    maps[(predicted == 1) | (predicted == 4), 6:, 9:] += 2
    found = find_shortcuts(maps, predicted, tuple("abcdef")).found
    assert [(one.class_name, one.place) for one in found] == [("b", "lower right corner"), ("e", "lower right corner")]


def test_classes_that_mean_nothing_are_rarely_found() -> None:
    """Half of all images have a mark in a corner, whatever their class: differences between classes are chance."""
    draw, false_alarms, tries = np.random.default_rng(1), 0, 150
    maps, _ = objects(per_class=20)
    maps[::2, :2, :3] += 2
    for _ in range(tries):
        false_alarms += bool(find_shortcuts(maps, draw.permutation(np.repeat([0, 1, 2], 20)), CLASSES).found)
    assert false_alarms <= 3 * MAX_P_VALUE * tries


def test_p_value_is_that_of_fishers_exact_test_times_the_number_of_tests() -> None:
    maps, predicted = marked(PLACES["lower right corner"], count=13)
    maps[[0, 100], 6:, 9:] += 10
    (found,) = find_shortcuts(maps, predicted, CLASSES).found
    assert (len(found.images), found.others_rate) == (13, 2 / 80)
    expected = fisher_exact([[13, 27], [2, 78]], alternative="greater").pvalue
    assert found.p_value == pytest.approx(expected * 3 * 9)


def test_values_below_zero_and_the_scale_of_an_image_do_not_count() -> None:
    maps, predicted = marked(PLACES["left edge"])
    scale = np.random.default_rng(3).uniform(0.01, 100, (len(maps), 1, 1))
    negative = np.where(np.random.default_rng(4).random(maps.shape) < 0.2, -50.0, 0.0)
    kept = np.where(negative < 0, 0, maps)
    assert find_shortcuts(np.where(negative < 0, negative, maps) * scale, predicted, CLASSES) == find_shortcuts(
        kept, predicted, CLASSES
    )


def test_images_without_positive_relevance_count_as_not_concentrated() -> None:
    maps, predicted = marked(PLACES["upper edge"])
    maps[45:60] = 0
    (found,) = find_shortcuts(maps, predicted, CLASSES).found
    assert (len(found.images), found.num_images) == (10, PER_CLASS)


def test_rare_classes_are_not_checked_and_named() -> None:
    maps, predicted = marked(PLACES["upper edge"])
    kept = np.concatenate([np.arange(MIN_IMAGES - 1), np.arange(PER_CLASS, 3 * PER_CLASS)])
    found = find_shortcuts(maps[kept], predicted[kept], ("a\nb", "dog", "two words", "never"))
    assert (found.num_checked, found.unchecked, len(found.found)) == (2, ("a\nb", "never"), 1)
    assert found.sentences[1].startswith(r"shortcuts: not checked for a\nb and never; this needs 10 images")


@pytest.mark.parametrize("side", [1, 2])
def test_a_grid_without_a_middle_is_not_checked(side: int) -> None:
    found = find_shortcuts(np.ones((60, side, 9)), np.repeat([0, 1, 2], 20), CLASSES)
    assert (found.found, found.num_checked, found.unchecked) == ((), 0, CLASSES)


def test_small_grids_have_no_border_since_it_would_be_most_of_the_image() -> None:
    for side, num_found in ((5, 0), (6, 3)):
        maps = np.ones((60, side, side))
        maps[:, 1:-1, 1:-1] = -1
        assert len(find_shortcuts(maps, np.repeat([0, 1, 2], 20), CLASSES).found) == num_found


def test_no_images_and_one_class_are_not_checked() -> None:
    assert find_shortcuts(np.zeros((0, 8, 8)), np.zeros(0, dtype=np.int64), CLASSES).unchecked == CLASSES
    maps, _ = objects()
    assert find_shortcuts(maps, np.zeros(len(maps), dtype=np.int64), CLASSES).num_checked == 0


def test_the_sentence_says_how_much_where_and_in_how_many_images() -> None:
    maps, predicted = marked(PLACES["upper left corner"])
    maps[5, :2, :3] += 20
    found = find_shortcuts(maps, predicted, ("cat", "dog\x1b[31m", "fish"))
    assert found.sentences == (
        rf"class dog\x1b[31m: {found.found[0].relevance:.0%} of the relevance lies in the upper left corner (6% of the "
        "area) in 25 of 40 images, and as much in 1% of the images of other classes; the model may use a mark there: "
        "look at these images",
    )
