"""Predictions <-> a table: write CSV, JSON lines or Parquet, complete or not at all; read those of a run or any tool.

Both kinds of table have the same columns, one row per image:

    column         meaning                                           predictions.csv of a run   `predict --out`
    path           path or name of the image                         yes                        yes
    true           the image's class; only where it is known         yes                        no
    predicted      the most probable class, or all predicted labels  yes                        yes
    probability    calibrated probability of the predicted class     yes                        yes
    error          why the image could not be read, else empty       no                         yes
    unfamiliar     how unlike the training images, from 0 to 1       no                         if the run can say it
    set            classes of the set, as a row of CSV with `;`      no                         `--coverage`
    rejected       whether the prediction is rejected                no                         `--reject`
    p_CLASS        calibrated probability of each class              up to a million            yes

If images may have several labels, `true` and `predicted` join them by `;`, and `probability` is that of the most
probable label, predicted or not, and `p_CLASS` is always there.
In `predict --out`, `predicted`, `unfamiliar`, `set` and the probabilities are empty for an image that could not be
read.
"""

import csv
import io
import json
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous import atomic
from vitreous.data.label_cells import MAX_CLASSES
from vitreous.data.sources.rows import open_rows
from vitreous.data.sources.spelling import in_class_order
from vitreous.errors import ConfigError, DamagedFileError, DataError, nearest, optional_module
from vitreous.tensor_file import parsing
from vitreous.use.predict.predictor import Prediction
from vitreous.wording import printable, printable_list

SUFFIXES = (".csv", ".jsonl", ".parquet")
OPTIONAL = ("unfamiliar", "set", "rejected")
"""Columns that a table has only where they are known or asked for; each is a field of Prediction."""

_COLUMNS = ("path", "true", "predicted")
_WAY_OUT = "restore the file, or train again"
_OLD_COLUMNS = ("image", "label", "called")
"""Names of the same columns in runs of older versions."""
_MOST_PROBABILITIES, _TOLERANCE = 20_000_000, 0.01
"""A million rows with 20 classes take 160 MB; how far the sum of a row may be from 1, because it was rounded."""


@dataclass(frozen=True)
class HeldOutPrediction:
    """A row of a run's `predictions.csv`; without probabilities if the table does not have them."""

    path: str
    true: str
    predicted: str
    probabilities: tuple[float, ...] = ()


def read_held_out(path: Path) -> list[HeldOutPrediction]:
    """Read a run's `predictions.csv`, also with the column names of older versions.

    Raises:
        DamagedFileError: A column is missing, a probability is not a number, or the file is missing or damaged.
    """
    with parsing(path, _WAY_OUT), path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, restval="")
        columns = next((c for c in (_COLUMNS, _OLD_COLUMNS) if set(c) <= set(reader.fieldnames or ())), None)
        if columns is None:
            raise DamagedFileError(f"{path}: has no columns {', '.join(_COLUMNS)}; {_WAY_OUT}")
        each = [name for name in reader.fieldnames or () if name.startswith("p_")]
        where, true, predicted = columns
        return [
            HeldOutPrediction(row[where], row[true], row[predicted], tuple(float(row[name]) for name in each))
            for row in reader
        ]


def read_labeled(
    path: Path,
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64] | None]:
    """Read the columns `true` and `predicted` of any table, and probabilities if it has some.

    Returns:
        The classes in the order of the columns `p_CLASS`, or else sorted; true and predicted class indices, `[n]`; and
        the probabilities in `p_CLASS`, divided by the sum of each row, `[n, classes]`, or else those in `probability`,
        `[n, 1]`, or None.

    Raises:
        DataError: The file is damaged or too large, or a column or cell is missing or breaks a rule.
        DataNotFoundError: The file cannot be opened.
        MissingDependencyError: It is a Parquet file and pyarrow is not installed.
    """
    table = open_rows(path, example="true,predicted")
    where, columns = table.where, table.columns
    each = [name for name in columns if name.startswith("p_")] or [name for name in columns if name == "probability"]
    for name in (*_COLUMNS[1:], *each):
        if columns.count(name) != 1:
            raise DataError(f"{where}: the columns are {printable_list(columns)}; name one of them {printable(name)}")
    true_at, predicted_at, *shares_at = [columns.index(name) for name in (*_COLUMNS[1:], *each)]
    numbers = {name[2:]: number for number, name in enumerate(each) if name != "probability"}
    is_complete, found, values = bool(numbers), array("q"), array("d")
    for line, row in table.rows:
        place, cells = f"{where}: {line}", [*row, *[""] * (len(columns) - len(row))]
        try:
            shares = [float(cells[at].replace(",", ".")) for at in shares_at]
        except ValueError:
            shares = [math.nan]
        if not all(0 <= share <= 1 for share in shares) or (is_complete and abs(sum(shares) - 1) > _TOLERANCE):
            rule = "must be from 0 to 1" + (", and sum to 1 over all classes, of which an image has one" * is_complete)
            got, way_out = [cells[at] for at in shares_at], "correct it, or leave out the columns of probabilities"
            raise DataError(f"{place}: probability={printable(' + '.join(got))}: {rule}; {way_out}")
        values.extend(shares)
        for name in (cells[true_at].strip(), cells[predicted_at].strip()):
            number = numbers.get(name) if is_complete else numbers.setdefault(name, len(numbers))
            if not name or number is None or any(cells[len(columns) :]):
                rule = "more cells than headings, an empty class, or one without a column p_CLASS"
                near = nearest(name, numbers) if name and number is None else "correct the row, or delete it"
                raise DataError(f"{place}: class={printable(name)}: {rule}; {near}")
            found.append(number)
        if len(values) > _MOST_PROBABILITIES or len(numbers) > MAX_CLASSES:
            rule = f"over {_MOST_PROBABILITIES:,} probabilities or {MAX_CLASSES:,} classes"
            raise DataError(f"{place}: {rule}; leave out the columns p_CLASS, or rows")
    if not len(found):
        raise DataError(f"{where}: has headings but no rows; add one row per image")
    classes = tuple(numbers if is_complete else in_class_order(numbers))
    order = {name: number for number, name in enumerate(classes)}
    true, predicted = np.array([order[name] for name in numbers])[np.asarray(found).reshape(-1, 2)].T
    given = np.asarray(values).reshape(len(true), -1)
    given = given / given.sum(axis=1, keepdims=True) if is_complete else given
    return classes, true, predicted, given if each else None


def check_table_path(
    path: Path, suffixes: Sequence[str] = SUFFIXES, example: str = "classes.csv", option: str = "out"
) -> None:
    """Raise ConfigError or MissingDependencyError if the table cannot be written, before images are read."""
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{option}={path}: ends in {path.suffix or 'nothing'}; use one of {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{option}={path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise ConfigError(f"{option}={path}: is a folder; name a file, e.g. {path / example}")
    if path.suffix.lower() == ".parquet":
        import_pyarrow()


def write_table(path: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """Write one row per image with the columns listed at the top of this file; see `check_table_path`.

    Raises:
        SaveError: The file could not be written.
    """
    extra = [name for name in OPTIONAL if any(getattr(p, name) is not None for p in predictions)]
    atomic.write_bytes(path, table_bytes(path.suffix.lower(), predictions, classes, extra))


def table_bytes(
    suffix: str, predictions: Sequence[Prediction], classes: Sequence[str], extra: Sequence[str] = ()
) -> bytes:
    """Return the content of a table file with one of `SUFFIXES`; `extra` are its columns of `OPTIONAL`."""
    columns = ["path", "predicted", "probability", "error", *extra, *(f"p_{name}" for name in classes)]
    empty = (None,) * len(classes)
    rows = [(p.image, p.label, None if p.error else p.probability, p.error,
             *(join_names(p.set or ()) if name == "set" else getattr(p, name) for name in extra),
             *(p.probabilities or empty)) for p in predictions]  # fmt: skip
    if suffix == ".csv":
        return csv_text([columns, *rows]).encode()
    if suffix == ".jsonl":
        lines = (json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode()
    pyarrow, parquet = import_pyarrow()
    texts = {"path", "predicted", "error", "set"}
    types = [pyarrow.string() if n in texts else pyarrow.bool_() if n == "rejected" else pyarrow.float64()
             for n in columns]  # fmt: skip
    series = zip(*rows, strict=True) if rows else [()] * len(columns)
    arrays = [pyarrow.array(list(values), kind) for values, kind in zip(series, types, strict=True)]
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, names=columns), content)
    return content.getvalue()


def join_names(names: Iterable[str]) -> str:
    """Return class names as a row of CSV with `;` as the separator, because the name of a folder may contain one."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";").writerow(names)
    return text.getvalue().removesuffix("\r\n")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV in UTF-8, complete or not at all. Raises SaveError if the file could not be written."""
    atomic.write_text(path, csv_text(rows))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def import_pyarrow() -> list[Any]:
    """Return the modules pyarrow and pyarrow.parquet. Raises MissingDependencyError if they are not installed."""
    way_out = "`pip install 'vitreous[parquet]'`, or another suffix"
    return [optional_module(name, "out=….parquet", way_out) for name in ("pyarrow", "pyarrow.parquet")]
