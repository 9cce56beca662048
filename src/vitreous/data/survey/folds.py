"""Digests, labels, groups, given splits -> the fold of each sample, and the splits of one fold's run.

A single split of a small set tests few images, and says little. With K folds K runs test every image once, each by a
model that did not train on it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitreous.data.config import check_folds
from vitreous.data.sources import Texts
from vitreous.data.survey.splits import Digests, assign_splits, families_of, following
from vitreous.errors import DataError
from vitreous.seeding import derive, uniform

ALWAYS_TRAIN = -1
"""The fold of a sample that no run tests: it was given as val, or its family is the only one of a class."""
UNTOUCHED = -2
"""The fold of a sample that no run sees: it was given as test, or follows its family there."""

_GOLDEN = (5**0.5 - 1) / 2


def assign_folds(
    digests: Digests,
    labels: NDArray[np.int64],
    given: Texts,
    num_folds: int,
    split_seed: int,
    groups: Texts | None = None,
) -> NDArray[np.int64]:
    """Divide the samples that are free (given as train or not at all) into folds of the same mixture of classes.

    What must not be torn apart (see `splits`) stays in one fold. The families of each class are ranked by a hash of
    (family, `split_seed`); rank r of n goes to fold ⌊K (r + o) / n⌋, with an offset o in [0, 1) of the class's own, so
    that what is left over does not always fall to the same fold. So every fold has n/K of them, one more or less, and
    one file that is added moves at most K − 1 others of its class. Families that show several classes are ranked
    together. A family that is the only one of a class is in no fold, as nothing else could be trained on.

    Args:
        digests: A hash of each sample's content, at least 8 bytes, `[n]`.
        labels: Class indices, `[n]`.
        given: `train`, `val`, `test` or an empty text, `[n]`.
        num_folds: K, at least 2.
        split_seed: Another seed, other folds.
        groups: Each sample's group, an empty text for none, `[n]`; None: no groups.

    Returns:
        A fold in [0, K), `ALWAYS_TRAIN` or `UNTOUCHED`, `[n]`.

    Raises:
        DataError: No class has as many families as there are folds, or a fold stays empty.
    """
    family, keys, _ = families_of(digests, groups)
    given = following(given, family, len(keys))
    free = np.isin(given, ("", "train"))
    pairs = np.unique(np.stack([labels[free], family[free]]), axis=1)
    label_of, member = pairs
    what = "images" if groups is None else "groups and single images"
    num_classes = np.bincount(member, minlength=len(keys))
    counts = np.bincount(label_of)
    most = max(int(counts.max(initial=0)), int((num_classes > 1).sum()))
    if most < num_folds:
        raise DataError(f"data.num_folds={num_folds}: no class has so many different {what}; use at most {most}")
    stratum = np.full(len(keys), ALWAYS_TRAIN)
    stratum[member] = label_of
    stratum[num_classes > 1] = len(counts)
    is_last = np.isin(np.arange(len(keys)), member[counts[label_of] == 1])
    draws = uniform(derive(split_seed, "fold"), keys, 1)[:, 0]
    fold = np.full(len(keys), ALWAYS_TRAIN)
    for number in np.unique(stratum[stratum >= 0]):
        members = np.flatnonzero((stratum == number) & ~is_last)
        ranked = members[np.lexsort((keys[members], draws[members]))]
        offset = (number + 1) * _GOLDEN % 1
        fold[ranked] = np.floor(num_folds * (np.arange(len(ranked)) + offset) / max(1, len(ranked)))
    empty = sorted(set(range(num_folds)) - set(fold.tolist()))
    if empty:
        raise DataError(f"data.num_folds={num_folds}: too few {what} to fill fold {empty[0]}; use fewer folds")
    return np.where(free, fold[family], np.where(given == "test", UNTOUCHED, ALWAYS_TRAIN))


def split_by_fold(
    digests: Digests,
    labels: NDArray[np.int64],
    given: Texts,
    num_folds: int,
    fold: int,
    val_ratio: float,
    split_seed: int,
    groups: Texts | None = None,
) -> tuple[Texts, NDArray[np.int64]]:
    """The splits of one fold's run: the fold is its test, validation comes from the others as `assign_splits` does it.

    Args:
        digests: As in `assign_folds`.
        labels: As there.
        given: As there.
        num_folds: As there.
        fold: Which one to hold out.
        val_ratio: In [0, 1).
        split_seed: As in `assign_folds`.
        groups: As there.

    Returns:
        `train`, `val` or `test` for each sample, an empty text for one that no run may see, `[n]`; and the folds.

    Raises:
        ConfigError: There is no such fold.
        DataError: As `assign_folds`, and where no sample is left for training.
    """
    check_folds(num_folds, fold)
    folds = assign_folds(digests, labels, given, num_folds, split_seed, groups)
    seen = np.flatnonzero(folds != UNTOUCHED)
    held_out = np.where(folds == fold, "test", given)[seen]
    splits = np.full(len(labels), "", dtype="<U5")
    splits[seen] = assign_splits(
        [digests[i] for i in seen.tolist()],
        labels[seen],
        held_out,
        test_ratio=0.0,
        val_ratio=val_ratio,
        split_seed=split_seed,
        groups=None if groups is None else groups[seen],
    )
    return splits, folds


def fold_notes(classes: Sequence[str], labels: NDArray[np.int64], folds: NDArray[np.int64]) -> list[str]:
    """What the folds cannot tell, one sentence each."""
    notes, num_folds = [], int(folds.max()) + 1
    num_given = int((folds == UNTOUCHED).sum())
    if num_given:
        notes.append(
            f"{num_given:,} images are given as test and stay untouched: the folds are over the others; a run without "
            f"folds is tested on them"
        )
    for label, name in enumerate(classes):
        num_tested_by = len(set(folds[labels == label].tolist()) - {ALWAYS_TRAIN, UNTOUCHED})
        if 0 < num_tested_by < num_folds:
            notes.append(f"class {name!r} has too few images for {num_folds} folds: {num_tested_by} of them test it")
    return notes
