"""Predictions -> a CSV, JSON-lines or Parquet file, complete or absent."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from vitreous import atomic
from vitreous.errors import ConfigError, MissingDependencyError
from vitreous.use.predict.predictor import Prediction

SUFFIXES = (".csv", ".jsonl", ".parquet")


def check_table_path(path: Path) -> None:
    """Raise ConfigError or MissingDependencyError now rather than after an hour of predictions."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"out={path}: ends in {path.suffix or 'nothing'}; use one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"out={path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise ConfigError(f"out={path}: is a folder; name a file, e.g. {path / 'predictions.csv'}")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write_table(path: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """One row an image: `image, label, probability, error`, then one column of probability per class.

    Raises:
        ConfigError: The suffix is unknown, or there can be no file at that path.
        MissingDependencyError: Parquet without pyarrow.
        SaveError: The file could not be written.
    """
    check_table_path(path)
    columns = ["image", "label", "probability", "error", *(f"p_{name}" for name in classes)]
    empty = (None,) * len(classes)
    rows = [(p.image, p.label, None if p.error else p.probability, p.error, *(p.probabilities or empty))
            for p in predictions]  # fmt: skip
    if path.suffix.lower() == ".csv":
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        atomic.write_text(path, text.getvalue())
    elif path.suffix.lower() == ".jsonl":
        lines = (json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in rows)
        atomic.write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        pyarrow, parquet = _pyarrow()
        series = zip(*rows, strict=True) if rows else [()] * len(columns)
        table = pyarrow.table({name: list(values) for name, values in zip(columns, series, strict=True)})
        atomic.write(path, lambda temporary: parquet.write_table(table, temporary))


def _pyarrow():  # type: ignore[no-untyped-def]  # pyarrow is optional and carries no types
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            "out=….parquet: needs pyarrow, which is not installed; `pip install 'vitreous[parquet]'`, or use .csv"
        ) from error
    return pyarrow, pyarrow.parquet
