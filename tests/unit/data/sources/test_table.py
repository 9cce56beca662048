import contextlib
import csv
import io
import os
import shutil
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.data.sources.builders import error_of

from vitreous.data.sources import FileSource, open_source, rows
from vitreous.data.sources.rows import open_rows
from vitreous.data.sources.spelling import COLUMN_SPELLINGS, split_of
from vitreous.data.sources.table import open_table
from vitreous.data.survey.facts import survey
from vitreous.errors import DecodeError, MissingDependencyError, VitreousError

MakeFolder = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    """A folder with the images a/0.png to a/2.png, b/0.png and b/1.png."""
    return make_folder({"a": 3, "b": 2})


ROWS = "a/0.png,cat\na/1.png,cat\na/2.png,dog\nb/0.png,dog\nb/1.png,owl\n"


def write(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def refusal(path: Path, root: Path | None = None) -> str:
    """Return the error message without the prefix that names the table."""
    message, prefix = error_of(lambda: open_table(path, root)), f"data.source={path}: "
    assert message.startswith((prefix, "data.root="))
    return message.removeprefix(prefix)


def check(source: FileSource, folder: Path) -> None:
    assert source.classes == ("cat", "dog", "owl")
    np.testing.assert_array_equal(source.labels, [0, 0, 1, 1, 2])
    assert set(source.splits) == {""}
    assert [path.relative_to(folder).as_posix() for path in source.paths] == [
        "a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png",
    ]  # fmt: skip
    assert (source.groups, source.weights, source.notes) == (None, None, ())
    assert source.image(4).size == (12, 9)


def test_table_of_paths_and_labels_becomes_samples(folder: Path) -> None:
    source = open_source(str(write(folder, "path,label\n" + ROWS)))
    assert isinstance(source, FileSource)
    check(source, folder)
    assert source.name == "labels"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_line_ends_and_byte_order_marks_are_recognized(
    folder: Path, delimiter: str, end: str, encoding: str
) -> None:
    text = ("path,label\n" + ROWS).replace(",", delimiter).replace("\n", end)
    check(open_table(write(folder, text, encoding=encoding)), folder)


def test_tsv_is_split_only_at_tabs(folder: Path) -> None:
    (folder / "x,y.png").write_bytes((folder / "a" / "0.png").read_bytes())
    source = open_table(write(folder, "path\tlabel\nx,y.png\tone, two\na/1.png\tthree\n", "labels.tsv"))
    assert source.classes == ("one, two", "three")
    assert source.image(0).size == (12, 9)


@pytest.mark.parametrize(
    ("path", "label"),
    [("filename", "class"), ("File", "TARGET"), ("Image Path", "category"), ("image_path", "Labels"), ("img", "y"),
     ("file-name", "class_name")],
)  # fmt: skip
def test_columns_are_recognized_in_common_spellings(folder: Path, path: str, label: str) -> None:
    check(open_table(write(folder, f"{path},{label}\n{ROWS}")), folder)


@pytest.mark.parametrize("role", list(COLUMN_SPELLINGS))
def test_first_spelling_of_every_role_is_its_name(role: str) -> None:
    assert COLUMN_SPELLINGS[role][0] == role


def test_order_of_columns_and_additional_columns_do_not_matter(folder: Path) -> None:
    cells = [line.split(",") for line in ROWS.splitlines()]
    text = "width,label,comment,path\n" + "".join(f'12,{label},"a, ""b""",{path}\n' for path, label in cells)
    check(open_table(write(folder, text)), folder)


def test_column_named_exactly_like_its_role_wins(folder: Path) -> None:
    text = "file,path,label,class\n" + "".join(f"nothing,{line},zebra\n" for line in ROWS.splitlines())
    check(open_table(write(folder, text)), folder)


def test_ambiguous_columns_are_refused(folder: Path) -> None:
    assert refusal(write(folder, "file,image,label\na/0.png,a/0.png,cat\n")) == (
        "several columns may be the path (file and image); rename the right one to path"
    )
    assert refusal(write(folder, "path,class,target\na/0.png,cat,3\n")) == (
        "several columns may be the label (class and target); rename the right one to label"
    )


def test_missing_column_is_refused_with_the_existing_and_the_most_similar_one(folder: Path) -> None:
    assert refusal(write(folder, "filname,klass\na/0.png,cat\n")) == (
        "no column for the path among filname and klass; if it is filname, rename that to path"
    )
    assert refusal(write(folder, "path,klass\na/0.png,cat\n")) == (
        "no column for the label among path and klass; if it is klass, rename that to label"
    )
    assert refusal(write(folder, ROWS)) == (
        "no column for the path among a/0.png and cat; write path above it in the first line"
    )
    assert refusal(write(folder, ",".join(f"c{i}" for i in range(99)) + "\n")) == (
        "no column for the path among c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 and 87 more; "
        "write path above it in the first line"
    )


def test_unusual_names_are_read_unchanged(folder: Path) -> None:
    names = ["Äpfel & süße Birnen.png", "with, comma.png", 'with "quotes".png', "with\nnewline.png", "  spaces .png",
             "semi;colon.png", "日本.png"]  # fmt: skip
    for name in names:
        shutil.copy(folder / "a" / "0.png", folder / name)
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("path", "label"), *((name, name) for name in names)])
    source = open_table(write(folder, text.getvalue()))
    assert [source.classes[label] for label in source.labels] == [name.strip() for name in names]
    assert [path.name for path in source.paths] == names
    assert all(source.image(index).size == (12, 9) for index in range(len(names)))


def test_label_in_two_unicode_forms_is_one_class(folder: Path) -> None:
    source = open_table(write(folder, "path,label\na/0.png,\u00c4\na/1.png,A\u0308\nb/0.png,B\n"))
    assert source.classes == ("B", "\u00c4")


def test_numeric_labels_are_sorted_as_numbers(folder: Path) -> None:
    source = open_table(write(folder, "path,label\na/0.png,10\na/1.png,9.0\na/2.png,9\nb/0.png,-1\n"))
    assert source.classes == ("-1", "9", "10")
    np.testing.assert_array_equal(source.labels, [2, 1, 1, 0])
    source = open_table(write(folder, "path,label\na/0.png,10\na/1.png,9\na/2.png,x\n"))
    assert source.classes == ("10", "9", "x")


def test_splits_groups_and_weights_are_read(folder: Path) -> None:
    text = (
        "path;label;Subset;Patient ID;Sample Weight\n"
        "a/0.png;cat;Training;ann;0,5\na/1.png;dog;;bob;2\na/2.png;dog;DEV;;\nb/0.png;cat;test;ann;0\n"
    )
    source = open_table(write(folder, text))
    assert list(source.splits) == ["train", "", "val", "test"]
    assert source.groups is not None
    assert source.weights is not None
    assert source.groups.tolist() == ["ann", "bob", "", "ann"]
    np.testing.assert_array_equal(source.weights, [0.5, 2.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("text", "split"),
    [("train", "train"), ("TRAINING", "train"), ("train_set", "train"), ("valid", "val"), ("Validation", "val"),
     ("dev", "val"), ("eval", "val"), ("testing", "test"), ("hold-out", "test"), ("trial", None), ("", None)],
)  # fmt: skip
def test_splits_are_recognized_in_common_spellings(text: str, split: str | None) -> None:
    assert split_of(text) == split


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/1.png,,train,1", "line 3: the label is empty; fill it in or delete the row"),
        (",dog,train,1", "line 3: the path is empty; fill it in or delete the row"),
        ("a/1.png,dog,tset,1", "line 3: split=tset: no such split; did you mean test?"),
        (
            "a/1.png,dog,7,1",
            "line 3: split=7: no such split; use train, val or test, or leave the cell empty",
        ),
        ("a/1.png,dog,test,-1", "line 3: weight=-1: must be a number of at least 0; leave the cell empty for 1"),
        ("a/1.png,dog,test,nan", "line 3: weight=nan: must be a number of at least 0; leave the cell empty for 1"),
        ("a/1.png,dog,test,much", "line 3: weight=much: must be a number of at least 0; leave the cell empty for 1"),
        (
            "a/1.png,dog,test,1,5",
            "line 3: 5 cells, but only 4 columns have headings; put cells that contain the delimiter in quotes",
        ),
        ('a/1.png,"dog,test,1', "line 3: unexpected end of data; check the quotes in this line"),
        ('a/1.png,"d"og,test,1', "line 3: ',' expected after '\"'; check the quotes in this line"),
    ],
)
def test_cell_that_breaks_a_rule_is_refused_with_its_line(folder: Path, line: str, message: str) -> None:
    path = write(folder, f"path,label,split,weight\na/0.png,cat,train,1\n{line}\n")
    assert refusal(path) == message


def test_cells_at_the_end_may_be_missing_and_lines_may_be_empty(folder: Path) -> None:
    text = "path,label,split,,\n\na/0.png,cat\n,,,,\na/1.png,dog,,,,,\na/2.png,dog,val,,\n"
    assert list(open_table(write(folder, text)).splits) == ["", "", "val"]


def test_space_after_the_delimiter_is_ignored(folder: Path) -> None:
    source = open_table(write(folder, "label, path\ncat, a/0.png\ndog, a/1.png\n"))
    assert [path.name for path in source.paths] == ["0.png", "1.png"]


def test_duplicate_rows_are_ignored_with_a_note(folder: Path) -> None:
    path = write(folder, "path,label\n" + ROWS + "a/1.png,cat\na/0.png,cat\n")
    source = open_table(path)
    assert source.notes == (f"data.source={path}: ignored 2 duplicate rows",)
    assert [p.name for p in source.paths] == ["0.png", "1.png", "2.png", "0.png", "1.png"]
    np.testing.assert_array_equal(source.labels, [0, 0, 1, 1, 2])


@pytest.mark.parametrize("role", ["weight", "group"])
def test_rows_of_one_image_and_label_must_agree(folder: Path, role: str) -> None:
    path = write(folder, f"path,label,{role}\na/0.png,cat,1\na/1.png,dog,1\na/0.png,cat,5\n")
    assert refusal(path) == (
        f"path=a/0.png: its rows have different values of {role}; give all rows of an image the same"
    )


def test_path_with_two_labels_is_kept_twice_and_the_survey_reports_it(folder: Path) -> None:
    surveyed = survey(
        open_table(write(folder, "path,label\n" + ROWS + "a/1.png,owl\n"), task="single"), test_ratio=0.0, val_ratio=0.0
    )
    assert surveyed.facts.num_train == 6
    assert "1 image in several classes, byte for byte; keep only the right class" in surveyed.facts.notes


def test_groups_of_a_table_stay_in_one_split(make_folder: MakeFolder) -> None:
    root = make_folder({"x": 60})
    lines = "".join(f"x/{i}.png,{'cat' if i % 2 else 'dog'},video {i // 5}\n" for i in range(60))
    surveyed = survey(open_table(write(root, "path,label,group\n" + lines)))
    groups = [{int(index) // 5 for index in indices} for indices in surveyed.indices.values()]
    assert all(groups)
    assert sum(len(group) for group in groups) == 12
    assert surveyed.facts.notes == ()


def test_groups_across_splits_or_without_test_images_are_noted(folder: Path) -> None:
    torn = "path,label,group,split\na/0.png,a,x,train\na/1.png,b,x,test\nb/0.png,b,y,train\nb/1.png,a,,test\n"
    note = "1 group in train and also in val or test: held-out accuracy is optimistic; put each group in one split"
    assert note in survey(open_table(write(folder, torn))).facts.notes
    one = "path,label,group\na/0.png,a,x\na/1.png,b,x\nb/0.png,b,x\n"
    note = "no test images: 1 group, possibly joined by shared images, cannot be split up; add other groups"
    assert note in survey(open_table(write(folder, one))).facts.notes


def test_missing_files_folders_pipes_and_devices_are_unreadable_samples(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    more = "gone.png,cat\nb,dog\npipe.png,owl\nzero\0byte.png,owl\n/dev/zero,owl\n"
    source = open_table(write(folder, "path,label\n" + ROWS + more))
    reasons = dict(survey(source, test_ratio=0.0, val_ratio=0.0).facts.skipped)
    assert {Path(name).name: reason for name, reason in reasons.items()} == {
        "gone.png": "No such file or directory",
        "b": "not a regular file",
        "pipe.png": "not a regular file",
        "zero\0byte.png": "embedded null byte",
        "zero": "not a regular file",
    }


def test_image_file_over_the_limit_is_not_read(folder: Path) -> None:
    with (folder / "huge.png").open("wb") as file:
        file.truncate((1 << 30) + 1)
    source = open_table(write(folder, "path,label\na/0.png,cat\nhuge.png,dog\n"))
    with pytest.raises(DecodeError, match=r"huge\.png: too large for an image \(1,073,741,825 bytes\)$"):
        source.content(1)


def test_wrong_root_is_refused_before_any_image_is_read(folder: Path) -> None:
    (folder / "tables").mkdir()
    path = write(folder / "tables", "path,label\n" + ROWS)
    assert refusal(path) == (
        "tried 5 paths, and none exists (the first is a/0.png): "
        f"they are relative to another folder; set data.root={folder}"
    )
    check(open_table(path, folder), folder)
    opened = open_source(path, root=str(folder))
    assert isinstance(opened, FileSource)
    check(opened, folder)


def test_paths_may_lead_anywhere_without_a_root(folder: Path) -> None:
    (folder / "tables").mkdir()
    text = f"path,label\n../a/0.png,cat\n{folder}/a/1.png,dog\n"
    source = open_table(write(folder / "tables", text))
    assert all(source.image(index).size == (12, 9) for index in range(2))


@pytest.mark.parametrize("path", ["../b/0.png", "x/../../b/0.png", "/etc/passwd", ".", "b/..", "../alike/0.png"])
def test_path_that_leaves_a_given_root_is_refused(folder: Path, path: str) -> None:
    table = write(folder, f"path,label\n0.png,cat\n{path},dog\n")
    rule = f"outside data.root={folder / 'a'}; use a root that contains all images"
    assert refusal(table, folder / "a") == f"line 3: path={path}: {rule}"


def test_absolute_paths_and_detours_within_the_root_are_allowed(folder: Path) -> None:
    text = f"path,label\n{folder}/a/0.png,cat\nx/../b/0.png,dog\n"
    assert len(open_table(write(folder, text), folder)) == 2


def test_root_needs_a_table_and_must_exist(folder: Path) -> None:
    table = write(folder, "path,label\n" + ROWS)
    assert refusal(table, folder / "gone") == (
        f"data.root={folder / 'gone'}: no such folder; use the folder that the table's paths are relative to"
    )
    assert error_of(lambda: open_source("digits", root="x")) == (
        "data.root=x: only applies to a table or an export, and digits is neither; leave it out"
    )
    assert error_of(lambda: open_source(folder, root="x", task="unlabeled")) == (
        "data.root=x: only applies to a table or an export, not to a folder; leave it out"
    )


def test_table_that_no_classifier_can_be_trained_on_is_refused(folder: Path) -> None:
    assert refusal(write(folder, "")) == "is empty; write the line `path,label`, then one line per image"
    assert refusal(write(folder, "path,label\n")) == "has headings but no rows; add one row per image"
    assert refusal(write(folder, "path,label\na/0.png,cat\n")) == (
        "only one class, 'cat'; a classifier needs two, so add images of another"
    )
    assert refusal(write(folder, "path,label,split\na/0.png,cat,train\na/1.png,dog,train\na/2.png,dogs,test\n")) == (
        "class 'dogs' has images in test but none in train; did you mean dog?"
    )
    assert refusal(write(folder, "path,label,weight\na/0.png,cat,0\na/1.png,dog,0\n")) == (
        "all 2 weights are 0; give some images a weight above 0"
    )


def test_column_with_too_many_labels_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.data.sources.table.MAX_CLASSES", 3)
    lines = "".join(f"{i}.png,{i / 7}\n" for i in range(9))
    assert refusal(write(folder, "path,label\n" + lines)) == (
        "line 5: over 3 different labels, too many for classes; name the column with the classes `label`"
    )


def test_line_that_is_not_utf8_is_named(folder: Path) -> None:
    path = write(folder, "path,label\na/0.png,cat\na/1.png,süß\na/2.png,süß\n", encoding="latin-1")
    assert refusal(path) == "line 3: not UTF-8 text; save the table as UTF-8"


def test_utf8_that_is_cut_short_is_refused(folder: Path) -> None:
    path = folder / "labels.csv"
    path.write_bytes("path,label\na/0.png,sü".encode()[:-1])
    assert refusal(path) == "line 2: not UTF-8 text; save the table as UTF-8"


def test_odd_byte_of_utf16_is_refused(folder: Path) -> None:
    path = folder / "labels.csv"
    path.write_bytes("path,label\na/0.png,cat\n".encode("utf-16") + b"7")
    assert refusal(path) == "line 3 or later: not UTF-16 text; save the table as UTF-8"


def test_cell_over_the_length_limit_is_refused(folder: Path) -> None:
    message = refusal(write(folder, "path,label\na/0.png," + "x" * 200_000 + "\n"))
    assert message == "line 2: field larger than field limit (131072); check the quotes in this line"


def test_different_rows_with_the_same_hash_are_not_duplicates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.data.sources.table.hash", lambda _: 7, raising=False)
    assert len(open_table(write(folder, "path,label\n" + ROWS + "a/0.png,cat\n"))) == 5


# Parquet.


def write_parquet(path: Path, columns: Mapping[str, object]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(dict(columns)), path)
    return path


def test_parquet_gives_the_same_samples_as_csv(folder: Path) -> None:
    paths, labels = zip(*(line.split(",") for line in ROWS.splitlines()), strict=True)
    table = write_parquet(folder / "labels.parquet", {"path": paths, "boxes": [[1, 2]] * 5, "label": labels})
    check(open_table(table), folder)


def test_parquet_keeps_numbers_missing_values_and_categories(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    columns = {
        "file": pyarrow.array(["a/0.png", "a/1.png", "a/2.png"]).dictionary_encode(),
        "label": [10, 9, 10],
        "split": pyarrow.array(["train", None, "val"]),
        "weight": [0.5, float("nan"), 2.0],
        "group": [7, None, 7],
    }
    source = open_table(write_parquet(folder / "labels.pq", columns))
    assert (source.classes, list(source.splits)) == (("9", "10"), ["train", "", "val"])
    assert source.groups is not None
    assert source.weights is not None
    assert source.groups.tolist() == ["7", "", "7"]
    np.testing.assert_array_equal(source.weights, [0.5, 1.0, 2.0])


def test_parquet_list_of_labels_is_several_labels(folder: Path) -> None:
    columns = {"path": ["a/0.png", "a/1.png", "a/2.png"], "labels": [["cat", "dog"], [], ["dog"]]}
    source = open_table(write_parquet(folder / "t.parquet", columns))
    np.testing.assert_array_equal(source.labels, [[1, 1], [0, 0], [0, 1]])
    assert source.classes == ("cat", "dog")
    columns["labels"][1] = ["a;b"]
    assert refusal(write_parquet(folder / "t.parquet", columns)) == (
        "row 2: label 'a;b': contains ; or |, or begins or ends in a blank; rename it"
    )
    columns["labels"] = [[0, 1], [1, 0], [1, 1]]  # type: ignore[list-item]
    assert refusal(write_parquet(folder / "t.parquet", columns)) == (
        "column labels: holds lists of numbers or structures; write each label as text"
    )


def test_parquet_of_images_is_refused_as_a_table(folder: Path) -> None:
    images = [{"bytes": b"x", "path": "p"}] * 2
    table = write_parquet(folder / "train.parquet", {"image": images, "label": [0, 1]})
    assert refusal(table) == (
        "column image holds images instead of paths; to read it as a Hugging Face data set, put it into a folder that "
        "has only Parquet files, and give that folder"
    )


def test_damaged_parquet_is_refused(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    path = folder / "labels.parquet"
    path.write_bytes(b"PAR1 nonsense")
    assert refusal(path).startswith("not a valid Parquet file (Parquet magic bytes not found")
    assert refusal(path).endswith("; write it again, or use .csv")


def test_parquet_that_declares_too_many_rows_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROWS", 4)
    table = write_parquet(folder / "labels.parquet", {"path": ["a"] * 5, "label": [1] * 5})
    assert refusal(table) == "5 rows, but at most 4 are read; split the table"


def test_parquet_without_pyarrow_is_refused_with_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = folder / "labels.parquet"
    path.write_bytes(b"")
    with pytest.raises(MissingDependencyError) as caught:
        open_table(path)
    assert str(caught.value) == (
        f"data.source={path}: needs pyarrow, which is not installed; run `pip install 'vitreous[parquet]'`, or use .csv"
    )


# Any content.

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8), delimiter=st.sampled_from(",;\t|"))
def test_tables_written_by_the_csv_module_are_read_back(
    tmp_path: Path, cells: list[tuple[str, str, str]], delimiter: str
) -> None:
    path = tmp_path / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("path", "label", "note"), *cells])
    table = open_rows(path)
    assert table.columns == ("path", "label", "note")
    assert [tuple(found) for _, found in table.rows] == [row for row in cells if any(row)]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from(
        [b"", b"path,label\n", b"path;label;split\n", b"\xff\xfe", b"\xef\xbb\xbfpath,label\r", b"PAR1"]
    ),
    rest=st.one_of(st.binary(max_size=200), st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))),
    name=st.sampled_from(["t.csv", "t.tsv", "t.parquet", "t.txt"]),
)
def test_any_bytes_are_a_table_or_an_error_of_this_project(
    tmp_path: Path, start: bytes, rest: bytes, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(start + rest)
    with contextlib.suppress(VitreousError):
        open_source(path)


def test_memory_per_row_is_bounded(folder: Path) -> None:
    path = folder / "many.csv"
    lines = (f"images/{i // 1000:04d}/{i:07d}.jpg,class {i % 97},person {i % 5000}\n" for i in range(15_000))
    with path.open("w") as file:
        file.write("path,label,group\na/0.png,class 0,x\n")
        file.writelines(lines)
    tracemalloc.start()
    source = open_table(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source) == 15_001
    assert peak_bytes / len(source) < 300  # at most 300 MB for a million rows
    assert source.paths[15_000].name == "0014999.jpg"


def test_images_through_a_table_are_those_of_their_folder(make_folder: MakeFolder, tmp_path: Path) -> None:
    by_folder = open_source(make_folder({"Äpfel": 20, "a cat": 13, "dog, wet": 9}))
    assert isinstance(by_folder, FileSource)
    names = [by_folder.classes[label] for label in by_folder.labels]
    lines = [f'"{path}","{name}"' for path, name in zip(by_folder.paths, names, strict=True)]
    by_table = open_source(write(tmp_path, "\n".join(["image,class", *lines])))
    assert by_table.classes == by_folder.classes
    np.testing.assert_array_equal(by_table.labels, by_folder.labels)
    facts = survey(by_table).facts
    assert (facts.num_train + facts.num_val + facts.num_test, facts.skipped) == (42, ())
    assert facts.fingerprint == survey(by_folder).facts.fingerprint
