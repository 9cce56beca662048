"""Tables of predictions: what is written can be read back, and old and new runs have a readable predictions.csv."""

import csv
import json
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from vitreous.errors import ConfigError, DamagedFileError, MissingDependencyError, SaveError
from vitreous.use.predict.predictor import Prediction
from vitreous.use.predict.table import HeldOutPrediction, check_table_path, read_held_out, write_table
from vitreous.use.run import Run

CLASSES = ("Äpfel", '<b>&"', "two, words")
PREDICTIONS = [
    Prediction("a ü,1.png", "Äpfel", 0.1 + 0.2, (0.1 + 0.2, 0.25, 0.45)),
    Prediction("broken.png", "", 0.0, (), "broken.png: empty file"),
    Prediction('q".png', '<b>&"', 1 / 3, (1 / 3, 1 / 3, 1 / 3)),
]
COLUMNS = ["path", "predicted", "probability", "error", "p_Äpfel", 'p_<b>&"', "p_two, words"]


def test_csv_can_be_read_back(tmp_path: Path) -> None:
    write_table(tmp_path / "x.csv", PREDICTIONS, CLASSES)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == COLUMNS
    for row, prediction in zip(rows, PREDICTIONS, strict=True):
        assert row[:2] == [prediction.image, prediction.label]
        assert row[3] == prediction.error
        numbers = [prediction.probability, *prediction.probabilities]
        assert row[2:3] + row[4:] == ([""] * 4 if prediction.error else [repr(number) for number in numbers])


def test_jsonl_can_be_read_back(tmp_path: Path) -> None:
    write_table(tmp_path / "x.jsonl", PREDICTIONS, CLASSES)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [list(row) for row in rows] == [COLUMNS] * 3
    assert [list(row.values()) for row in rows] == _values()


def test_parquet_can_be_read_back(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", PREDICTIONS, CLASSES)
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == COLUMNS
    assert [list(row.values()) for row in table.to_pylist()] == _values()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "CSV"])
def test_empty_list_gives_a_table_without_rows(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    write_table(path, [], CLASSES)
    if suffix == "parquet":
        assert pyarrow.parquet.read_table(path).shape == (0, len(COLUMNS))
    else:
        assert len(path.read_text(encoding="utf-8").splitlines()) == (suffix.lower() == "csv")


@pytest.mark.parametrize(("name", "ends"), [("x.txt", ".txt"), ("x", "nothing"), ("x.csv.gz", ".gz")])
def test_unknown_suffix_is_an_error_before_images_are_classified(name: str, ends: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_table_path(tmp_path / name)
    assert str(caught.value) == f"out={tmp_path / name}: ends in {ends}; use one of .csv, .jsonl, .parquet"


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "no where" / "x.csv"
    with pytest.raises(ConfigError) as caught:
        check_table_path(path)
    assert str(caught.value) == f"out={path}: the folder {path.parent} does not exist; create it first"


def test_folder_is_rejected_as_table(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(ConfigError) as caught:
        check_table_path(tmp_path / "x.csv")
    got, instead = tmp_path / "x.csv", tmp_path / "x.csv" / "classes.csv"
    assert str(caught.value) == f"out={got}: is a folder; name a file, e.g. {instead}"


def test_parquet_without_pyarrow_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError) as caught:
        check_table_path(tmp_path / "x.parquet")
    wanted = (
        "out=….parquet: needs pyarrow, which is not installed; `pip install 'vitreous[parquet]'`, or another suffix"
    )
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


# predictions.csv of a run.

ROWS = [HeldOutPrediction("a ü,1.png", "cat", "dog"), HeldOutPrediction('q".png', "dog", "dog")]


@pytest.mark.parametrize("header", ["path,true,predicted,probability", "image,label,called,probability"])
def test_predictions_of_new_and_old_runs_can_be_read(header: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(f'{header}\n"a ü,1.png",cat,dog,0.5\n"q"".png",dog,dog,0.9\n', encoding="utf-8")
    assert read_held_out(path) == ROWS


def test_predictions_of_a_run_are_read_as_written(run: Run) -> None:
    rows = read_held_out(run.path / "predictions.csv")
    stored = run.metrics["test"]
    assert len(rows) == stored["num_images"]
    assert sum(row.true == row.predicted for row in rows) == stored["num_correct"]
    assert all(Path(row.path).parent.name == row.true for row in rows)


@pytest.mark.parametrize("text", ["", "path,true,probability\n", "image,true,called\n"])
def test_predictions_without_the_columns_are_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DamagedFileError) as caught:
        read_held_out(path)
    wanted = f"{path}: has no columns path, true, predicted; restore the file, or train again"
    assert str(caught.value) == wanted


def test_columns_mean_the_same_in_both_tables(run: Run, tmp_path: Path) -> None:
    with (run.path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        held_out = list(csv.DictReader(file))
    write_table(tmp_path / "x.csv", run.predict([row["path"] for row in held_out]), run.classes)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        predicted = list(csv.DictReader(file))
    for column in ("path", "predicted"):
        assert [row[column] for row in held_out] == [row[column] for row in predicted]
    for one, other in zip(held_out, predicted, strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=2e-6)
    assert "true" not in predicted[0]


def _values() -> list[list[object]]:
    rows = []
    for p in PREDICTIONS:
        numbers = [None] * 3 if p.error else list(p.probabilities)
        rows.append([p.image, p.label, None if p.error else p.probability, p.error, *numbers])
    return rows
