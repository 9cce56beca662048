"""Damaged tables have the cells that the module csv or pyarrow reads from them, or are refused."""

import csv
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.campaign import Campaign, drawing
from tests.fuzz.mutation import mutated

from vitreous.data.sources.rows import open_rows
from vitreous.data.sources.table import open_table
from vitreous.errors import DataError

DELIMITERS = ",;\t|"
ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
ROWS = [
    ("path", "label", "split", "group", "weight"),
    ("a/0.png", "cat", "train", "anna", "1"),
    ("a/1.png", 'a "big" dog, Größe XL', "train", "", "0.5"),
    ("input.csv", "cat", "val", "bob", ""),
    ("input.parquet", "cat", "", "", "2"),
    ("b/0.png", "dog\nhouse", "", "", "2"),
    ("b/1.png", "dog", "test", "bob", "1e3"),
    ("b/2.png", "dog", "train", "bob", ""),
]


def seeds() -> list[bytes]:
    """Write the rows with every delimiter, encoding and end of line."""
    contents = []
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        for delimiter in DELIMITERS:
            for end in ("\n", "\r\n", "\r"):
                file = io.StringIO(newline="")
                csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(ROWS)
                contents.append(file.getvalue().encode(encoding))
    return contents


def parse(text: str, delimiter: str) -> list[list[str]] | None:
    """Return what the module csv reads; None if the text is damaged."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
        return [cells for cells in reader if any(cells)]
    except csv.Error:
        return None


def check(path: Path) -> None:
    table = open_rows(path)
    rows = [cells for _, cells in table.rows]
    content = path.read_bytes()
    text = content.decode(next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), "utf-8"))
    references = [found for delimiter in DELIMITERS if (found := parse(text, delimiter)) is not None]
    assert [list(table.columns), *rows] in [[[name.strip() for name in first], *rest] for first, *rest in references]
    assert len(table.columns) == max(len(first) for first, *_ in references)
    source = open_table(path)
    assert 1 <= len(source) <= len(rows)
    assert source.labels.ndim == 2 or len(source.classes) > int(source.labels.max())
    assert len({len(source.labels), len(source.splits), len(source.paths)}) == 1


def test_tables_of_text(campaign: Campaign) -> None:
    contents = seeds()
    campaign.run(lambda draw: mutated(draw, contents), check, suffix=".csv", share=0.6)
    assert campaign.accepted > 0.05 * campaign.rejected


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
LABELS = st.text(st.characters(categories=["L"]), min_size=1, max_size=5).map(lambda text: f"x{text}y")
SPLITS = st.sampled_from(["", "train"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    folder = tmp_path_factory.mktemp("tables")

    def write(text: str, encoding: str) -> Path:
        (folder / "t.csv").write_bytes(text.encode(encoding))
        return folder / "t.csv"

    return write


def test_tables_that_hypothesis_draws(campaign: Campaign, written: Callable[[str, str], Path]) -> None:
    @drawing(0.2)
    @given(
        rows=st.lists(
            st.tuples(CELLS, LABELS, SPLITS, st.floats(0, 1e6)), min_size=1, max_size=8, unique_by=lambda row: row[0]
        ),
        delimiter=st.sampled_from(DELIMITERS),
        end=st.sampled_from(["\n", "\r\n"]),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    )
    def draw(rows: list[tuple[str, str, str, float]], delimiter: str, end: str, encoding: str) -> None:
        file = io.StringIO(newline="")
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([("path", "label", "split", "weight"), ("t.csv", "xy", "", 1.0), *rows])
        with campaign.input():
            path = written(file.getvalue(), encoding)
            source = open_table(path)
            drawn = [(text, unicodedata.normalize("NFC", label), split) for text, label, split, _ in rows]
            expected = list(dict.fromkeys([("t.csv", "xy", ""), *drawn]))
            assert [source.classes[label] for label in source.labels] == [label for _, label, _ in expected]
            assert list(source.splits) == [split for *_, split in expected]
            assert list(source.paths) == [path.parent / text for text, *_ in expected]

    draw()
    assert campaign.accepted > 0.3 * campaign.rejected


def test_tables_in_parquet(campaign: Campaign, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {name: [row[place] for row in ROWS[1:]] for place, name in enumerate(ROWS[0])}
    columns |= {
        "number": [1, None, 3, 4, 5, 6, 7],
        "ratio": [0.5, float("nan"), 1.0, 2.0, 3.0, 4.0, 5.0],
        "raw": [b"a"] * 7,
    }
    contents = []
    for options in ({}, {"compression": "gzip"}, {"use_dictionary": False, "compression": "none"}, {"version": "1.0"}):
        parquet.write_table(arrow.table(columns), tmp_path / "seed.parquet", **options)
        contents.append((tmp_path / "seed.parquet").read_bytes())

    def check_parquet(path: Path) -> None:
        table = open_rows(path)
        rows = [cells for _, cells in table.rows]
        expected = parquet.ParquetFile(path).read().to_pylist()
        assert rows == [[_text(row[name]) for name in table.columns] for row in expected]
        open_table(path)

    campaign.run(lambda draw: mutated(draw, contents), check_parquet, suffix=".parquet", share=0.2)
    assert campaign.accepted > 0.02 * campaign.rejected


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize("start", [b"", b"path,label\n", b"path,label\n'", b'path,label\n"', b"\xff\xfe"])
def test_a_line_without_end_takes_little_memory(campaign: Campaign, start: bytes) -> None:
    path = campaign.folder / "long.csv"
    with path.open("wb") as file:
        file.write(start)
        for _ in range(256):
            file.write(b"a" * (1 << 20))
    campaign.limit_bytes = 64 << 20
    with campaign.input(), pytest.raises(DataError, match="line"):
        open_table(path)
