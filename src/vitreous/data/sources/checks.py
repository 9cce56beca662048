"""Classes, labels, splits or weights of a source -> DataError if no classifier can be trained with them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, having, present
from vitreous.data.sources.source import Texts
from vitreous.data.sources.spelling import did_you_mean
from vitreous.errors import DataError
from vitreous.wording import plural


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
