"""Samples, their splits -> warnings for the user, one sentence each."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, count_labels, is_multilabel, label_pairs, set_numbers
from vitreous.data.sources import Texts
from vitreous.data.survey.folds import ALWAYS_TRAIN, UNTOUCHED
from vitreous.data.survey.splits import Samples, torn_groups
from vitreous.wording import listed, plural

_MISSING = frozenset({"nan", "none", "null", "n/a", "na", "unlabeled", "unlabelled"})

_MOST_SENTENCES = 3
"""Number of classes with the same problem above which they share one sentence."""


def survey_notes(
    classes: Sequence[str], samples: Samples, splits: Texts, folds: NDArray[np.int64] | None, test_ratio: float
) -> Iterator[str]:
    """Yield the warnings about a data set; without folds, `folds` is None."""
    _, content = np.unique(samples.digests, return_inverse=True)
    yield from _on_names(classes)
    yield from _on_classes(classes, content, samples.labels, splits)
    yield from _on_copies(content, samples.labels, splits)
    if samples.groups is not None:
        yield from _on_groups(samples.groups, splits, test_ratio)
    if folds is not None:
        yield from _on_folds(classes, samples.labels, folds)


def _on_names(classes: Sequence[str]) -> Iterator[str]:
    """Yield a warning for names that differ only in case, and for those that stand for a missing label."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault(name.casefold(), []).append(name)
    for folded, names in spellings.items():
        if len(names) > 1 and len(folded) > 1:  # a letter in both cases may be two classes
            yield f"classes {listed([repr(name) for name in names])} differ only in case; if they are one, merge them"
        if folded in _MISSING:
            yield f"class {names[0]!r} may be a missing label; if it is, remove its images or label them"


def _on_classes(classes: Sequence[str], content: NDArray[np.int64], labels: LabelArray, splits: Texts) -> Iterator[str]:
    """Yield warnings about classes that cannot be learned or tested."""
    num_distinct = _count_distinct(labels, content, len(classes))
    has_training = count_labels(labels[splits == "train"], len(classes)) > 0
    for found, problem in (
        (num_distinct == 0, "has no readable image, so it cannot be learned; add images or remove the class"),
        ((num_distinct > 0) & ~has_training, "has no training image, so it cannot be learned; add some or remove the "
         "class"),
        ((num_distinct == 1) & has_training, "has only one distinct image, used for training; add images to measure "
         "its accuracy"),
    ):  # fmt: skip
        yield from _on_each(classes, found, problem)


def _on_copies(content: NDArray[np.int64], labels: LabelArray, splits: Texts) -> Iterator[str]:
    """Yield warnings about exact copies: training images in val or test, and one image in several classes."""
    for held_out in ("val", "test"):
        num_copies = int(np.isin(content[splits == held_out], content[splits == "train"]).sum())
        if num_copies:
            copies = plural(num_copies, f"{held_out} image")
            yield f"{copies} also in train, byte for byte: {held_out} accuracy is optimistic; remove the copies"
    contents_of_classes = np.unique(np.stack([content, set_numbers(labels)]), axis=1)[0]
    num_ambiguous = int((np.bincount(contents_of_classes) > 1).sum())
    if num_ambiguous and is_multilabel(labels):
        yield f"{plural(num_ambiguous, 'image')} with different labels, byte for byte; keep only the right labels"
    elif num_ambiguous:
        yield f"{plural(num_ambiguous, 'image')} in several classes, byte for byte; keep only the right class"


def _on_groups(groups: Texts, splits: Texts, test_ratio: float) -> Iterator[str]:
    """Yield warnings about groups that are in several splits, or that leave no test images."""
    num_torn = torn_groups(groups, splits)
    if num_torn:
        torn = plural(num_torn, "group")
        yield f"{torn} in train and also in val or test: held-out accuracy is optimistic; put each group in one split"
    if test_ratio and "test" not in splits:
        joined = plural(len(set(groups.tolist()) - {""}), "group")
        yield f"no test images: {joined}, possibly joined by shared images, cannot be split up; add other groups"


def _on_folds(classes: Sequence[str], labels: LabelArray, folds: NDArray[np.int64]) -> Iterator[str]:
    """Yield warnings about given test images, which no fold tests, and classes that some folds do not test."""
    num_folds, num_given = int(folds.max()) + 1, int((folds == UNTOUCHED).sum())
    if num_given:
        given = plural(num_given, "given test image")
        yield f"{given} not used by the folds; train without folds to test on the given split"
    is_tested = ~np.isin(folds, [ALWAYS_TRAIN, UNTOUCHED])
    num_testing = _count_distinct(labels[is_tested], folds[is_tested], len(classes))
    for number in range(1, num_folds):
        problem = f"is tested by only {number} of {num_folds} folds; add images or use fewer folds"
        yield from _on_each(classes, num_testing == number, problem)


def _on_each(classes: Sequence[str], found: NDArray[np.bool_], problem: str) -> Iterator[str]:
    """Yield one sentence per class with a problem, or a single sentence if they are many."""
    names = [classes[label] for label in np.flatnonzero(found).tolist()]
    if len(names) > _MOST_SENTENCES:
        names, problem = names[:1], f"and {len(names) - 1:,} others: each {problem}"
    yield from (f"class {name!r} {problem}" for name in names)


def _count_distinct(labels: LabelArray, values: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return how many different values the samples of each class have, `[num_classes]`."""
    return np.bincount(label_pairs(labels, values)[0], minlength=num_classes)[:num_classes]
