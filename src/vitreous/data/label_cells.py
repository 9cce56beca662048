"""Label cells of a table -> Reading: one label per row or several per image, by what the cells hold or the user asks.

Without a request, a table is multi-label if it has one column of 0 and 1 per label, or if at least `LEAST_SHARE` of its
rows hold several labels (`cat;dog`) or repeat an image with another label.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_sets import LabelArray, check_label_names, split_labels, truth_table
from vitreous.errors import DataError
from vitreous.wording import listed, plural, printable

Task = Literal["auto", "single", "multilabel", "unlabeled"]
"""One label per image, several, or none; `auto` decides by the data."""

Cell = str | tuple[int, ...]
"""Content of the label column; or the positions of the columns that hold 1, in a table with one column per label."""

LEAST_SHARE = 0.05
MAX_CLASSES = 100_000
"""A column with more distinct values is not accepted as the label."""

_TRUTH = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


@dataclass(frozen=True)
class Reading:
    """How the label cells of a table are read.

    Classes are sorted, and labels are those of each sample, as in a `Source`. `rows` has the row of each sample, `[n]`;
    several rows of an image are one multi-label sample, with the first row. The reason, one clause, says why the table
    is read as multi-label or not; it is empty if there was no choice. Notes are warnings, one sentence each.
    """

    classes: tuple[str, ...]
    labels: LabelArray
    rows: NDArray[np.int64]
    reason: str
    notes: tuple[str, ...] = ()


class LabelColumns:
    """The columns of a table without a label column that may hold one label each: 0 or 1 in every row.

    `positions` are those of the columns that hold only 0 and 1 so far. `empty` has the place of the first empty cell of
    each column that held only 0 and 1 until then.
    """

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = list(positions)
        self.empty: dict[int, str] = {}
        self._is_first = True

    def read(self, place: str, cells: Sequence[str]) -> tuple[int, ...]:
        """Return the positions of the columns that hold 1 in a row."""
        texts = {p: cells[p].strip().casefold() if p < len(cells) else "" for p in self.positions}
        truth = {position: _TRUTH.get(text) for position, text in texts.items()}
        if not self._is_first:
            self.empty |= {position: place for position, text in texts.items() if not text}
        self.positions, self._is_first = [p for p in self.positions if truth[p] is not None], False
        return tuple(position for position in self.positions if truth[position])


def read_columns(where: str, columns: dict[int, str], cells: Sequence[Cell], of_row: NDArray[np.int64],
                 image_of_row: NDArray[np.int64], task: Task) -> Reading:  # fmt: skip
    """Read a table with one column of 0 and 1 per label.

    Args:
        where: How messages begin, e.g. `data.source=labels.csv`.
        columns: Headings of the columns by position.
        cells: Distinct cells.
        of_row: Number of the cell of each row, `[rows]`.
        image_of_row: Number of the image of each row, `[rows]`; the first image is 0.
        task: What the user asks for. `auto` reads one label per image if each row has exactly one.

    Raises:
        DataError: The user asks for one label, but a row has another number of labels; or a heading cannot be a label.
    """
    sets = [tuple(columns[p] for p in cell if p in columns) for cell in cells if isinstance(cell, tuple)]
    check_label_names(where, columns.values())
    if len(set(columns.values())) < len(columns):
        raise DataError(f"{where}: several columns have the same heading; give each label a column of its own")
    counts = np.array([len(labels) for labels in sets])[of_row]
    read = f"each of the columns {listed(sorted(columns.values()), 6)} is read as a label, since they hold only 0 and 1"
    if task == "multilabel" or (task == "auto" and (counts != 1).any()):
        return _multilabel(where, sorted(columns.values()), sets, of_row, image_of_row, read)
    if (counts != 1).any():
        odd = counts[counts != 1]
        raise DataError(
            f"{where}: data.task=single, but not exactly one label in {len(odd):,} of {plural(len(counts), 'row')} "
            f"(the first has {odd[0]}); leave data.task out for several labels per image"
        )
    return _single(where, [labels[0] for labels in sets], of_row, read, (f"{where}: {read}",))


def read_cells(
    where: str, cells: Sequence[str], of_row: NDArray[np.int64], image_of_row: NDArray[np.int64], task: Task
) -> Reading:
    """Read a table with a label column; see `read_columns`. Raises DataError if there are too many different labels."""
    sets, num_rows = [split_labels(cell) for cell in cells], len(of_row)
    is_list = np.array([len(labels) > 1 for labels in sets])
    num_lists = int(is_list[of_row].sum())
    num_repeats = int((np.bincount(image_of_row)[image_of_row] > 1).sum())
    # Labels that never occur in another combination may be one name: `Arts;Crafts`.
    combine = len({label for labels in sets for label in labels}) < sum(map(len, sets))
    rows, example = plural(num_rows, "row"), repr(printable(cells[int(is_list.argmax())], 40))
    lists = f"{num_lists:,} of {rows} hold{'s' * (num_lists == 1)} several labels, such as {example}"
    repeats = f"{num_repeats:,} of {rows} belong to an image with several labels"  # at least 2 rows
    found = [
        reason
        for reason, count in ((lists, num_lists if combine else 0), (repeats, num_repeats))
        if count >= LEAST_SHARE * num_rows and count
    ]
    if task == "multilabel" or (task == "auto" and found):
        reason = f"{found[0] if found else 'you asked for it'}; --task single reads one label per row"
        reading = _multilabel(where, None, sets, of_row, image_of_row, reason)
        if num_lists or num_repeats:
            return reading
        advice = "separate them by ; or |, or write one row per label"
        return replace(reading, notes=(*reading.notes, f"{where}: no image has several labels; {advice}"))
    notes = [
        f"{where}: {reason}: {how}; --task multilabel reads several labels per image"
        for reason, count, how in (
            (lists, num_lists, "read as one class each"),
            (repeats, num_repeats, "each row counts as an image"),
        )
        if count and task == "auto"
    ]
    return _single(where, cells, of_row, "", tuple(notes))


def _single(
    where: str, names: Sequence[str], of_row: NDArray[np.int64], reason: str, notes: tuple[str, ...]
) -> Reading:
    """Return one label per row; if all labels are whole numbers, `2.0` is `2`."""
    names, classes = _sorted_classes(where, names)
    indices = {name: index for index, name in enumerate(classes)}
    labels = np.array([indices[name] for name in names], dtype=np.int64)[of_row]
    return Reading(tuple(classes), labels, np.arange(len(of_row)), reason, notes)


def _multilabel(
    where: str,
    known: list[str] | None,
    sets: Sequence[Sequence[str]],
    of_row: NDArray[np.int64],
    image_of_row: NDArray[np.int64],
    reason: str,
) -> Reading:
    """Return the labels of each image; `known` are its classes if some may not occur."""
    names = [name for labels in sets for name in labels]
    renamed, classes = _sorted_classes(where, names)
    new_name, classes = dict(zip(names, renamed, strict=True)), known or classes
    indices = {name: index for index, name in enumerate(classes)}
    numbers = [[indices[new_name[name] if known is None else name] for name in labels] for labels in sets]
    labels = truth_table(where, numbers, of_row, image_of_row, len(classes))
    num_empty = int((~labels.any(axis=1)).sum())
    notes = [f"{where}: {plural(num_empty, 'image')} without a label: read as showing none of the classes"]
    _, rows = np.unique(image_of_row, return_index=True)
    return Reading(tuple(classes), labels, rows, reason, tuple(notes if num_empty else ()))


def _sorted_classes(where: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names, without `.0` if all are whole numbers, and the distinct ones, sorted as numbers or as text."""
    names = list(names)
    if all(re.fullmatch(r"-?[0-9]{1,18}(\.0*)?", name) for name in names):
        names = [name.split(".")[0] for name in names]
        classes = sorted(set(names), key=lambda name: (int(name), name))
    else:
        classes = sorted(set(names))
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"{where}: {len(classes):,} different labels, too many for classes; use at most {MAX_CLASSES:,}"
        )
    return names, classes
