"""Samples -> the fold of each, the splits of the run that tests on one fold, and folds for quick cross-validation.

The test split of a small data set has few images, so its accuracy is uncertain. With K folds, K runs test every image
once, each with a model that was not trained on it.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from vitreous.data.config import check_folds
from vitreous.data.label_sets import LabelArray, label_pairs
from vitreous.data.sources import Texts
from vitreous.data.survey.splits import Samples, assign_splits, find_families, inherit_splits
from vitreous.errors import DataError
from vitreous.seeding import derive, uniform

ALWAYS_TRAIN = -1
"""Fold of a sample that no run tests: it was given as val, or its family is the only one of a class."""
UNTOUCHED = -2
"""Fold of a sample that no run sees: it was given as test, or its family was."""

Folds = list[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Positions to fit to and positions to score, for each fold of a cross-validation."""

_GOLDEN = (5**0.5 - 1) / 2


def assign_folds(samples: Samples, *, num_folds: int, split_seed: int) -> NDArray[np.int64]:
    """Assign free samples (given as train or not at all) to folds with the same mixture of classes.

    Families (see `splits`) stay in one fold. The families of each class are ranked by a hash of (family, `split_seed`),
    and rank r of n goes to fold ⌊K (r + o) / n⌋. Thus every fold gets n/K of them, rounded up or down, and a new file
    moves at most K − 1 others of its class. The offset o in [0, 1) differs between classes, so that the remainders do
    not all go to the same fold. Families with several classes are ranked together. A family that is the only one of a
    class is in no fold, because no other image of the class could be trained on.

    Return a fold in [0, K), `ALWAYS_TRAIN` or `UNTOUCHED`, `[n]`. Raises DataError if each class has fewer families
    than there are folds, or a fold stays empty.
    """
    families = find_families(samples)
    keys, num_families = families.keys, len(families.keys)
    given = inherit_splits(samples.given, families)
    free = np.isin(given, ("", "train"))
    label_of, member = label_pairs(samples.labels[free], families.of_sample[free])
    counted = "images" if samples.groups is None else "groups and single images"
    num_classes = np.bincount(member, minlength=num_families)
    counts = np.bincount(label_of)
    most = max(int(counts.max(initial=0)), int((num_classes > 1).sum()))
    if most < num_folds:
        way_out = f"use at most {most} folds" if most > 1 else "add more"
        raise DataError(f"data.num_folds={num_folds}: no class has that many distinct {counted}; {way_out}")
    # A stratum is a class, or all families with several classes.
    stratum = np.full(num_families, ALWAYS_TRAIN)
    stratum[member] = label_of
    stratum[num_classes > 1] = len(counts)
    is_only = np.isin(np.arange(num_families), member[counts[label_of] == 1])
    draws = uniform(derive(split_seed, "fold"), keys, 1)[:, 0]
    fold = np.full(num_families, ALWAYS_TRAIN)
    for number in np.unique(stratum[stratum >= 0]):
        members = np.flatnonzero((stratum == number) & ~is_only)
        ranked = members[np.lexsort((keys[members], draws[members]))]
        offset = (number + 1) * _GOLDEN % 1
        fold[ranked] = np.floor(num_folds * (np.arange(len(ranked)) + offset) / max(1, len(ranked)))
    empty = sorted(set(range(num_folds)) - set(fold.tolist()))
    if empty:
        way_out = "use fewer folds" if num_folds > 2 else "add more"
        raise DataError(f"data.num_folds={num_folds}: too few {counted} to fill fold {empty[0]}; {way_out}")
    return np.where(free, fold[families.of_sample], np.where(given == "test", UNTOUCHED, ALWAYS_TRAIN))


def split_by_fold(
    samples: Samples, *, num_folds: int, fold: int, val_ratio: float, split_seed: int
) -> tuple[Texts, NDArray[np.int64]]:
    """Assign the splits of the run that tests on one fold; `assign_splits` carves val out of the other folds.

    Returns:
        `train`, `val` or `test` for each sample, or an empty string if the run must not see it, `[n]`; and the folds,
        `[n]`.

    Raises:
        ConfigError: There is no such fold.
        DataError: There are too few images for the folds, or no sample is left for training.
    """
    check_folds(num_folds, fold)
    folds = assign_folds(samples, num_folds=num_folds, split_seed=split_seed)
    seen = np.flatnonzero(folds != UNTOUCHED)
    seen_samples = Samples(
        digests=samples.digests[seen],
        labels=samples.labels[seen],
        given=np.where(folds == fold, "test", samples.given)[seen],
        groups=None if samples.groups is None else samples.groups[seen],
    )
    splits = np.full(len(folds), "", dtype="<U5")
    splits[seen] = assign_splits(seen_samples, test_ratio=0.0, val_ratio=val_ratio, split_seed=split_seed)
    return splits, folds


def family_folds(labels: LabelArray, families: NDArray[np.int64], num_folds: int) -> Folds:
    """Return folds for a cross-validation with families, such as the images of a patient, on one side each.

    The families of each class, or those of sets of labels all together, are spread evenly; a family counts for the
    class of its first sample. There are fewer folds if no class has that many families.

    Args:
        labels: Class indices, `[n]`, or which classes each sample has, `[n, classes]`.
        families: A number for each sample, equal for those of a family, `[n]`; see `Survey.families`.
        num_folds: Number of folds, at least 2.

    Returns:
        For each fold, the positions to fit to and those to score. Empty if no class has two families, or if a fold
        would leave a single class to fit to.
    """
    from sklearn.model_selection import StratifiedKFold

    _, first, member = np.unique(families, return_index=True, return_inverse=True)
    order = np.argsort(first)  # families in the order of their first samples
    strata = labels[first[order]] if labels.ndim == 1 else np.zeros(len(first), dtype=np.int64)
    num_folds = min(num_folds, int(np.bincount(strata).max(initial=0)))
    if num_folds < 2:
        return []
    with warnings.catch_warnings(action="ignore"):  # of classes with fewer families than there are folds
        parts = list(StratifiedKFold(num_folds, shuffle=True, random_state=0).split(strata, strata))
    rank = np.argsort(order)[member]
    folds = [(np.flatnonzero(np.isin(rank, fit)), np.flatnonzero(np.isin(rank, scored))) for fit, scored in parts]
    return folds if all(len(np.unique(labels[fit], axis=0)) > 1 for fit, _ in folds) else []
