"""A table of paths and labels, optionally with splits, groups and weights -> FileSource.

Relative paths are relative to the table's folder, or to `data.root` if that is given. Without a root, `..` and absolute
paths may lead anywhere. With a root, a path that leaves it is rejected, however it is written. Links inside the root
are followed.
"""

import math
import os
import unicodedata
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_cells import MAX_CLASSES, Cell, LabelColumns, Reading, Task, read_cells, read_columns
from vitreous.data.label_sets import split_labels
from vitreous.data.sources.classes import check_classes, check_train_classes, check_weights
from vitreous.data.sources.paths import PackedPaths, check_some_path_exists
from vitreous.data.sources.rows import Rows, open_rows
from vitreous.data.sources.source import SPLITS, FileSource
from vitreous.data.sources.spelling import (
    COLUMN_SPELLINGS,
    columns_of,
    did_you_mean,
    nearest_column,
    split_of,
    squeeze,
)
from vitreous.errors import DataError
from vitreous.wording import listed, plural, printable


def open_table(path: Path, root: Path | None = None, task: Task = "auto") -> FileSource:
    """Read a table; no image is opened. A million rows take about 60 MB plus the length of their paths.

    Columns are recognized by the common spellings of their headings. Of identical rows only the first counts, and a
    note says so. Labels are strings; if all are whole numbers, the classes are sorted as numbers. By default, `root` is
    the table's folder, which paths may leave; another root must contain all images. Whether an image has one label or
    several is the `task`; see `label_cells`.

    Returns:
        The samples in the order of the table; classes sorted by name.

    Raises:
        DataError: A column is missing or ambiguous, a cell breaks a rule, there are fewer than two classes, a class in
            `val` or `test` is not in `train`, all weights are 0, or the first paths do not exist.
        MissingDependencyError: It is a Parquet file and pyarrow is not installed.
    """
    if root is not None and not root.is_dir():
        raise DataError(f"data.root={root}: no such folder; use the folder that the table's paths are relative to")
    table = open_rows(path)
    reader = _Reader(table, root or path.parent, task, is_confined=root is not None)
    for where, cells in table.rows:
        reader.add(where, cells)
    return reader.source(path)


def read_paths(path: Path) -> PackedPaths:
    """Read only the paths of a table, one per row; whether they exist is not checked.

    Raises as `open_rows` does, and DataError if there is no column of paths, a path is empty, or there are no rows.
    """
    table, paths = open_rows(path), PackedPaths(path.parent)
    position = _find_column(table, "path")
    for place, cells in table.rows:
        paths.append(_filled(f"{table.where}: {place}", cells[position] if position < len(cells) else ""))
    _check_not_empty(table.where, paths)
    return paths


class _Reader:
    """Rows of a table, collected as columns of numbers and packed strings; `is_confined` keeps paths in the root."""

    def __init__(self, table: Rows, root: Path, task: Task, *, is_confined: bool) -> None:
        self.where, self.task = table.where, task
        self.columns = {role: at for role in COLUMN_SPELLINGS if (at := _find_column(table, role)) >= 0}
        self.headings = table.columns
        self.label_columns = None if "label" in self.columns else LabelColumns(_other_columns(self.columns, table))
        self.paths = PackedPaths(root)
        self.confines = os.path.normpath(root.absolute()) if is_confined else None
        self.labels, self.splits, self.groups = array("l"), array("b"), array("l")
        self.weights, self.hashes = array("d"), array("q")
        self.label_numbers: dict[Cell, int] = {}
        self.unlabeled = ""
        self.group_numbers: dict[str, int] = {"": 0}

    def add(self, where: str, cells: Sequence[str]) -> None:
        """Add a row. Raises DataError if a cell breaks a rule."""
        place = f"{self.where}: {where}"
        if len(cells) > len(self.headings) and any(cells[len(self.headings) :]):
            raise DataError(
                f"{place}: {len(cells)} cells, but only {len(self.headings)} columns have headings; "
                "put cells that contain the delimiter in quotes"
            )
        path, _, split, group, weight = (self._cell(cells, role) for role in COLUMN_SPELLINGS)
        path = _filled(place, path)
        label = self._label(place, cells)
        if self.confines is not None:
            _check_inside(place, self.confines, path)
        self.paths.append(path)
        self.labels.append(self.label_numbers.setdefault(label, len(self.label_numbers)))
        self.splits.append(_split_number(place, split.strip()))
        self.groups.append(self.group_numbers.setdefault(group.strip(), len(self.group_numbers)))
        self.weights.append(_weight(place, weight.strip()))
        self.hashes.append(hash((path, self.splits[-1])))
        if len(self.label_numbers) > MAX_CLASSES and isinstance(label, str) and len(split_labels(label)) < 2:
            raise DataError(
                f"{place}: over {MAX_CLASSES:,} different labels, too many for classes; "
                "name the column with the classes `label`"
            )

    def source(self, path: Path) -> FileSource:
        """Return all rows of the table at this path, without duplicates.

        Raises DataError if no classifier can be trained on them.
        """
        _check_not_empty(self.where, self.paths)
        first_rows = self._first_rows()
        kept, notes = self._without_duplicates(first_rows)
        reading = self._read_labels(kept, first_rows[kept])
        kept, classes, labels = kept[reading.rows], reading.classes, reading.labels
        splits = np.array(("", *SPLITS), dtype="<U5")[np.array(self.splits, dtype=np.int64)[kept]]
        weights = np.array(self.weights, dtype=np.float64)[kept]
        check_classes(self.where, classes, labels)
        check_train_classes(self.where, classes, labels, splits)
        check_weights(self.where, weights)
        check_some_path_exists(self.where, self.paths, path.parent)
        texts = (self.paths.text(row) for row in kept.tolist())
        names = np.array(list(self.group_numbers), dtype=object)
        empty = self.label_columns.empty if self.label_columns else {}
        notes += [
            f"{place}: column {printable(self.headings[position])} is empty, so it is not read as a label; write 0 or 1"
            for position, place in empty.items()
        ]
        return FileSource(
            name=path.stem,
            classes=classes,
            paths=self.paths if len(kept) == len(self.paths) else PackedPaths(self.paths.root, texts),
            labels=labels,
            splits=splits,
            groups=names[np.array(self.groups, dtype=np.int64)[kept]] if self._has("group") else None,
            weights=weights if "weight" in self.columns else None,
            notes=(*notes, *reading.notes),
            task_reason=reading.reason,
        )

    def _label(self, place: str, cells: Sequence[str]) -> Cell:
        """Return the labels of a row as they are written."""
        if self.label_columns is None:
            label = unicodedata.normalize("NFC", self._cell(cells, "label").strip())
            self.unlabeled = self.unlabeled or ("" if label else place)
            return label
        found = self.label_columns.read(place, cells)
        if len(self.label_columns.positions) < 2:
            raise DataError(_missing(self.where, "label", self.headings))
        return found

    def _has(self, role: str) -> bool:
        """Return True for a role whose column is not read as a label."""
        labels = () if self.label_columns is None else self.label_columns.positions
        return role in self.columns and self.columns[role] not in labels

    def _read_labels(self, kept: NDArray[np.int64], first_rows: NDArray[np.int64]) -> Reading:
        """Read the labels of the rows that are kept. Raises DataError if they do not suit the task."""
        of_row = np.array(self.labels, dtype=np.int64)[kept]
        image_of_row = np.unique(first_rows, return_inverse=True)[1]
        if self.label_columns is not None:
            columns = {p: unicodedata.normalize("NFC", self.headings[p]) for p in self.label_columns.positions}
            reading = read_columns(self.where, columns, list(self.label_numbers), of_row, image_of_row, self.task)
        else:
            cells = [cell for cell in self.label_numbers if isinstance(cell, str)]
            reading = read_cells(self.where, cells, of_row, image_of_row, self.task)
        if self.unlabeled and reading.labels.ndim == 1:
            raise DataError(f"{self.unlabeled}: the label is empty; fill it in or delete the row")
        if reading.labels.ndim == 2:
            self._check_agree(kept, first_rows)
        return reading

    def _check_agree(self, rows: NDArray[np.int64], originals: NDArray[np.int64]) -> None:
        """Raise DataError if a row has another weight or group than the first row of its image."""
        for role, values in (("weight", np.array(self.weights)), ("group", np.array(self.groups))):
            odd = rows[values[rows] != values[originals]]
            if len(odd) and self._has(role):
                raise DataError(
                    f"{self.where}: path={self.paths.text(int(odd[0]))}: its rows have different values of "
                    f"{role}; give all rows of an image the same"
                )

    def _cell(self, cells: Sequence[str], role: str) -> str:
        position = self.columns.get(role, len(cells))
        return cells[position] if position < len(cells) else ""

    def _first_rows(self) -> NDArray[np.int64]:
        """Return for each row the first row of its image, which has the same path and split."""
        _, first, which = np.unique(np.array(self.hashes), return_index=True, return_inverse=True)
        originals = first[which]
        for row in np.flatnonzero(originals != np.arange(len(originals))).tolist():
            original = int(originals[row])
            if (self.paths.text(row), self.splits[row]) != (self.paths.text(original), self.splits[original]):
                originals[row] = row  # another image with the same hash
        return originals

    def _without_duplicates(self, first_rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
        """Return the numbers of the rows to keep, and a note on the others: further rows of an image and its label."""
        numbers = first_rows * len(self.label_numbers) + np.array(self.labels)
        _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
        originals = first[which]
        duplicates = np.flatnonzero(originals != np.arange(len(originals)))
        self._check_agree(duplicates, originals[duplicates])
        notes = [f"{self.where}: ignored {plural(len(duplicates), 'duplicate row')}"] if len(duplicates) else []
        return np.delete(np.arange(len(originals)), duplicates), notes


def _check_inside(place: str, root: str, path: str) -> None:
    """Raise DataError if a path leaves the root by its spelling; the file system is not consulted."""
    whole = os.path.normpath(os.path.join(root, path))  # noqa: PTH118  # pathlib keeps `..`
    if not whole.startswith(os.path.join(root, "")):  # noqa: PTH118
        raise DataError(f"{place}: path={path}: outside data.root={root}; use a root that contains all images")


def _check_not_empty(where: str, paths: PackedPaths) -> None:
    if not len(paths):
        raise DataError(f"{where}: has headings but no rows; add one row per image")


def _filled(place: str, path: str) -> str:
    if not path:
        raise DataError(f"{place}: the path is empty; fill it in or delete the row")
    return path


def _find_column(table: Rows, role: str) -> int:
    """Return the position of a role's column, or -1. Raises DataError if the path is missing or a role ambiguous."""
    where, found = table.where, columns_of(role, table.columns)
    if len(found) > 1:
        names = listed([table.columns[position] for position in found])
        raise DataError(f"{where}: several columns may be the {role} ({names}); rename the right one to {role}")
    if not found and role == "path":
        raise DataError(_missing(where, role, table.columns))
    if role in ("path", "label") and found and (name := table.columns[found[0]]) in table.unread:
        raise DataError(f"{where}: column {name}: holds lists of numbers or structures; write each {role} as text")
    return found[0] if found else -1


def _missing(where: str, role: str, columns: Sequence[str]) -> str:
    near = nearest_column(role, columns)
    way_out = f"if it is {near}, rename that to {role}" if near else f"write {role} above it in the first line"
    return f"{where}: no column for the {role} among {listed(columns, 12)}; {way_out}"


def _other_columns(roles: Mapping[str, int], table: Rows) -> list[int]:
    """Return the columns that may each hold a label; a group may be one that is called `person`."""
    taken = {p for role, p in roles.items() if role != "group" or squeeze(table.columns[p]) == role}
    return [position for position, name in enumerate(table.columns) if name and position not in taken]


def _split_number(place: str, text: str) -> int:
    """Return 0 for no split, else 1 plus the split's position in `SPLITS`."""
    if not text:
        return 0
    split = split_of(text)
    if split is None:
        way_out = did_you_mean(text, SPLITS, otherwise="use train, val or test, or leave the cell empty")
        raise DataError(f"{place}: split={text}: no such split; {way_out}")
    return 1 + SPLITS.index(split)


def _weight(place: str, text: str) -> float:
    """Return a weight; 1 for an empty cell."""
    if not text:
        return 1.0
    try:
        weight = float(text.replace(",", "."))
    except ValueError:
        weight = math.nan
    if not 0.0 <= weight < math.inf:
        raise DataError(f"{place}: weight={text}: must be a number of at least 0; leave the cell empty for 1")
    return weight
