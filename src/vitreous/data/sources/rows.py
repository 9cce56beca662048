"""A CSV, TSV or Parquet file -> its headings, and its rows as texts, one after the other."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitreous.errors import DataError, DataNotFoundError, MissingDependencyError

TEXT_SUFFIXES = (".csv", ".tsv", ".tab")
PARQUET_SUFFIXES = (".parquet", ".pq")
MAX_ROWS = 50_000_000
"""More are refused: a few bytes of Parquet can claim any number of equal rows."""

_DELIMITERS = {".tsv": "\t", ".tab": "\t"}
_GUESSED_DELIMITERS = (",", ";", "\t", "|")
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_ROWS_PER_BATCH = 4096


@dataclass(frozen=True)
class Rows:
    """A table that is read as it is gone through, once.

    Attributes:
        where: The file, for messages.
        columns: The headings.
        rows: Each row's place, for messages (`line 7`), and a text a column; the last ones may be missing.
    """

    where: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[str, list[str]]]


def is_table_name(name: str) -> bool:
    """Whether a file is called like a table."""
    return Path(name).suffix.casefold() in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES)


def open_rows(path: Path) -> Rows:
    """Read the headings; the rows wait.

    Text is UTF-8, or UTF-16 where the file begins with its mark. The delimiter of a `.csv` is the one of `, ; tab |`
    that splits the headings into most columns. Quotes are those of RFC 4180.

    Args:
        path: An existing file, of one of `TEXT_SUFFIXES` or `PARQUET_SUFFIXES`.

    Returns:
        The table. Its `rows` raise DataError where the file is damaged.

    Raises:
        DataError: The file is empty, damaged, not text, or of another kind.
        DataNotFoundError: It cannot be opened.
        MissingDependencyError: Parquet without pyarrow.
    """
    suffix = path.suffix.casefold()
    if suffix in PARQUET_SUFFIXES:
        return _open_parquet(path)
    if suffix not in TEXT_SUFFIXES:
        raise DataError(
            f"data.source={path}: ends in {path.suffix or 'nothing'}; a table ends in .csv, .tsv or .parquet, "
            "and images belong into a folder of class folders"
        )
    try:
        with path.open("rb") as file:
            start = file.read(3)
    except OSError as error:
        raise DataNotFoundError(f"data.source={path}: cannot be read ({error.strerror}); check it") from error
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    records = _records(path, encoding, _DELIMITERS.get(suffix) or _guess_delimiter(path, encoding))
    headings = next(records, None)
    if headings is None:
        raise DataError(f"data.source={path}: is empty; write a line of headings, path,label, and a line an image")
    return Rows(str(path), tuple(heading.strip() for heading in headings[1]), records)


def _guess_delimiter(path: Path, encoding: str) -> str:
    """The one that splits the headings into most columns; with a wrong one their quotes may make no sense."""
    counts: dict[str, int] = {}
    for delimiter in _GUESSED_DELIMITERS:
        try:
            _, headings = next(_records(path, encoding, delimiter), ("", []))
            counts[delimiter] = len(headings)
        except DataError:
            continue
    return max(counts, key=lambda delimiter: counts[delimiter], default=",")


def _records(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Lines that hold anything, headings included. `strict`: a stray quote is an error, and swallows no rows."""
    number = 0
    try:
        with path.open(encoding=encoding, newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            for cells in reader:
                number = reader.line_num
                if any(cells):
                    yield f"line {number}", cells
    except csv.Error as error:
        raise DataError(f"data.source={path}: line {number + 1}: {error}; check the quotes there") from error
    except UnicodeError as error:
        reason = "UTF-8" if encoding.startswith("utf-8") else "UTF-16"
        raise DataError(
            f"data.source={path}: line {number + 1} or later: is no {reason} text; save the table as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"data.source={path}: cannot be read ({error.strerror}); check it") from error


def _open_parquet(path: Path) -> Rows:
    arrow, parquet = _pyarrow(path)
    try:
        file = parquet.ParquetFile(path)
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"data.source={path}: is no Parquet file ({_first_line(error)}); check it") from error
    if num_rows > MAX_ROWS:
        raise DataError(f"data.source={path}: {num_rows:,} rows; at most {MAX_ROWS:,} are read, split the table")
    columns = [field.name for field in schema]
    plain = [field.name for field in schema if not arrow.types.is_nested(field.type)]
    for field in schema:
        if arrow.types.is_struct(field.type) and "bytes" in [inner.name for inner in field.type]:
            raise DataError(
                f"data.source={path}: column {field.name} holds images, not paths; give the folder of the file, "
                f"{path.parent}, which is read as a Hugging Face data set"
            )
    return Rows(str(path), tuple(columns), _parquet_records(path, file, columns, plain, arrow))


def _parquet_records(
    path: Path, file: Any, columns: list[str], plain: list[str], arrow: Any
) -> Iterator[tuple[str, list[str]]]:
    number = 0
    try:
        for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=plain):
            values = {name: batch.column(place).to_pylist() for place, name in enumerate(plain)}
            series = [values.get(name, [None] * batch.num_rows) for name in columns]
            for cells in zip(*series, strict=True):
                number += 1
                yield f"row {number}", [_as_text(cell) for cell in cells]
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"data.source={path}: row {number + 1} or later: {_first_line(error)}; check it") from error


def _as_text(cell: object) -> str:
    if cell is None or cell != cell:  # pandas writes what is missing as NaN
        return ""
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _pyarrow(path: Path):  # type: ignore[no-untyped-def]  # pyarrow is optional and carries no types
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"data.source={path}: needs pyarrow, which is not installed; `pip install 'vitreous[parquet]'`, or use .csv"
        ) from error
    return pyarrow, pyarrow.parquet
