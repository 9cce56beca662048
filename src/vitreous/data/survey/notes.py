"""Samples, their splits -> warnings for the user, one sentence each."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, having, is_multilabel, set_numbers
from vitreous.data.sources import Texts
from vitreous.data.survey.folds import ALWAYS_TRAIN, UNTOUCHED
from vitreous.data.survey.splits import Samples, torn_groups
from vitreous.wording import listed, plural

_MISSING = frozenset({"nan", "none", "null", "n/a", "na", "unlabeled", "unlabelled"})


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
    """Yield a warning for each class that cannot be learned or tested."""
    for label, name in enumerate(classes):
        members = having(labels, label)
        num_distinct = len(np.unique(content[members]))
        if num_distinct == 0:
            yield f"class {name!r} has no readable image, so it cannot be learned; add images or remove the class"
        elif not (members & (splits == "train")).any():
            yield f"class {name!r} has no training image, so it cannot be learned; add some or remove the class"
        elif num_distinct == 1:
            yield f"class {name!r} has only one distinct image, used for training; add images to measure its accuracy"


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
    for label, name in enumerate(classes):
        num_testing = len(set(folds[having(labels, label)].tolist()) - {ALWAYS_TRAIN, UNTOUCHED})
        if 0 < num_testing < num_folds:
            yield f"class {name!r} is tested by only {num_testing} of {num_folds} folds; add images or use fewer folds"
