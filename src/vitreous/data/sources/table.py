"""A table of paths and labels, perhaps with splits, groups and weights -> FileSource.

Relative paths are relative to the table's folder, or to `data.root` where one is given. Without a root the table's word
counts: `..` and absolute paths lead where they say. A root is a promise: a path that leaves it is refused, however it
is written. (Links within the root are followed: whoever made the root made them.)
"""

import math
import os
import re
import unicodedata
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.data.sources.paths import PackedPaths
from vitreous.data.sources.rows import Rows, open_rows
from vitreous.data.sources.source import SPLITS, FileSource, Texts
from vitreous.data.sources.spelling import COLUMN_SPELLINGS, columns_of, nearest_column, split_of
from vitreous.errors import DataError, nearest

MAX_CLASSES = 100_000
"""A column with more different labels is no label."""

_NEEDED = ("path", "label")
_NUM_TRIED = 16


def open_table(path: Path, root: Path | None = None) -> FileSource:
    """Read the table; no image is opened. A million rows take some 60 MB and the length of their paths.

    Headings are found in their usual spellings. A row that stands there twice counts once, and a note says so. A label
    is a text; where all are whole numbers the classes are in the order of numbers.

    Args:
        path: An existing CSV, TSV or Parquet file.
        root: What paths are relative to, and must not leave; None: the table's folder.

    Returns:
        The samples in the order of the table; classes sorted by name.

    Raises:
        DataError: A column that is missing or cannot be told from another, a cell that breaks a rule, fewer than two
            classes, a class in `val` or `test` that is not in `train`, or no file where the first paths lead.
        MissingDependencyError: Parquet without pyarrow.
    """
    if root is not None and not root.is_dir():
        raise DataError(f"data.root={root}: no such folder; give the one that the table's paths are relative to")
    table = open_rows(path)
    reader = _Reader(table, root or path.parent, jailed=root is not None)
    for where, cells in table.rows:
        reader.add(where, cells)
    return reader.source(path.stem)


class _Reader:
    """Rows -> columns of numbers and packed texts."""

    def __init__(self, table: Rows, root: Path, *, jailed: bool) -> None:
        self.where = f"data.source={table.where}"
        self.places = _find_columns(table)
        self.num_columns = len(table.columns)
        self.paths = PackedPaths(root)
        self.jail = os.path.normpath(root.absolute()) if jailed else None
        self.labels, self.splits, self.groups = array("l"), array("b"), array("l")
        self.weights, self.rows = array("d"), array("q")
        self.label_numbers: dict[str, int] = {}
        self.group_numbers: dict[str, int] = {"": 0}

    def add(self, where: str, cells: Sequence[str]) -> None:
        """One row. Raises DataError where a cell breaks a rule."""
        place = f"{self.where}: {where}"
        if len(cells) > self.num_columns and any(cells[self.num_columns :]):
            raise DataError(
                f"{place}: {len(cells)} cells below {self.num_columns} headings; "
                "put cells that contain the delimiter in quotes"
            )
        path, label, split, group, weight = (self._cell(cells, role) for role in COLUMN_SPELLINGS)
        label = unicodedata.normalize("NFC", label.strip())
        for role, text in (("path", path), ("label", label)):
            if not text:
                raise DataError(f"{place}: no {role}; fill it in, or leave the row out")
        if self.jail is not None:
            _check_inside(place, self.jail, path)
        self.paths.append(path)
        self.labels.append(self.label_numbers.setdefault(label, len(self.label_numbers)))
        self.splits.append(_split_number(place, split.strip()))
        self.groups.append(self.group_numbers.setdefault(group.strip(), len(self.group_numbers)))
        self.weights.append(_weight(place, weight.strip()))
        # A row's hash; equal ones are compared before one is left out.
        self.rows.append(hash((path, self.labels[-1], self.splits[-1])))
        if len(self.label_numbers) > MAX_CLASSES:
            raise DataError(f"{place}: over {MAX_CLASSES:,} different labels; call the column of the classes label")

    def source(self, name: str) -> FileSource:
        """All rows, each once. Raises DataError where they are no classification set."""
        if not len(self.paths):
            raise DataError(f"{self.where}: headings, but no rows; add a line an image")
        kept, notes = self._without_copies()
        classes, labels = _classes(self.label_numbers, np.array(self.labels, dtype=np.int64)[kept])
        splits = np.array(("", *SPLITS), dtype="<U5")[np.array(self.splits, dtype=np.int64)[kept]]
        weights = np.array(self.weights, dtype=np.float64)[kept]
        self._check_classes(classes, labels, splits)
        if not weights.any():
            raise DataError(f"{self.where}: all {len(weights):,} weights are 0; give some images a larger one")
        self._check_some_file()
        names = np.array(list(self.group_numbers), dtype=object)
        return FileSource(
            name=name,
            classes=classes,
            paths=self.paths if len(kept) == len(self.paths) else _chosen(self.paths, kept),
            labels=labels,
            splits=splits,
            groups=names[np.array(self.groups, dtype=np.int64)[kept]] if "group" in self.places else None,
            weights=weights if "weight" in self.places else None,
            notes=notes,
        )

    def _cell(self, cells: Sequence[str], role: str) -> str:
        place = self.places.get(role, len(cells))
        return cells[place] if place < len(cells) else ""

    def _without_copies(self) -> tuple[NDArray[np.int64], list[str]]:
        _, first, which = np.unique(np.array(self.rows), return_index=True, return_inverse=True)
        originals = first[which]
        later = np.flatnonzero(originals != np.arange(len(originals)))
        copies = [row for row in later.tolist() if self._row(row) == self._row(int(originals[row]))]
        notes = [f"{self.where}: {len(copies):,} rows stand there twice; each counts once"] if copies else []
        return np.delete(np.arange(len(originals)), copies), notes

    def _row(self, row: int) -> tuple[str, int, int]:
        return self.paths.text(row), self.labels[row], self.splits[row]

    def _check_classes(self, classes: Sequence[str], labels: NDArray[np.int64], splits: Texts) -> None:
        if len(classes) == 1:
            raise DataError(f"{self.where}: only one class, {classes[0]!r}; a classifier needs two; add rows of others")
        trained = np.unique(labels[np.isin(splits, ("", "train"))])
        for number in np.setdiff1d(labels, trained).tolist():
            split = splits[labels == number][0]
            raise DataError(
                f"{self.where}: class {classes[number]!r} is in {split}, but not in train; "
                f"{nearest(classes[number], [classes[label] for label in trained.tolist()])}"
            )

    def _check_some_file(self) -> None:
        """A wrong root is told at once, not after a million files that are not there."""
        tried = min(_NUM_TRIED, len(self.paths))
        try:
            exists = any(self.paths[number].exists() for number in range(tried))
        except (OSError, ValueError):
            exists = True  # the survey says what is wrong with each
        if not exists:
            raise DataError(
                f"{self.where}: none of its first {tried} files exists, {self.paths[0]} is the first; "
                "set data.root to the folder that its paths are relative to"
            )


def _check_inside(place: str, jail: str, path: str) -> None:
    whole = os.path.normpath(os.path.join(jail, path))  # noqa: PTH118  # by the letter: nothing is looked up
    if not whole.startswith(os.path.join(jail, "")):  # noqa: PTH118
        raise DataError(f"{place}: path={path}: leaves data.root={jail}; give a root that holds all images")


def _find_columns(table: Rows) -> dict[str, int]:
    """Role -> position, for each role that the table has. Raises DataError as `open_table`."""
    shown = ", ".join(table.columns[:12]) + (", …" if len(table.columns) > 12 else "")
    places: dict[str, int] = {}
    for role in COLUMN_SPELLINGS:
        found = columns_of(role, table.columns)
        if len(found) > 1:
            both = " and ".join(table.columns[place] for place in found[:3])
            raise DataError(
                f"data.source={table.where}: columns {both} could each be the {role}; call the right one {role}"
            )
        if found:
            places[role] = found[0]
        elif role in _NEEDED:
            near = nearest_column(role, table.columns)
            way_out = f"did you mean {near}? Call it {role}" if near else f"call one {role}, in the first line"
            raise DataError(f"data.source={table.where}: no column for the {role} among {shown}; {way_out}")
    return places


def _split_number(place: str, text: str) -> int:
    if not text:
        return 0
    split = split_of(text)
    if split is None:
        raise DataError(f"{place}: split={text}: no such split; {nearest(text, SPLITS)}, or leave the cell empty")
    return 1 + SPLITS.index(split)


def _weight(place: str, text: str) -> float:
    if not text:
        return 1.0
    try:
        weight = float(text.replace(",", "."))
    except ValueError:
        weight = math.nan
    if not 0.0 <= weight < math.inf:
        raise DataError(f"{place}: weight={text}: must be a number of at least 0; leave the cell empty for 1")
    return weight


def _classes(numbers: dict[str, int], labels: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
    """The classes in order, and each sample's place among them; `2.0` is `2` where all labels are whole numbers."""
    names = list(numbers)
    if all(re.fullmatch(r"-?[0-9]{1,18}(\.0*)?", name) for name in names):
        names = [name.split(".")[0] for name in names]
        classes = sorted(set(names), key=lambda name: (int(name), name))
    else:
        classes = sorted(names)
    places = {name: place for place, name in enumerate(classes)}
    return classes, np.array([places[name] for name in names], dtype=np.int64)[labels]


def _chosen(paths: PackedPaths, rows: NDArray[np.int64]) -> PackedPaths:
    chosen = PackedPaths(paths.root)
    for row in rows.tolist():
        chosen.append(paths.text(row))
    return chosen
