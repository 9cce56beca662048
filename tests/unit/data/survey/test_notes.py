"""Every warning of the survey: when it is given, and with the right singular or plural."""

import hashlib
import time

import numpy as np
import pytest

from vitreous.data.survey.folds import ALWAYS_TRAIN, UNTOUCHED, split_by_fold
from vitreous.data.survey.notes import survey_notes
from vitreous.data.survey.splits import Samples

CLASSES = ("ant", "bee", "cat")


def notes(
    contents: str,
    labels: str,
    splits: str,
    *,
    groups: str | None = None,
    folds: list[int] | None = None,
    test_ratio: float = 0.2,
) -> list[str]:
    """Return the notes about samples that are given by one character each.

    Args:
        contents: A letter for each sample; equal letters are equal images.
        labels: The first letters of the class names.
        splits: The first letters of `train`, `val` and `test` as t, v and e.
        groups: A letter for each sample's group, or a dot for none.
        folds: The fold of each sample.
        test_ratio: The requested share of test images.
    """
    samples = Samples(
        digests=np.array([letter.encode() * 8 for letter in contents], dtype="S8"),
        labels=np.array(["abc".index(letter) for letter in labels], dtype=np.int64),
        given=np.full(len(contents), "", dtype="<U5"),
        groups=None if groups is None else np.array([g.strip(".") for g in groups], dtype=object),
    )
    named = np.array([{"t": "train", "v": "val", "e": "test"}[letter] for letter in splits])
    return list(survey_notes(CLASSES, samples, named, None if folds is None else np.array(folds), test_ratio))


def test_nothing_is_noted_about_ordinary_data() -> None:
    assert notes("abcdefghi", "aaabbbccc", "tvetvetve") == []
    assert notes("abcdefghi", "aaabbbccc", "tvetvetve", groups="xyz......", folds=[0, 1, 2] * 3) == []


def test_class_without_a_readable_image_is_noted() -> None:
    note = "class 'cat' has no readable image, so it cannot be learned; add images or remove the class"
    assert notes("abcdef", "aaabbb", "tvetve") == [note]


def test_class_without_a_training_image_is_noted() -> None:
    note = "class 'cat' has no training image, so it cannot be learned; add some or remove the class"
    assert notes("abcdefgh", "aaabbbcc", "tvetveve") == [note]


@pytest.mark.parametrize("contents", ["abcdefg", "abcdefggg"])
def test_class_with_one_distinct_image_is_noted(contents: str) -> None:
    copies = len(contents) - 6
    note = "class 'cat' has only one distinct image, used for training; add images to measure its accuracy"
    assert notes(contents, "aaabbb" + "c" * copies, "tvetve" + "t" * copies) == [note]


@pytest.mark.parametrize(
    ("splits", "folds", "problem"),
    [
        ("t", None, "has only one distinct image, used for training; add images to measure its accuracy"),
        ("e", None, "has no training image, so it cannot be learned; add some or remove the class"),
        ("", None, "has no readable image, so it cannot be learned; add images or remove the class"),
        ("te", [0, 1], "is tested by only 2 of 3 folds; add images or use fewer folds"),
    ],
)
def test_many_classes_with_the_same_problem_share_one_sentence_at_once(
    splits: str, folds: list[int] | None, problem: str
) -> None:
    names, each = [f"class {number}" for number in range(40_000)], len(splits)
    labels = np.arange(len(names)).repeat(each)
    samples = Samples(
        digests=np.array([number.to_bytes(16, "big") + b"." for number in range(len(labels))], dtype="S17"),
        labels=labels,
        given=np.full(len(labels), "", dtype="<U5"),
    )
    named = np.array([{"t": "train", "e": "test"}[letter] for letter in splits] * len(names), dtype="<U5")
    of_folds = None if folds is None else np.array([*folds * len(names), 2])[: len(labels)]
    if of_folds is not None:
        of_folds[-1] = 2
    began_s = time.process_time()
    found = list(survey_notes(names, samples, named, of_folds, 0.0))
    assert time.process_time() - began_s < 10  # one pass over the images per class would take minutes
    assert found[0] == f"class 'class 0' and 39,999 others: each {problem}"
    assert len(found) == 1


@pytest.mark.parametrize(
    ("contents", "splits", "copies"),
    [
        ("abac", "ttev", "1 test image"),
        ("abab", "ttee", "2 test images"),
        ("abac", "ttve", "1 val image"),
        ("aaaa", "ttvv", "2 val images"),
    ],
)
def test_copies_of_training_images_are_counted_for_each_held_out_split(contents: str, splits: str, copies: str) -> None:
    split = copies.split()[1]
    note = f"{copies} also in train, byte for byte: {split} accuracy is optimistic; remove the copies"
    assert notes(contents + "uvwxyz", "aaaa" + "aabbcc", splits + "tetete") == [note]


@pytest.mark.parametrize(
    ("contents", "labels", "counted"),
    [("aa", "ab", "1 image"), ("aaa", "abc", "1 image"), ("aabb", "abca", "2 images")],
)
def test_images_in_several_classes_are_counted_once_each(contents: str, labels: str, counted: str) -> None:
    note = f"{counted} in several classes, byte for byte; keep only the right class"
    assert notes(contents + "uvwxyz", labels + "aabbcc", "t" * len(labels) + "tetete") == [note]


@pytest.mark.parametrize(("groups", "counted"), [("xx....", "1 group"), ("xxyy..", "2 groups")])
def test_groups_in_train_and_a_held_out_split_are_counted(groups: str, counted: str) -> None:
    note = f"{counted} in train and also in val or test: held-out accuracy is optimistic; put each group in one split"
    assert notes("abcdef", "aabbcc", "tetete", groups=groups) == [note]


@pytest.mark.parametrize(("groups", "counted"), [("xxxxxx", "1 group"), ("xyxyxy", "2 groups"), ("......", "0 groups")])
def test_groups_that_leave_no_test_images_are_counted(groups: str, counted: str) -> None:
    note = f"no test images: {counted}, possibly joined by shared images, cannot be split up; add other groups"
    assert notes("abcdef", "aabbcc", "tttttt", groups=groups) == [note]
    assert notes("abcdef", "aabbcc", "tttttt", groups=groups, test_ratio=0.0) == []
    assert notes("abcdef", "aabbcc", "tttttt") == []


@pytest.mark.parametrize(
    ("num_given", "counted"),
    [(1, "1 given test image"), (2, "2 given test images"), (1234, "1,234 given test images")],
)
def test_given_test_images_that_folds_do_not_use_are_counted(num_given: int, counted: str) -> None:
    folds = [0, 1, 0, 1, 0, 1] + [UNTOUCHED] * num_given
    contents = "abcdef" + "".join(chr(1000 + i) for i in range(num_given))
    splits = "tetete" + "v" * num_given
    note = f"{counted} not used by the folds; train without folds to test on the given split"
    assert notes(contents, "aabbcc" + "a" * num_given, splits, folds=folds) == [note]


@pytest.mark.parametrize(("folds", "num_testing"), [([0, ALWAYS_TRAIN, ALWAYS_TRAIN], 1), ([0, 1, 1], 2)])
def test_class_that_some_folds_do_not_test_is_noted(folds: list[int], num_testing: int) -> None:
    note = f"class 'cat' is tested by only {num_testing} of 3 folds; add images or use fewer folds"
    assert notes("abcdefghi", "aaabbbccc", "ettettett", folds=[0, 1, 2, 0, 1, 2, *folds]) == [note]


def test_folds_of_real_splits_are_noted() -> None:
    digests = np.array([hashlib.blake2b(bytes([number]), digest_size=16).digest() for number in range(60)], dtype="S16")
    digests[59] = digests[1]  # a copy of a test image is not used either
    given = np.array(["test"] * 10 + ["val"] * 10 + [""] * 40, dtype="<U5")
    samples = Samples(digests=digests, labels=np.arange(60) % 2, given=given)
    splits, folds = split_by_fold(samples, num_folds=4, fold=1, val_ratio=0.1, split_seed=0)
    assert list(survey_notes(("ant", "bee"), samples, splits, folds, 0.25)) == [
        "11 given test images not used by the folds; train without folds to test on the given split"
    ]
    labels = np.array([0] * 20 + [1] + [2] * 3)
    samples = Samples(digests=digests[:24], labels=labels, given=np.full(24, "", dtype="<U5"))
    splits, folds = split_by_fold(samples, num_folds=5, fold=0, val_ratio=0.1, split_seed=0)
    assert "class 'cat' is tested by only 3 of 5 folds; add images or use fewer folds" in list(
        survey_notes(CLASSES, samples, splits, folds, 0.2)
    )
