"""A CSV file of corrections (docs/corrections.md), a source -> the same samples with other labels and splits."""

import copy
import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from vitreous import atomic
from vitreous.data.config import DataConfig
from vitreous.data.sources import SPLITS, Source, open_source
from vitreous.data.sources.classes import check_classes, check_train_classes
from vitreous.data.sources.rows import open_rows
from vitreous.data.sources.source import DROPPED, FIXED_TRAIN
from vitreous.data.sources.spelling import did_you_mean, in_class_order
from vitreous.errors import ConfigError, DataError, DataNotFoundError, nearest
from vitreous.wording import listed, plural, printable

ACTIONS = ("keep", "drop", "relabel", "relabel:new", *(f"split:{split}" for split in SPLITS), "merge")

_KEY = "data.corrections="


class Correction(NamedTuple):
    """A row of the file; its fields are the columns, of which the last two are only for people."""

    path: str
    label: str
    action: str
    to: str = ""
    reason: str = ""
    confidence: str = ""


def open_data(config: DataConfig, source: Source | None = None) -> Source:
    """Open the data of a configuration, or take the one from Python, and correct it. Raises as `corrected` does."""
    source = open_source(config.source, config.root, config.task) if source is None else source
    return source if config.corrections is None else corrected(source, Path(config.corrections))


def write_corrections(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    """Write rows with the columns of `Correction`. Raises SaveError if the file could not be written."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([Correction._fields, *rows])
    atomic.write_text(path, text.getvalue())


def read_corrections(path: Path) -> dict[str, Correction]:
    """Read the rows by their place, such as `line 7`. Raises ConfigError or DataError if it is not such a file."""
    columns = Correction._fields
    if path.suffix.casefold() != ".csv":
        raise ConfigError(f"{_KEY}{path}: is not a .csv file; `vitreous inspect DATA --fix corrections.csv` writes one")
    try:
        table = open_rows(path, ",".join(columns), "data.corrections")
    except DataNotFoundError as error:  # that would say that the images are gone
        raise DataError(str(error)) from error
    rows = list(table.rows)
    for name in columns[:4]:
        if table.columns.count(name) != 1:
            raise DataError(f"{_KEY}{path}: needs one column {name}; begin with the line {','.join(columns)}")
    cells_of = ((place, dict(zip(table.columns, cells, strict=False))) for place, cells in rows)
    return {place: Correction(*(cells.get(name, "") for name in columns)) for place, cells in cells_of}


def merges(rows: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """Return the class that each merged class becomes."""
    return {row.label: row.to for row in map(Correction._make, rows) if row.action == "merge"}


def corrected(source: Source, path: Path) -> Source:
    """Return the same samples with corrected labels and splits; classes without images are left out, new ones are last.

    Raises DataError if a row does not fit the data or another row, or no classifier can be trained on what is left.
    """
    rows, where = read_corrections(path), f"{_KEY}{path}"
    if source.is_multilabel:
        raise DataError(f"{where}: {source.name} has several labels per image, which cannot be corrected; leave it out")
    _check(where, rows, source)
    names = np.array(source.classes, dtype=object)[source.labels]
    before, splits = set(names), source.splits.copy()
    for place, index in _find(where, rows, source).items():
        row, at = rows[place], f"{where}: {place}: label={printable(rows[place].label)}"
        if row.label != names[index]:
            raise DataError(f"{at}: the data has {names[index]} here; write that, or use the data that the file is for")
        if row.action.startswith("relabel"):
            names[index] = row.to
        elif row.action != "keep":
            splits[index] = FIXED_TRAIN if row.action == "split:train" else row.action.removeprefix("split:")
    merged, is_left = merges(rows.values()), splits != DROPPED
    names = np.array([merged.get(name, name) for name in names], dtype=object)
    left = set(names[is_left])
    gone = (before | set(merged)) - left
    classes = [name for name in source.classes if name not in gone] + in_class_order(left - set(source.classes))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(name, 0) for name in names], dtype=np.int64)
    check_classes(where, classes, labels)
    check_train_classes(where, classes, labels[is_left], np.where(splits == FIXED_TRAIN, "train", splits)[is_left])
    note = f"{path} is applied: {plural(len(rows), 'row')}; classes without images: {listed(sorted(gone)) or 'none'}"
    view = copy.copy(source)
    view.classes, view.labels, view.splits, view.notes = tuple(classes), labels, splits, (*source.notes, note)
    view.uncorrected, view.corrections = source, tuple(map(tuple, rows.values()))
    return view


def _check(where: str, rows: Mapping[str, Correction], source: Source) -> None:
    """Raise DataError for an unknown action or class, and for merges that contradict each other."""
    classes, given = set(source.classes), set(source.splits.tolist())
    merging = Counter(row.label for row in rows.values() if row.action == "merge")
    for line, row in rows.items():
        place, to, split = f"{where}: {line}", printable(row.to), row.action.removeprefix("split:")
        if row.action not in ACTIONS:
            raise DataError(f"{place}: action={printable(row.action)}: no such action; {nearest(row.action, ACTIONS)}")
        if (row.action == "merge") == bool(row.path):
            rule = "must be empty" if row.path else "is needed"
            raise DataError(f"{place}: path={printable(row.path)}: {rule} for the action {row.action}; correct it")
        if split in ("val", "test") and split not in given:
            raise DataError(f"{place}: action={row.action}: the data has no {split} split; write split:train or keep")
        known = classes - merging.keys() if row.action == "merge" else classes
        if row.action in ("relabel", "merge") and row.to not in known:
            new = ", or write relabel:new" if row.action == "relabel" and row.to else ""
            raise DataError(f"{place}: to={to}: not a class that is left; {nearest(row.to, known)}{new}")
        if row.action == "relabel:new" and (not row.to or row.to in classes):
            raise DataError(f"{place}: to={to}: is not a new class; write its name, or relabel for a class of the data")
        if row.action == "merge" and (row.label not in classes or merging[row.label] > 1):
            way_out = "merge it once" if row.label in classes else nearest(row.label, classes)
            raise DataError(f"{place}: label={printable(row.label)}: not a class, or merged twice; {way_out}")


def _find(where: str, rows: Mapping[str, Correction], source: Source) -> dict[str, int]:
    """Return the number of the image of each row with a path. Raises DataError unless it is one image, named once."""
    place_of, found, place_at = dict[str, str](), dict[str, int](), dict[int, str]()
    for place, row in rows.items():
        if row.path and place_of.setdefault(row.path, place) != place:
            path, first = printable(row.path), place_of[row.path]
            raise DataError(f"{where}: {place}: path={path}: is in {first} too; delete one of them")
    for index in range(len(source)):
        for name in {source.key(index), source.describe(index)} & place_of.keys():
            place, path = place_of[name], printable(name)
            if found.setdefault(place, index) != index or place_at.setdefault(index, place) != place:
                raise DataError(
                    f"{where}: {place}: path={path}: is for the image of another row, or two images have it; delete it"
                )
    for path, place in place_of.items():
        if place not in found:
            keys = (source.key(index) for index in range(len(source)))
            near = [key for key in keys if set(PurePath(key).parts[-2:]) & set(PurePath(path).parts[-2:])]
            way_out = did_you_mean(path, near[:1_000], otherwise=f"paths are written like {source.key(0)}")
            raise DataError(f"{where}: {place}: path={printable(path)}: not in the data; {way_out}")
    return found
