"""Class indices or class names of samples -> the names of the classes, and each label as an index into them.

The checks raise DataError if no classifier can be trained with the classes, labels, splits or weights of a source.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, class_names, having, present
from vitreous.data.sources.source import Texts
from vitreous.data.sources.spelling import did_you_mean, in_class_order
from vitreous.errors import DataError, nearest
from vitreous.wording import plural

Label = int | str | tuple[Any, ...]
"""A class index, a class name, or several of either."""


def number_classes(where: str, known: object, labels: Sequence[Label]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the class names, and each label as an index into them.

    Args:
        where: How messages begin, e.g. `data=CIFAR10`.
        known: A list or tuple of the class names; anything else means that they are not known.
        labels: Class indices or class names.

    Raises:
        DataError: A label is not one of the known classes, or some labels are numbers and others names.
    """
    is_number = [isinstance(label, int) for label in labels]
    names = class_names(known)
    if any(is_number) and not all(is_number):
        odd = labels[is_number.index(not is_number[0])]
        raise DataError(
            f"{where}: labels {labels[0]!r} and {odd!r} mix numbers and names; use either class indices or class names"
        )
    found: Sequence[Label]
    if names is not None:
        found = range(len(names)) if all(is_number) else names
    else:
        found = sorted(set(labels)) if all(is_number) else in_class_order(set(map(str, labels)))
        names = [str(label) for label in found]
    numbers = {label: number for number, label in enumerate(found)}
    for label in set(labels):
        if label not in numbers:
            way_out = nearest(label, names) if isinstance(label, str) else f"use 0 to {len(names) - 1}"
            raise DataError(f"{where}: label={label!r}: not one of the {len(names)} classes; {way_out}")
    return names, np.array([numbers[label] for label in labels], dtype=np.int64)


def renumbered(where: str, labels: Sequence[Label], own: object, known: object) -> list[Label]:
    """Return the labels of one of several sets; class indices become those of known classes.

    Args:
        where: How messages begin, e.g. `data=CIFAR10`.
        labels: Class indices or class names; sets of labels stay as they are.
        own: The class names of this set, which may be only some of the known ones, in any order.
        known: The class names of the first set. If it or this set has none, labels stay as they are.

    Raises:
        DataError: An index is not one of the set's own classes, or the class is not a known one.
    """
    given, wanted, indices = class_names(own), class_names(known), [one for one in labels if isinstance(one, int)]
    if not given or not wanted or given == wanted or len(indices) < len(labels):
        return list(labels)
    names = [given[number] for number in number_classes(where, given, indices)[1]]
    return list(number_classes(where, wanted, names)[1].tolist())


def check_classes(where: str, classes: Sequence[str], labels: LabelArray) -> None:
    """Raise DataError if there is only one class, or if no image of a multi-label set has a label.

    `where` begins the message, e.g. `data.source=labels.csv`.
    """
    if not len(present(labels)):
        raise DataError(f"{where}: none of {plural(len(labels), 'image')} has a label; label some of them")
    if len(classes) == 1:
        raise DataError(f"{where}: only one class, {classes[0]!r}; a classifier needs two, so add images of another")


def check_train_classes(where: str, classes: Sequence[str], labels: LabelArray, splits: Texts) -> None:
    """Raise DataError if a class of `val` or `test` has no images in `train`, where images without a split count."""
    trained = present(labels[np.isin(splits, ("", "train"))])
    for number in np.setdiff1d(present(labels), trained).tolist():
        name, split = classes[number], splits[having(labels, number)][0]
        known = [classes[label] for label in trained.tolist()]
        way_out = did_you_mean(name, known, otherwise=f"add some to train, or leave the class out of {split}")
        raise DataError(f"{where}: class {name!r} has images in {split} but none in train; {way_out}")


def check_weights(where: str, weights: NDArray[np.float64]) -> None:
    """Raise DataError if all weights, `[n]`, are 0."""
    if not weights.any():
        raise DataError(f"{where}: all {len(weights):,} weights are 0; give some images a weight above 0")
