"""write_table: what is written is read back equal."""

import csv
import json
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from vitreous.errors import ConfigError, MissingDependencyError, SaveError
from vitreous.use.predict.predictor import Prediction
from vitreous.use.predict.table import check_table_path, write_table

CLASSES = ("Äpfel", '<b>&"', "two, words")
PREDICTIONS = [
    Prediction("a ü,1.png", "Äpfel", 0.1 + 0.2, (0.1 + 0.2, 0.25, 0.45)),
    Prediction("broken.png", "", 0.0, (), "broken.png: empty file"),
    Prediction('q".png', '<b>&"', 1 / 3, (1 / 3, 1 / 3, 1 / 3)),
]
COLUMNS = ["image", "label", "probability", "error", "p_Äpfel", 'p_<b>&"', "p_two, words"]


def test_csv_reads_back_equal(tmp_path: Path) -> None:
    write_table(tmp_path / "x.csv", PREDICTIONS, CLASSES)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == COLUMNS
    for row, prediction in zip(rows, PREDICTIONS, strict=True):
        assert row[:2] == [prediction.image, prediction.label]
        assert row[3] == prediction.error
        numbers = [prediction.probability, *prediction.probabilities]
        assert row[2:3] + row[4:] == ([""] * 4 if prediction.error else [repr(number) for number in numbers])


def test_jsonl_reads_back_equal(tmp_path: Path) -> None:
    write_table(tmp_path / "x.jsonl", PREDICTIONS, CLASSES)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [list(row) for row in rows] == [COLUMNS] * 3
    assert [list(row.values()) for row in rows] == _values()


def test_parquet_reads_back_equal(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", PREDICTIONS, CLASSES)
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == COLUMNS
    assert [list(row.values()) for row in table.to_pylist()] == _values()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "CSV"])
def test_no_predictions_give_a_table_without_rows(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    write_table(path, [], CLASSES)
    if suffix == "parquet":
        assert pyarrow.parquet.read_table(path).shape == (0, len(COLUMNS))
    else:
        assert len(path.read_text(encoding="utf-8").splitlines()) == (suffix.lower() == "csv")


@pytest.mark.parametrize(("name", "ends"), [("x.txt", ".txt"), ("x", "nothing"), ("x.csv.gz", ".gz")])
def test_unknown_suffix_is_named_before_anything_is_predicted(name: str, ends: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_table_path(tmp_path / name)
    assert str(caught.value) == f"out={tmp_path / name}: ends in {ends}; use one of .csv, .jsonl, .parquet"


def test_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no where" / "x.csv"
    with pytest.raises(ConfigError) as caught:
        check_table_path(path)
    assert str(caught.value) == f"out={path}: the folder {path.parent} does not exist; make it first"


def test_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(ConfigError) as caught:
        check_table_path(tmp_path / "x.csv")
    got, instead = tmp_path / "x.csv", tmp_path / "x.csv" / "predictions.csv"
    assert str(caught.value) == f"out={got}: is a folder; name a file, e.g. {instead}"


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError) as caught:
        check_table_path(tmp_path / "x.parquet")
    wanted = "out=….parquet: needs pyarrow, which is not installed; `pip install 'vitreous[parquet]'`, or use .csv"
    assert str(caught.value) == wanted
    check_table_path(tmp_path / "x.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_table_is_complete_or_absent(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(SaveError, match="No space left on device"):
        write_table(tmp_path / f"x.{suffix}", PREDICTIONS, CLASSES)
    assert list(tmp_path.iterdir()) == []


def _values() -> list[list[object]]:
    rows = []
    for p in PREDICTIONS:
        numbers = [None] * 3 if p.error else list(p.probabilities)
        rows.append([p.image, p.label, None if p.error else p.probability, p.error, *numbers])
    return rows
