"""Each image is tested once, folds have the same mixture of classes, families stay together, new files move few."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from vitreous.data.sources import Source, Texts
from vitreous.data.survey.facts import survey
from vitreous.data.survey.folds import ALWAYS_TRAIN, UNTOUCHED, assign_folds, family_folds, split_by_fold
from vitreous.data.survey.splits import Samples
from vitreous.errors import ConfigError, DataError

MANY = [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in range(3000)]


def samples_of(
    labels: NDArray[np.int64],
    *,
    given: list[str] | None = None,
    groups: list[str] | None = None,
    digests: list[bytes] | None = None,
) -> Samples:
    return Samples(
        digests=np.array(digests or MANY[: len(labels)], dtype="S16"),
        labels=np.asarray(labels),
        given=np.array(given or [""] * len(labels), dtype="<U5"),
        groups=None if groups is None else np.array(groups, dtype=object),
    )


def folds_of(
    labels: NDArray[np.int64],
    num_folds: int,
    *,
    groups: list[str] | None = None,
    seed: int = 0,
    digests: list[bytes] | None = None,
) -> NDArray[np.int64]:
    return assign_folds(samples_of(labels, groups=groups, digests=digests), num_folds=num_folds, split_seed=seed)


def split(samples: Samples, num_folds: int, fold: int) -> tuple[Texts, NDArray[np.int64]]:
    return split_by_fold(samples, num_folds=num_folds, fold=fold, val_ratio=0.1, split_seed=0)


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


def test_folds_have_nearly_equal_sizes_although_each_class_has_a_remainder() -> None:
    labels = np.repeat(np.arange(50), 7)  # without offsets, fold 0 would get 150 of the 350
    sizes = np.bincount(folds_of(labels, 3))
    assert sizes.sum() == 350
    assert sizes.max() - sizes.min() <= 4


def test_added_file_moves_fewer_images_than_folds_and_only_of_its_class() -> None:
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
    people = [f"person {number // 6}" for number in range(240)]
    digests = [*MANY[:200], *MANY[:40]]  # the last 40 are copies of the first
    folds = folds_of(np.arange(240) % 2, 5, groups=people, digests=digests)
    for person in set(people):
        assert len({fold for fold, name in zip(folds, people, strict=True) if name == person}) == 1
    np.testing.assert_array_equal(folds[:40], folds[200:])


def test_groups_with_all_classes_are_spread_evenly_over_the_folds() -> None:
    people = [f"person {number // 13}" for number in range(130)]
    folds = folds_of(np.arange(130) % 7, 5, groups=people)
    assert [len({p for p, f in zip(people, folds, strict=True) if f == fold}) for fold in range(5)] == [2] * 5


def test_each_image_is_tested_by_one_run_and_used_by_the_others() -> None:
    samples = samples_of(np.arange(300) % 3)
    seen = []
    for fold in range(5):
        splits, folds = split(samples, 5, fold)
        np.testing.assert_array_equal(splits == "test", folds == fold)
        assert set(splits) == {"train", "val", "test"}
        seen.append(splits)
    assert ((np.array(seen) == "test").sum(axis=0) == 1).all()


def test_given_test_and_its_copies_are_not_used_and_given_val_stays_val() -> None:
    labels = np.arange(60) % 2
    given = ["test"] * 10 + ["val"] * 10 + ["train"] * 20 + [""] * 20
    digests = [*MANY[:59], MANY[0]]  # the last is a copy of a test image
    for fold in range(4):
        splits, folds = split(samples_of(labels, given=given, digests=digests), 4, fold)
        assert (splits[:10] == "").all()
        assert splits[59] == ""
        assert (splits[10:20] == "val").all()
        assert "val" not in splits[20:]
        assert (folds[[*range(10), 59]] == UNTOUCHED).all()
        assert (folds[10:20] == ALWAYS_TRAIN).all()


def test_only_image_of_a_class_is_always_a_training_image() -> None:
    labels = np.array([0] * 20 + [1] + [2] * 3)
    folds = folds_of(labels, 5)
    assert folds[20] == ALWAYS_TRAIN
    assert len(set(folds[21:].tolist())) == 3
    for fold in range(5):
        splits, _ = split(samples_of(labels), 5, fold)
        assert {0, 1, 2} == set(labels[splits == "train"].tolist())


def test_more_folds_than_images_of_any_class_are_an_error() -> None:
    with pytest.raises(DataError) as caught:
        folds_of(np.array([0] * 12 + [1] * 17), 18)
    assert str(caught.value) == "data.num_folds=18: no class has that many distinct images; use at most 17 folds"
    with pytest.raises(
        DataError, match=r"^data\.num_folds=4: no class has that many distinct groups and single images; "
    ):
        folds_of(np.arange(30) % 2, 4, groups=[f"person {number % 3}" for number in range(30)])


def test_folds_of_classes_with_one_image_each_are_an_error() -> None:
    with pytest.raises(DataError) as caught:
        folds_of(np.arange(3), 2)
    assert str(caught.value) == "data.num_folds=2: no class has that many distinct images; add more"


def test_surveys_of_all_folds_test_each_image_once(make_arrays: Callable[..., Source]) -> None:
    source = make_arrays(40, 30, 20)
    surveys = [survey(source, num_folds=3, fold=fold) for fold in range(3)]
    tested = np.concatenate([surveyed.indices["test"] for surveyed in surveys])
    assert sorted(tested.tolist()) == list(range(90))
    assert len({surveyed.facts.fingerprint for surveyed in surveys}) == 3
    assert {surveyed.facts.test_ratio for surveyed in surveys} == {1 / 3}
    assert not surveys[0].facts.brings_test


def test_nonexistent_fold_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        split(samples_of(np.arange(60) % 2), 4, 7)
    assert str(caught.value) == "data.fold=7: is none of data.num_folds=4 folds; use 0 to 3"


def test_cross_validation_keeps_families_together_and_spreads_classes_evenly() -> None:
    draw = np.random.default_rng(0)
    families = draw.permutation(np.repeat(np.arange(60), 3))
    labels = families % 3
    folds = family_folds(labels, families, 5)
    assert sorted(np.concatenate([scored for _, scored in folds]).tolist()) == list(range(180))
    for fit, scored in folds:
        assert len(fit) + len(scored) == 180
        assert not set(families[fit]) & set(families[scored])
        assert np.bincount(labels[scored]).tolist() == [12, 12, 12]


def test_cross_validation_of_single_images_is_that_of_scikit_learn() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 25, 7]))
    reference = StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels)
    for ours, theirs in zip(family_folds(labels, np.arange(72)[::-1], 5), reference, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_cross_validation_has_as_few_folds_as_the_largest_class_has_families() -> None:
    labels, families = np.array([0, 0, 0, 0, 1, 1]), np.array([4, 4, 5, 6, 7, 8])
    assert len(family_folds(labels, families, 5)) == 3
    assert family_folds(labels, labels, 5) == []


def test_cross_validation_of_several_labels_keeps_families_together() -> None:
    families = np.arange(40) // 4
    for fit, scored in family_folds(np.eye(3, dtype=bool)[np.arange(40) % 3], families, 5):
        assert not set(families[fit]) & set(families[scored])
