import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitreous.data.survey.splits import MAX_VAL, Samples, assign_splits, torn_groups
from vitreous.errors import DataError


def digests_of(names: list[str]) -> list[bytes]:
    return [hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names]


def assign(
    digests: list[bytes],
    labels: list[int] | NDArray[np.int64],
    splits: list[str] | None = None,
    *,
    test: float = 0.2,
    val: float = 0.1,
    seed: int = 0,
) -> NDArray[np.str_]:
    return assign_groups(digests, labels, None, splits, test=test, val=val, seed=seed)


def assign_groups(
    digests: list[bytes], labels: list[int] | NDArray[np.int64], groups: list[str] | None,
    splits: list[str] | None = None, *, test: float = 0.2, val: float = 0.1, seed: int = 0,
) -> NDArray[np.str_]:  # fmt: skip
    samples = Samples(
        digests=np.array(digests, dtype="S16"),
        labels=np.asarray(labels, dtype=np.int64),
        given=np.array(splits if splits is not None else [""] * len(digests), dtype="<U5"),
        groups=None if groups is None else np.array(groups, dtype=object),
    )
    return assign_splits(samples, test_ratio=test, val_ratio=val, split_seed=seed)


MANY = digests_of([f"image {i}" for i in range(6000)])
MANY_LABELS = np.arange(6000) % 3


def test_split_sizes_match_the_ratios_within_chance() -> None:
    splits = assign(MANY, MANY_LABELS, test=0.25, val=0.2)
    # 4 standard errors of a binomial draw
    assert abs((splits == "test").mean() - 0.25) < 0.023
    assert abs((splits == "val").mean() - 0.75 * 0.2) < 0.02


def test_sample_keeps_its_split_when_files_are_added_or_reordered() -> None:
    few = assign(MANY[1000:3000], MANY_LABELS[1000:3000])
    np.testing.assert_array_equal(assign(MANY, MANY_LABELS)[1000:3000], few)
    np.testing.assert_array_equal(assign(MANY[::-1], MANY_LABELS[::-1])[::-1], assign(MANY, MANY_LABELS))


def test_another_seed_gives_another_split() -> None:
    first, second = assign(MANY, MANY_LABELS, seed=1), assign(MANY, MANY_LABELS, seed=2)
    assert 0.2 < (first != second).mean() < 0.6
    np.testing.assert_array_equal(first, assign(MANY, MANY_LABELS, seed=1))


def test_test_split_does_not_depend_on_the_validation_ratio() -> None:
    without, with_val = assign(MANY, MANY_LABELS, val=0.0), assign(MANY, MANY_LABELS, val=0.5)
    np.testing.assert_array_equal(without == "test", with_val == "test")
    assert "val" not in without


def test_exact_copies_are_in_the_same_split_even_in_different_classes() -> None:
    digests = MANY[:200] * 2
    splits = assign(digests, [0] * 200 + [1] * 200)
    np.testing.assert_array_equal(splits[:200], splits[200:])


def test_given_test_is_kept_and_validation_is_carved_from_train() -> None:
    given_splits = np.where(np.arange(6000) < 4000, "train", "test")
    splits = assign(MANY, MANY_LABELS, list(given_splits))
    np.testing.assert_array_equal(splits[4000:], "test")
    assert set(splits[:4000]) == {"train", "val"}
    assert abs((splits[:4000] == "val").mean() - 0.1) < 0.02


def test_given_validation_is_kept_and_test_is_carved_from_train() -> None:
    given_splits = np.where(np.arange(6000) < 4000, "train", "val")
    splits = assign(MANY, MANY_LABELS, list(given_splits))
    np.testing.assert_array_equal(splits[4000:], "val")
    assert set(splits[:4000]) == {"train", "test"}


def test_three_given_splits_do_not_change_whatever_they_contain() -> None:
    given = ["train", "val", "test", "test"]
    assert list(assign(MANY[:1] * 4, [0, 1, 0, 1], given)) == given


def test_carved_validation_has_at_most_five_thousand_images() -> None:
    digests = digests_of([str(i) for i in range(12_000)])
    splits = assign(digests, np.arange(12_000) % 2, ["train"] * 11_999 + ["test"], val=0.9)
    assert (splits == "val").sum() == MAX_VAL == 5000


def test_only_image_of_a_class_is_a_training_image() -> None:
    for seed in range(30):
        splits = assign(MANY[:41], [0] * 40 + [1], test=0.9, val=0.9, seed=seed)
        assert splits[40] == "train"


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    test=st.sampled_from([0.0, 0.01, 0.5, 0.99]),
    val=st.sampled_from([0.0, 0.01, 0.5, 0.99]),
    seed=st.integers(0, 2**40),
)
def test_small_classes_are_in_every_split_they_can_fill(counts: list[int], test: float, val: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    splits = assign(MANY[: len(labels)], labels, test=test, val=val, seed=seed)
    for label, count in enumerate(counts):
        found = set(splits[labels == label])
        assert "train" in found
        assert (count < 3 or "test" in found) if test else "test" not in found
        assert (count < 5 or "val" in found) if val else "val" not in found


def test_family_with_the_lowest_hash_moves_into_an_empty_split() -> None:
    digests, labels = MANY[:4], [0, 0, 0, 0]
    moved = [i for i, split in enumerate(assign(digests, labels, test=1e-9, val=0.0)) if split == "test"]
    # The first ratio that draws one of them for test draws the one with the lowest hash.
    ratios = np.linspace(0.01, 0.99, 99)
    sizes = [int(np.sum(assign(digests, labels, test=ratio, val=0.0) == "test")) for ratio in ratios]
    first_drawn = assign(digests, labels, test=float(ratios[sizes.index(1)]), val=0.0)
    assert len(moved) == 1
    assert first_drawn[moved[0]] == "test"


def test_set_without_a_training_image_is_an_error() -> None:
    with pytest.raises(DataError) as caught:
        assign(MANY[:7], [0, 1, 0, 1, 0, 1, 0], ["test"] * 4 + ["val"] * 3)
    assert str(caught.value) == "data: none of 7 images is left for training; add some"


# Groups.


def naive_families(digests: list[bytes], groups: list[str]) -> list[int]:
    """Find families by comparing all pairs of samples."""
    parent = list(range(len(digests)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i in range(len(digests)):
        for j in range(i):
            if digests[i] == digests[j] or (groups[i] and groups[i] == groups[j]):
                parent[root(i)] = root(j)
    return [root(i) for i in range(len(digests))]


@settings(deadline=None, max_examples=120)
@given(
    samples=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=40),
    test=st.sampled_from([0.0, 0.3, 0.9]),
    val=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 2**40),
)
def test_families_of_a_naive_union_find_stay_together(
    samples: list[tuple[int, int, int]], test: float, val: float, seed: int
) -> None:
    digests = [MANY[content] for content, _, _ in samples]
    groups = ["" if group == 0 else f"person {group}" for _, group, _ in samples]
    labels = np.array([label for _, _, label in samples])
    splits = assign_groups(digests, labels, groups, test=test, val=val, seed=seed)
    families = np.array(naive_families(digests, groups))
    for family in np.unique(families):
        assert len(set(splits[families == family])) == 1
    for label in np.unique(labels):
        assert "train" in splits[labels == label]


def test_classes_of_enough_people_are_in_every_split() -> None:
    for seed in range(40):
        people = [f"person {i // 4}" for i in range(48)]
        labels = np.array([i % 4 // 2 for i in range(48)])  # each of 12 people shows both classes
        splits = assign_groups(MANY[:48], labels, people, seed=seed)
        for label in (0, 1):
            assert set(splits[labels == label]) == {"train", "val", "test"}


def test_people_of_one_class_each_are_stratified() -> None:
    for seed in range(40):
        people = [f"person {i // 5}" for i in range(100)]
        labels = np.array([i // 5 % 3 for i in range(100)])  # 20 people, 6 or 7 of each class
        splits = assign_groups(MANY[:100], labels, people, seed=seed)
        for label in range(3):
            assert set(splits[labels == label]) == {"train", "val", "test"}


def test_split_sizes_of_groups_match_the_ratios_within_chance() -> None:
    groups = [f"video {i // 3}" for i in range(6000)]
    splits = assign_groups(MANY, MANY_LABELS, groups, test=0.25, val=0.2)
    assert abs((splits == "test").mean() - 0.25) < 0.04
    assert abs((splits == "val").mean() - 0.15) < 0.035


def test_samples_without_a_group_are_split_like_data_without_groups() -> None:
    np.testing.assert_array_equal(assign_groups(MANY, MANY_LABELS, [""] * 6000), assign(MANY, MANY_LABELS))


def test_group_keeps_its_split_when_images_and_groups_are_added_or_reordered() -> None:
    groups = [f"video {i % 500}" for i in range(6000)]
    few = assign_groups(MANY[:2000], MANY_LABELS[:2000], groups[:2000])
    many = assign_groups(MANY, MANY_LABELS, groups)
    np.testing.assert_array_equal(many[:2000], few)
    np.testing.assert_array_equal(assign_groups(MANY[::-1], MANY_LABELS[::-1], groups[::-1])[::-1], many)
    renamed = assign_groups(MANY, MANY_LABELS, [f"clip {group}" for group in groups])
    assert (renamed != many).any()


def test_sample_without_a_split_follows_its_group_and_its_copies() -> None:
    digests = [*MANY[:6], MANY[5]]
    groups = ["ann", "ann", "bob", "bob", "", "", ""]
    given_splits = ["test", "", "val", "", "train", "test", ""]
    splits = assign_groups(digests, [0, 1, 0, 1, 0, 1, 1], groups, given_splits)
    assert list(splits) == ["test", "test", "val", "val", "train", "test", "test"]


def test_given_splits_may_separate_a_group_and_are_counted() -> None:
    groups = ["ann", "ann", "bob", "bob", "", ""]
    splits = assign_groups(MANY[:6], [0, 1] * 3, groups, ["train", "test", "val", "val", "train", "test"])
    assert list(splits) == ["train", "test", "val", "val", "train", "test"]
    assert torn_groups(np.array(groups, dtype=object), splits) == 1


def test_single_group_is_used_for_training() -> None:
    splits = assign_groups(MANY[:20], [0, 1] * 10, ["ann"] * 20, test=0.9, val=0.9)
    assert set(splits) == {"train"}


def test_carved_validation_ends_with_the_family_that_fills_it() -> None:
    digests = digests_of([str(i) for i in range(24_000)])
    groups = [f"video {i // 40}" for i in range(24_000)]
    splits = assign_groups(digests, np.arange(24_000) % 2, groups, ["train"] * 23_960 + ["test"] * 40, val=0.9)
    assert MAX_VAL <= (splits == "val").sum() < MAX_VAL + 40
