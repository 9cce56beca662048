"""A CSV, TSV or Parquet file -> its headings, and its rows as strings, read one after the other."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from vitreous.data.label_sets import check_label_names, join_labels
from vitreous.data.sources.source import first_line
from vitreous.data.sources.spelling import columns_of
from vitreous.errors import DataError, DataNotFoundError, optional_module

TEXT_SUFFIXES = (".csv", ".tsv", ".tab")
PARQUET_SUFFIXES = (".parquet", ".pq")
MAX_ROWS = 50_000_000
"""Larger Parquet files are rejected: a few bytes can declare any number of equal rows."""

MAX_ROW_CHARS = 1 << 20
"""A longer row of text is rejected; a file without line ends must not fill the memory."""

_DELIMITERS = {".tsv": "\t", ".tab": "\t"}
_GUESSED_DELIMITERS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_ROWS_PER_BATCH = 4096


@dataclass(frozen=True)
class Rows:
    """A table whose rows are read while they are iterated; they can be iterated only once.

    Attributes:
        where: How messages about it begin, e.g. `data.source=labels.csv`.
        columns: The headings.
        rows: The place of each row for messages (`line 7`), and its cells as strings, at most one per column; cells at
            the end may be missing.
        unread: The headings of columns of lists or structures. Their cells are empty.
    """

    where: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[str, list[str]]]
    unread: tuple[str, ...] = ()


def is_table_name(name: str) -> bool:
    """Return True if a file name has the suffix of a table."""
    return Path(name).suffix.casefold() in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES)


def open_rows(path: Path, example: str = "path,label", key: str = "data.source") -> Rows:
    """Open a table and read its headings; messages begin with `key` and the path.

    Text is UTF-8, or UTF-16 if the file begins with a byte order mark. The delimiter of a `.csv` is whichever of `, ;
    tab |` splits the headings into the most columns. Quotes follow RFC 4180. A message about an empty file suggests the
    headings `example`. Iterating `rows` raises DataError where the file is damaged.

    Raises:
        DataError: The file is empty, damaged, not text, or has another suffix.
        DataNotFoundError: The file cannot be opened.
        MissingDependencyError: It is a Parquet file and pyarrow is not installed.
    """
    where, suffix = f"{key}={path}", path.suffix.casefold()
    if suffix in PARQUET_SUFFIXES:
        return _open_parquet(path, where)
    if suffix == ".zip":
        raise DataError(f"{where}: is an archive; unpack it, and give the folder")
    if suffix not in TEXT_SUFFIXES:
        raise DataError(
            f"{where}: a file must be a table (.csv, .tsv or .parquet), an export of a labeling "
            "tool (.json, .xml or .yaml) or a .tar of images; "
            "to train on image files, use the folder that holds one folder per class"
        )
    try:
        with path.open("rb") as file:
            start = file.read(3)
    except OSError as error:
        raise DataNotFoundError(f"{where}: cannot be read ({error.strerror}); check the file") from error
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
    records = _records(path, where, encoding, _DELIMITERS.get(suffix) or _guess_delimiter(path, encoding))
    headings = next(records, None)
    if headings is None:
        raise DataError(f"{where}: is empty; write the line `{example}`, then one line per image")
    return Rows(where, tuple(heading.strip() for heading in headings[1]), records)


def _guess_delimiter(path: Path, encoding: str) -> str:
    """Return the delimiter that splits the headings into the most columns."""
    counts: dict[str, int] = {}
    for delimiter in _GUESSED_DELIMITERS:
        try:
            _, headings = next(_records(path, "", encoding, delimiter), ("", []))
            counts[delimiter] = len(headings)
        except DataError:  # with a wrong delimiter, quotes may be in invalid places
            continue
    return max(counts, key=lambda delimiter: counts[delimiter], default=",")


def _records(path: Path, where: str, encoding: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each line that is not empty, headings included."""
    number = num_chars = 0

    def lines(file: TextIO) -> Iterator[str]:
        nonlocal num_chars
        while line := file.readline(MAX_ROW_CHARS + 1):
            num_chars += len(line)
            if num_chars > MAX_ROW_CHARS:
                place = f"{where}: line {number + 1}"
                raise DataError(f"{place}: a row of over {MAX_ROW_CHARS:,} characters; check the quotes in this line")
            yield line

    try:
        with path.open(encoding=encoding, newline="") as file:
            # `strict` makes a stray quote an error; otherwise it would swallow the rows up to the next quote.
            reader = csv.reader(lines(file), delimiter=delimiter, skipinitialspace=True, strict=True)
            for cells in reader:
                number, num_chars = reader.line_num, 0
                if any(cells):
                    yield f"line {number}", cells
    except csv.Error as error:
        raise DataError(f"{where}: line {number + 1}: {error}; check the quotes in this line") from error
    except UnicodeError as error:
        name = "UTF-8" if encoding.startswith("utf-8") else "UTF-16"
        place = _undecodable_line(path) if name == "UTF-8" else f"line {number + 1} or later"
        raise DataError(f"{where}: {place}: not {name} text; save the table as UTF-8") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); check the file") from error


def _undecodable_line(path: Path) -> str:
    """Name the first line that is not UTF-8; the reader decodes large blocks and cannot say."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_ROW_CHARS), b""), start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"line {number}"
    return "at the end"


def _open_parquet(path: Path, where: str) -> Rows:
    way_out = "run `pip install 'vitreous[parquet]'`, or use .csv"
    arrow, parquet = (optional_module(name, where, way_out) for name in ("pyarrow", "pyarrow.parquet"))
    try:
        file = parquet.ParquetFile(path)
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{where}: not a valid Parquet file ({first_line(error)}); write it again, or use .csv"
        ) from error
    if num_rows > MAX_ROWS:
        raise DataError(f"{where}: {num_rows:,} rows, but at most {MAX_ROWS:,} are read; split the table")
    columns = [field.name for field in schema]
    labels = {columns[position] for position in columns_of("label", columns)}
    plain = [f.name for f in schema if _has_cells(f.type, arrow.types, is_label=f.name in labels)]
    for field in schema:
        if arrow.types.is_struct(field.type) and "bytes" in [inner.name for inner in field.type]:
            raise DataError(
                f"{where}: column {field.name} holds images instead of paths; to read it as a Hugging Face "
                "data set, put it into a folder that has only Parquet files, and give that folder"
            )
    records = _parquet_records(where, file, columns, plain, arrow)
    return Rows(where, tuple(columns), records, tuple(name for name in columns if name not in plain))


def _has_cells(kind: Any, types: Any, *, is_label: bool) -> bool:
    """Return True if values of this Arrow type become cells. Lists of texts do so in the column of labels."""
    if is_label and (types.is_list(kind) or types.is_large_list(kind)):
        kind = kind.value_type
        return bool(types.is_string(kind) or types.is_large_string(kind))
    return not types.is_nested(kind)


def _parquet_records(
    where: str, file: Any, columns: list[str], plain: list[str], arrow: Any
) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each row; the cells of columns that are not `plain` are empty.

    A list of labels becomes one cell, such as `cat;dog`.
    """
    number = 0
    try:
        for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=plain):
            values = {name: batch.column(position).to_pylist() for position, name in enumerate(plain)}
            series = [values.get(name, [None] * batch.num_rows) for name in columns]
            for cells in zip(*series, strict=True):
                number += 1
                yield f"row {number}", [_as_cell(value, where, number) for value in cells]
    except DataError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{where}: damaged after row {number:,} ({first_line(error)}); write the file again") from error


def _as_cell(value: object, where: str, number: int) -> str:
    if value is None or value != value:  # pandas writes missing values as NaN
        return ""
    if isinstance(value, list):
        check_label_names(f"{where}: row {number}", names := [name for name in value if name])
        return join_labels(names)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
