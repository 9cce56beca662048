"""Folds: each image is tested once, classes are mixed alike, families stay whole, added files move few."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitreous.data.sources import Source
from vitreous.data.survey.facts import survey
from vitreous.data.survey.folds import ALWAYS_TRAIN, UNTOUCHED, assign_folds, fold_notes, split_by_fold
from vitreous.errors import ConfigError, DataError

MANY = [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in range(3000)]


def folds_of(
    labels: NDArray[np.int64],
    num_folds: int,
    *,
    came_with: list[str] | None = None,
    groups: list[str] | None = None,
    seed: int = 0,
    digests: list[bytes] | None = None,
) -> NDArray[np.int64]:
    n = len(labels)
    splits = np.array(came_with if came_with is not None else [""] * n, dtype="<U5")
    named = None if groups is None else np.array(groups, dtype=object)
    return assign_folds(digests or MANY[:n], np.asarray(labels), splits, num_folds, seed, named)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    num_folds=st.integers(2, 7),
    seed=st.integers(0, 2**40),
)
def test_each_fold_has_its_share_of_each_class(counts: list[int], num_folds: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), [*counts[:-1], counts[-1] + num_folds])
    folds = folds_of(labels, num_folds, seed=seed)
    assert set(folds.tolist()) == set(range(num_folds))
    for label in range(len(counts)):
        of_class = np.bincount(folds[labels == label], minlength=num_folds)
        share = (labels == label).sum() / num_folds
        assert (abs(of_class - share) < 1).all()


def test_folds_as_a_whole_are_of_one_size_although_each_class_has_images_left_over() -> None:
    labels = np.repeat(np.arange(50), 7)  # dealt one after another, fold 0 would get 150 of the 350
    sizes = np.bincount(folds_of(labels, 3))
    assert sizes.sum() == 350
    assert sizes.max() - sizes.min() <= 4


def test_added_file_moves_fewer_than_folds_of_its_class_and_none_of_others() -> None:
    labels = np.arange(1500) % 3
    before, after = folds_of(labels, 5), folds_of(np.append(labels, 1), 5)
    moved = before != after[:1500]
    assert moved.sum() <= 4
    assert set(labels[moved].tolist()) <= {1}


def test_folds_do_not_depend_on_the_order_of_files() -> None:
    labels = np.arange(600) % 4
    backwards = folds_of(labels[::-1], 5, digests=MANY[:600][::-1])
    np.testing.assert_array_equal(backwards[::-1], folds_of(labels, 5))
    assert (folds_of(labels, 5, seed=1) != folds_of(labels, 5)).mean() > 0.5


def test_families_stay_in_one_fold() -> None:
    persons = [f"person {number // 6}" for number in range(240)]
    digests = [*MANY[:200], *MANY[:40]]  # the last 40 are copies of the first
    folds = folds_of(np.arange(240) % 2, 5, groups=persons, digests=digests)
    for person in set(persons):
        assert len({fold for fold, name in zip(folds, persons, strict=True) if name == person}) == 1
    np.testing.assert_array_equal(folds[:40], folds[200:])


def test_persons_who_show_all_classes_are_dealt_evenly() -> None:
    persons = [f"person {number // 13}" for number in range(130)]
    folds = folds_of(np.arange(130) % 7, 5, groups=persons)
    assert [len({p for p, f in zip(persons, folds, strict=True) if f == fold}) for fold in range(5)] == [2] * 5


def test_each_image_is_tested_by_one_run_and_trained_on_or_validated_by_the_others() -> None:
    labels = np.arange(300) % 3
    came_with = np.full(300, "", dtype="<U5")
    seen = []
    for fold in range(5):
        splits, folds = split_by_fold(MANY[:300], labels, came_with, 5, fold, 0.1, 0)
        np.testing.assert_array_equal(splits == "test", folds == fold)
        assert set(splits) == {"train", "val", "test"}
        seen.append(splits)
    assert ((np.array(seen) == "test").sum(axis=0) == 1).all()


def test_given_test_stays_untouched_with_what_follows_it_and_given_val_stays_val() -> None:
    labels = np.arange(60) % 2
    came_with = np.array(["test"] * 10 + ["val"] * 10 + ["train"] * 20 + [""] * 20, dtype="<U5")
    digests = [*MANY[:59], MANY[0]]  # the last is a copy of a test image
    for fold in range(4):
        splits, folds = split_by_fold(digests, labels, came_with, 4, fold, 0.1, 0)
        assert (splits[:10] == "").all()
        assert splits[59] == ""
        assert (splits[10:20] == "val").all()
        assert "val" not in splits[20:]
        assert (folds[[*range(10), 59]] == UNTOUCHED).all()
        assert (folds[10:20] == ALWAYS_TRAIN).all()
    notes = fold_notes(("ant", "bee"), labels, folds)
    assert notes == [
        "11 images are given as test and stay untouched: the folds are over the others; a run without folds is tested "
        "on them"
    ]


def test_only_image_of_a_class_is_always_trained_on_and_small_classes_are_told() -> None:
    labels = np.array([0] * 20 + [1] + [2] * 3)
    folds = folds_of(labels, 5)
    assert folds[20] == ALWAYS_TRAIN
    assert len(set(folds[21:].tolist())) == 3
    for fold in range(5):
        splits, _ = split_by_fold(MANY[:24], labels, np.full(24, "", dtype="<U5"), 5, fold, 0.1, 0)
        assert {0, 1, 2} == set(labels[splits == "train"].tolist())
    assert fold_notes(("ant", "bee", "cat"), labels, folds) == [
        "class 'cat' has too few images for 5 folds: 3 of them test it"
    ]


def test_more_folds_than_images_of_any_class_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        folds_of(np.array([0] * 12 + [1] * 17), 18)
    assert str(caught.value) == "data.num_folds=18: no class has so many different images; use at most 17"
    with pytest.raises(
        DataError, match=r"^data\.num_folds=4: no class has so many different groups and single images; "
    ):
        folds_of(np.arange(30) % 2, 4, groups=[f"person {number % 3}" for number in range(30)])


def test_survey_of_each_fold_tests_another_part(make_arrays: Callable[..., Source]) -> None:
    source = make_arrays(40, 30, 20)
    surveys = [survey(source, num_folds=3, fold=fold) for fold in range(3)]
    tested = np.concatenate([surveyed.indices["test"] for surveyed in surveys])
    assert sorted(tested.tolist()) == list(range(90))
    assert len({surveyed.facts.fingerprint for surveyed in surveys}) == 3
    assert {surveyed.facts.test_ratio for surveyed in surveys} == {1 / 3}
    assert not surveys[0].facts.brings_test


def test_fold_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        split_by_fold(MANY[:60], np.arange(60) % 2, np.full(60, "", dtype="<U5"), 4, 7, 0.1, 0)
    assert str(caught.value) == "data.fold=7: is none of data.num_folds=4 folds; use 0 to 3"
