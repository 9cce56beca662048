"""Tables of predictions: what is written can be read back, and old and new runs have a readable predictions.csv."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from vitreous.errors import ConfigError, DamagedFileError, DataError, MissingDependencyError, SaveError
from vitreous.use.predict.predictor import Prediction
from vitreous.use.predict.table import HeldOutPrediction, check_table_path, read_held_out, read_labeled, write_table
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


# Predictions of any tool.


def written(folder: Path, text: str, name: str = "any.csv") -> Path:
    """Write a table and return its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_probabilities_of_all_classes_decide_their_order_and_are_divided_by_their_sum(tmp_path: Path) -> None:
    table = "note,p_dog,predicted,p_cat ü,true\n1,0.3,cat ü,0.7,dog\n2,0.504,dog,0.5,dog\n"
    classes, true, predicted, probabilities = read_labeled(written(tmp_path, table))
    assert classes == ("dog", "cat ü")
    assert (true.tolist(), predicted.tolist()) == ([0, 0], [1, 0])
    np.testing.assert_allclose(probabilities, [[0.3, 0.7], [0.504 / 1.004, 0.5 / 1.004]])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_classes_without_columns_are_sorted_and_numbers_by_value(delimiter: str, tmp_path: Path) -> None:
    rows = ("true", "predicted"), ("180", "90"), ("0", "0"), ("90", "90")
    classes, true, predicted, nothing = read_labeled(written(tmp_path, "\n".join(map(delimiter.join, rows))))
    assert (classes, true.tolist(), predicted.tolist()) == (("0", "90", "180"), [2, 0, 1], [1, 0, 1])
    assert nothing is None


def test_probability_of_the_predicted_class_is_one_column(tmp_path: Path) -> None:
    *_, found = read_labeled(written(tmp_path, "true;predicted;probability\na;b;0,25\nb;b;1\n"))
    assert found is not None
    assert found.tolist() == [[0.25], [1.0]]


def test_predictions_of_a_run_are_read_like_those_of_any_tool(run: Run, tmp_path: Path) -> None:
    classes, true, predicted, confidence = read_labeled(run.path / "predictions.csv")
    assert set(classes) <= set(run.classes)
    assert int((true == predicted).sum()) == run.metrics["test"]["num_correct"]
    assert confidence is not None
    rows = read_held_out(run.path / "predictions.csv")
    write_table(tmp_path / "all.csv", run.predict([row.path for row in rows]), run.classes)
    head, *lines = (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()
    true_cells = ['"{}"'.format(row.true.replace('"', '""')) for row in rows]
    joined = [f"true,{head}", *(f"{cell},{line}" for cell, line in zip(true_cells, lines, strict=True))]
    classes, true, again, probabilities = read_labeled(written(tmp_path, "\n".join(joined), "joined.csv"))
    assert classes == run.classes
    assert [classes[number] for number in again] == [row.predicted for row in rows]
    np.testing.assert_allclose(probabilities, confidence, atol=1e-6)  # type: ignore[union-attr]


ROW_RULE = "more cells than headings, an empty class, or one without a column p_CLASS"
SUM_RULE = "must be from 0 to 1, and sum to 1 over all classes, of which an image has one"
LEAVE_OUT = "correct it, or leave out the columns of probabilities"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write the line `true,predicted`, then one line per image"),
        ("true,predicted\n", "has headings but no rows; add one row per image"),
        ("path,label,pred\nx,a,b\n", "the columns are label, path, pred; name one of them true"),
        ("true,pred\na,b\n", "the columns are pred, true; name one of them predicted"),
        ("true,true,predicted\na,b,a\n", "the columns are predicted, true, true; name one of them true"),
        ("true,predicted,p_a,p_a\na,a,1,0\n", "the columns are p_a, p_a, predicted, true; name one of them p_a"),
        ("true,predicted\na,a\nb,\n", f"line 3: class=: {ROW_RULE}; correct the row, or delete it"),
        ("true,predicted\na,a\nb\n", f"line 3: class=: {ROW_RULE}; correct the row, or delete it"),
        ("true,predicted\na,a,c\n", f"line 2: class=a: {ROW_RULE}; correct the row, or delete it"),
        ("true,predicted,p_cat,p_dog\ncats,dog,0,1\n", f"line 2: class=cats: {ROW_RULE}; did you mean cat?"),
        ("true,predicted,p_cat,p_dog\ncat,dog,0.6,0.6\n", f"line 2: probability=0.6 + 0.6: {SUM_RULE}; {LEAVE_OUT}"),
        ("true,predicted,p_cat,p_dog\ncat,dog,60,40\n", f"line 2: probability=60 + 40: {SUM_RULE}; {LEAVE_OUT}"),
        ("true,predicted,p_cat,p_dog\ncat,dog,,1\n", f"line 2: probability= + 1: {SUM_RULE}; {LEAVE_OUT}"),
        ("true,predicted,p_cat,p_dog\ncat,dog,-0.5,1.5\n", f"line 2: probability=-0.5 + 1.5: {SUM_RULE}; {LEAVE_OUT}"),
        ("true,predicted,probability\na,a,high\n", f"line 2: probability=high: must be from 0 to 1; {LEAVE_OUT}"),
        ("true,predicted,probability\na,a,inf\n", f"line 2: probability=inf: must be from 0 to 1; {LEAVE_OUT}"),
    ],
)  # fmt: skip
def test_a_table_that_breaks_a_rule_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_labeled(path)
    assert str(caught.value) == f"data.source={path}: {message}"


def test_several_labels_per_image_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "path,true,predicted,probability,p_a,p_b\nx,a;b,a,0.9,0.9,0.6\n")
    with pytest.raises(DataError, match="of which an image has one; "):
        read_labeled(path)


def test_too_many_probabilities_are_refused_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.use.predict.table._MOST_PROBABILITIES", 5)
    path = written(tmp_path, "true,predicted,p_a,p_b\n" + "a,a,1,0\n" * 3)
    with pytest.raises(
        DataError, match=r"line 4: over 5 probabilities or 100,000 classes; leave out the columns p_CLASS"
    ):
        read_labeled(path)


def test_names_with_control_characters_stay_on_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, 'true,predicted,p_a\n"x\x1b[31m\ny",a,1\n')
    with pytest.raises(DataError) as caught:
        read_labeled(path)
    assert str(caught.value).isprintable()
    assert "class=x\\x1b[31m\\ny" in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_a_million_rows_take_less_than_a_minute_and_bounded_memory(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    path, names = tmp_path / "many.csv", [f"class {number}" for number in range(10)]
    with path.open("w", encoding="utf-8") as file:
        file.write(f"true,predicted,{','.join(f'p_{name}' for name in names)}\n")
        shares = ",".join(["0.55", *["0.05"] * 9])
        file.writelines(f"class {true},class 0,{shares}\n" for true in draws.integers(10, size=1_000_000))
    code = (
        "import sys, time; from pathlib import Path; from vitreous.use.evaluate.evaluator import evaluate; "
        "found = evaluate(Path(sys.argv[1])).as_dict(); spent = time.process_time(); "
        "peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]; "  # ru_maxrss has the parent's
        "print(found['num_images'], found['calibration']['ece'] >= 0, int(peak) / 1e6, spent)"
    )
    words = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, check=True, timeout=200
    ).stdout.split()
    assert words[:2] == [b"1000000", b"True"]
    assert float(words[2]) < 1.0  # GB, of which torch takes a part
    assert float(words[3]) < 60
