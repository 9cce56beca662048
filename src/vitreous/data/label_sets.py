"""Labels of a data set, one per sample or several -> counts, members and pairs, by the same functions for both.

Labels are class indices, int64 `[n]`, or for a multi-label set a truth value per sample and class, bool `[n, classes]`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray

from vitreous.errors import DataError, nearest
from vitreous.wording import plural, printable

LabelArray = Shaped[np.ndarray, "samples *classes"]
"""Class indices, int64 `[n]`; or truth values, bool `[n, classes]`."""

SEPARATORS = ";|"
"""Characters that separate the labels of an image in a cell of a table."""
MAX_CELLS = 4_000_000_000
"""Largest number of samples times classes of a multi-label set: it takes one byte each."""


def split_labels(text: str) -> tuple[str, ...]:
    """Return the labels in a cell, e.g. `("cat", "dog")` for `cat; dog;`; each only once."""
    parts = (part.strip() for part in re.split(f"[{SEPARATORS}]", text))
    return tuple(dict.fromkeys(part for part in parts if part))


def join_labels(names: Iterable[str]) -> str:
    """Return labels as one text, which `split_labels` takes apart."""
    return ";".join(names)


def check_label_names(where: str, names: Iterable[str]) -> None:
    """Raise DataError for a name that would be another one, or several, after `join_labels`."""
    for name in names:
        if split_labels(name) != (name,):
            raise DataError(
                f"{where}: label {printable(name)!r}: contains ; or |, or begins or ends in a blank; rename it"
            )


def truth_table(where: str, sets: Sequence[Sequence[int]], of_row: NDArray[np.int64], row_of: NDArray[np.int64],
                num_classes: int) -> NDArray[np.bool_]:  # fmt: skip
    """Return which sample has which labels, `[samples, classes]`.

    In row i of a table, sample `row_of[i]` has the class indices `sets[of_row[i]]`; a sample has the labels of all its
    rows. Raises DataError, which begins with `where`, if the table would not fit into memory.
    """
    from scipy.sparse import csr_array

    num_samples = int(row_of.max(initial=-1)) + 1
    if num_samples * num_classes > MAX_CELLS:
        raise DataError(
            f"{where}: {num_samples:,} images times {num_classes:,} labels are too many for several labels per image; "
            "leave out rare labels"
        )
    counts = [len(numbers) for numbers in sets]
    members = (
        np.repeat(np.arange(len(sets)), counts),
        np.array([n for numbers in sets for n in numbers], dtype=np.int64),
    )
    in_set = csr_array((np.ones(sum(counts), np.int32), members), shape=(len(sets), num_classes))
    in_rows = csr_array((np.ones(len(of_row), np.int32), (row_of, of_row)), shape=(num_samples, len(sets)))
    return (in_rows @ in_set).astype(np.bool_).toarray()


def checked_label(where: str, target: object) -> int | str | tuple[Any, ...]:
    """Return the label of a sample from Python, or several as a tuple of names or of numbers.

    Raises DataError if it is neither a class index nor a class name, nor a list of them.
    """
    if isinstance(target, torch.Tensor):
        target = target.detach().cpu().numpy()
    if isinstance(target, np.ndarray | np.generic) and target.size == 1:
        target = target.item()
    if isinstance(target, str):
        return target
    if isinstance(target, int):
        return int(target)
    if isinstance(target, list | tuple | set | frozenset) or (isinstance(target, np.ndarray) and target.ndim == 1):
        labels = tuple(sorted(target, key=str)) if isinstance(target, set | frozenset) else tuple(target)
        if all(isinstance(label, str) for label in labels) or all(
            isinstance(x, int | float | np.number) for x in labels
        ):
            return labels
    raise DataError(
        f"{where}: label={str(target)[:60]}: neither a class index nor a class name; return an int or a str, or a list "
        "of str for several labels"
    )


def class_names(known: object) -> list[str] | None:
    """Return the class names that a data set lists; None if it has no list or tuple of them."""
    return [str(name) for name in known] if isinstance(known, list | tuple) and known else None


def number_sets(where: str, known: object, sets: Sequence[Sequence[object]]) -> tuple[list[str], NDArray[np.bool_]]:
    """Return the class names, and which sample has which, `[n, classes]`.

    Args:
        where: How messages begin, e.g. `data=Photos`.
        known: A list or tuple of the class names; anything else means that they are not known.
        sets: For each sample the names of its labels; or for each sample 0 or 1 per class.

    Raises:
        DataError: Numbers other than 0 and 1, samples with different numbers of them, or an unknown name.
    """
    classes = class_names(known)
    check_label_names(where, classes or ())
    if all(isinstance(label, str) for labels in sets for label in labels):
        classes = classes or sorted({str(label) for labels in sets for label in labels})
        check_label_names(where, classes)
        index = {name: number for number, name in enumerate(classes)}
        for label in (label for labels in sets for label in labels if label not in index):
            raise DataError(
                f"{where}: label={label!r}: not one of the {len(index)} classes; {nearest(str(label), index)}"
            )
        numbers = [[index[str(label)] for label in labels] for labels in sets]
        return classes, truth_table(where, numbers, np.arange(len(sets)), np.arange(len(sets)), len(index))
    classes = classes or [str(number) for number in range(len(sets[0]))]
    for number, labels in enumerate(sets):
        if len(labels) != len(classes) or any(label not in (0, 1) for label in labels):
            raise DataError(
                f"{where}: sample {number}: label={printable(str(list(labels)), 60)}: is not 0 or 1 for each of "
                f"{plural(len(classes), 'class', 'classes')}; return these numbers, or the names of the labels"
            )
    return classes, np.array(sets).astype(np.bool_).reshape(len(sets), len(classes))


def is_multilabel(labels: LabelArray) -> bool:
    """Return True for labels of samples that may have several."""
    return labels.ndim == 2


def present(labels: LabelArray) -> NDArray[np.int64]:
    """Return the classes that at least one sample has, sorted."""
    return np.flatnonzero(labels.any(axis=0)) if is_multilabel(labels) else np.unique(labels)


def having(labels: LabelArray, number: int) -> NDArray[np.bool_]:
    """Return which samples have a class, `[n]`."""
    return labels[:, number] if is_multilabel(labels) else labels == number


def memberships(labels: LabelArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of a sample and a class that it has: positions of the samples, and class indices."""
    if is_multilabel(labels):
        samples, classes = np.nonzero(labels)
        return samples, classes
    return np.arange(len(labels)), labels


def count_labels(labels: LabelArray, num_classes: int) -> NDArray[np.int64]:
    """Return the number of samples of each class, `[classes]`."""
    return labels.sum(axis=0) if is_multilabel(labels) else np.bincount(labels, minlength=num_classes)


def set_numbers(labels: LabelArray) -> NDArray[np.int64]:
    """Return one number per sample, `[n]`, equal for samples with the same labels: its class, or its set of labels."""
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1) if is_multilabel(labels) else labels


def label_pairs(labels: LabelArray, families: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct pairs (class, family) of samples, sorted, `[2, pairs]`; no label counts as one more class."""
    if not is_multilabel(labels):
        return np.unique(np.stack([labels, families]), axis=1)
    none = ~labels.any(axis=1, keepdims=True)
    rows, classes = np.nonzero(np.concatenate([labels, none], axis=1))
    return np.unique(np.stack([classes, families[rows]]), axis=1)


def label_texts(labels: LabelArray) -> list[str]:
    """Return the class indices of each sample as text, e.g. `3`, or `0,4` for several."""
    if not is_multilabel(labels):
        return [str(label) for label in labels]
    return [",".join(map(str, np.flatnonzero(row))) for row in labels]
