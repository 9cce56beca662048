import numpy as np
import pytest

from vitreous.data.sampling import balanced_weights, check_weights, draw_order, earlier_showings
from vitreous.errors import DataError
from vitreous.seeding import permutation

LABELS = np.repeat(np.array([0, 2, 5, 6]), [90, 7, 20, 3])[permutation(3, 120)]


def test_order_without_weights_shows_each_image_once() -> None:
    np.testing.assert_array_equal(draw_order(9, LABELS), permutation(9, 120))


def test_balanced_weights_show_all_classes_equally_often_in_every_round() -> None:
    weights = balanced_weights(LABELS)
    for seed in range(20):
        order = draw_order(seed, LABELS, weights)
        assert len(order) == 120
        np.testing.assert_array_equal(np.bincount(LABELS[order])[[0, 2, 5, 6]], [30, 30, 30, 30])


def test_uneven_classes_are_shown_equally_often_in_expectation() -> None:
    labels = np.repeat(np.arange(3), [50, 9, 2])  # 61 showings of 3 classes
    counts = np.stack([
        np.bincount(labels[draw_order(seed, labels, balanced_weights(labels))]) for seed in range(600)
    ])  # fmt: skip
    assert set(counts.flatten().tolist()) == {20, 21}
    np.testing.assert_allclose(counts.mean(axis=0), 61 / 3, atol=0.08)


def test_image_is_shown_its_expected_number_of_times_rounded_up_or_down() -> None:
    weights = np.random.default_rng(1).exponential(size=120)
    expected = 120 * weights / weights.sum()
    counts = np.stack([np.bincount(draw_order(seed, LABELS, weights), minlength=120) for seed in range(1500)])
    assert (counts >= np.floor(expected)).all()
    assert (counts <= np.ceil(expected)).all()
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.06)


def test_no_image_of_a_rare_class_is_left_out_of_a_round() -> None:
    for seed in range(20):
        shown = set(draw_order(seed, LABELS, balanced_weights(LABELS)).tolist())
        assert set(np.flatnonzero(LABELS != 0).tolist()) <= shown


def test_image_of_weight_zero_is_never_shown() -> None:
    weights = np.ones(120)
    weights[[5, 17]] = 0
    for seed in range(20):
        assert not {5, 17} & set(draw_order(seed, LABELS, weights).tolist())


def test_order_depends_on_only_the_seed_and_mixes_the_classes() -> None:
    weights = balanced_weights(LABELS)
    first, other = draw_order(4, LABELS, weights), draw_order(5, LABELS, weights)
    np.testing.assert_array_equal(first, draw_order(4, LABELS, weights))
    assert not np.array_equal(first, other)
    assert len(np.unique(LABELS[first[:30]])) == 4


@pytest.mark.parametrize("num", [1, 2, 3])
def test_balanced_order_of_the_smallest_sets_shows_each_image_once(num: int) -> None:
    labels = np.arange(num)
    assert sorted(draw_order(7, labels, balanced_weights(labels)).tolist()) == list(range(num))


def test_earlier_showings_count_previous_occurrences_of_an_entry() -> None:
    found = earlier_showings(np.array([4, 1, 4, 4, 0, 1]))
    np.testing.assert_array_equal(found, [0, 0, 1, 2, 0, 1])
    assert len(earlier_showings(np.empty(0, dtype=np.int64))) == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), "weights=3: there are 5 images; give one weight per image"),
        (np.array([1, 2, -0.5, 1, 1]), "weights[2]=-0.5: must be finite and at least 0; correct it"),
        (np.array([1, np.nan, 1, 1, 1]), "weights[1]=nan: must be finite and at least 0; correct it"),
        (np.array([1, 1, 1, 1, np.inf]), "weights[4]=inf: must be finite and at least 0; correct it"),
        (np.zeros(5), "weights=0: all 5 images have weight 0; set at least one weight above 0"),
    ],
)
def test_invalid_weights_raise_an_error_with_the_reason(weights: np.ndarray, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_weights(weights, 5)
    assert str(caught.value) == message
