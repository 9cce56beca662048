"""Tables with several labels per image: how they are recognized, read and refused."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer
from tests.unit.data.sources.builders import error_of

from vitreous.data import label_sets
from vitreous.data.label_cells import read_cells
from vitreous.data.label_sets import join_labels, split_labels
from vitreous.data.sources import FileSource, open_source
from vitreous.data.sources.table import open_table
from vitreous.data.survey.facts import survey

MakeFolder = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    """A folder with the images a/0.png to a/39.png."""
    return make_folder({"a": 40})


def table(folder: Path, headings: str, rows: list[str]) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([headings, *rows]) + "\n")
    return path


def of_images(*cells: str) -> list[str]:
    return [f"a/{number}.png,{cell}" for number, cell in enumerate(cells)]


def truth(source: FileSource) -> list[tuple[str, ...]]:
    return [tuple(source.classes[n] for n in np.flatnonzero(row)) for row in source.labels]


def refusal(path: Path, **options: Any) -> str:
    return error_of(lambda: open_table(path, **options)).removeprefix(f"data.source={path}: ")


@pytest.mark.parametrize("separator", [";", "|", " ; "])
def test_cells_with_separators_are_several_labels(folder: Path, separator: str) -> None:
    cells = [f"cat{separator}dog", "dog", f"owl{separator}cat{separator}owl", "cat"]
    source = open_table(table(folder, "path,label", of_images(*cells)))
    assert source.classes == ("cat", "dog", "owl")
    expected = MultiLabelBinarizer().fit_transform([split_labels(cell) for cell in cells])
    np.testing.assert_array_equal(source.labels, expected)
    assert source.task_reason.startswith("2 of 4 rows hold several labels, such as 'cat")


def test_rows_that_repeat_an_image_are_its_labels(folder: Path) -> None:
    rows = ["a/0.png,cat", "a/1.png,dog", "a/0.png,dog", "a/2.png,owl", "a/0.png,dog"]
    source = open_table(table(folder, "path,label", rows))
    assert truth(source) == [("cat", "dog"), ("dog",), ("owl",)]
    assert [path.name for path in source.paths] == ["0.png", "1.png", "2.png"]
    assert source.task_reason.startswith("2 of 4 rows belong to an image with several labels")
    assert source.notes == (f"data.source={folder / 'labels.csv'}: ignored 1 duplicate row",)


def test_columns_of_zeros_and_ones_are_labels(folder: Path) -> None:
    source = open_table(table(folder, "path,person,age,dog", of_images("1,30,0", "1,8,1", "0,5,0.0")))
    assert source.classes == ("dog", "person")
    assert truth(source) == [("person",), ("dog", "person"), ()]
    assert source.groups is None
    assert source.task_reason == "each of the columns dog and person is read as a label, since they hold only 0 and 1"


def test_columns_with_exactly_one_1_per_row_are_one_label_per_image_and_a_note_says_so(folder: Path) -> None:
    path = table(folder, "path,cat,dog", of_images("1,0", "0,1", "1,0"))
    source = open_table(path)
    np.testing.assert_array_equal(source.labels, [0, 1, 0])
    assert source.notes == (
        f"data.source={path}: each of the columns cat and dog is read as a label, since they hold only 0 and 1",
    )
    assert open_table(path, task="multilabel").is_multilabel


@pytest.mark.parametrize(("num_lists", "is_multilabel"), [(1, False), (2, True)])
def test_less_than_5_percent_of_the_rows_are_classes_and_a_note_says_so(
    folder: Path, num_lists: int, is_multilabel: bool
) -> None:
    path = table(folder, "path,label", of_images(*["cat;dog"] * num_lists, *["cat", "dog"] * 19)[:40])
    source = open_table(path)
    assert source.is_multilabel is is_multilabel
    if not is_multilabel:
        assert source.classes == ("cat", "cat;dog", "dog")
        assert source.notes == (
            f"data.source={path}: 1 of 39 rows holds several labels, such as 'cat;dog': read as one class each; "
            "--task multilabel reads several labels per image",
        )
    assert open_table(path, task="multilabel").classes == ("cat", "dog")
    assert open_table(path, task="single").classes == ("cat", "cat;dog", "dog")
    assert not open_table(path, task="single").notes


def test_names_with_a_separator_that_never_combine_stay_classes(folder: Path) -> None:
    source = open_table(table(folder, "path,label", of_images("Arts;Crafts", "Music", "Arts;Crafts")))
    assert source.classes == ("Arts;Crafts", "Music")
    assert len(source.notes) == 1


def test_image_without_a_label_is_allowed_only_with_several_labels(folder: Path) -> None:
    path = table(folder, "path,label", of_images("cat;dog", "", "dog"))
    assert truth(open_table(path)) == [("cat", "dog"), (), ("dog",)]
    assert open_table(path).notes[-1].endswith("1 image without a label: read as showing none of the classes")
    assert refusal(path, task="single") == "line 3: the label is empty; fill it in or delete the row"


def test_empty_cell_in_a_column_of_zeros_and_ones_is_noted(folder: Path) -> None:
    path = table(folder, "path,id,cat,dog,owl,note", of_images("1,1,0,0,", "2,0,1,,x", "3,1,0,1,"))
    source = open_table(path)
    assert source.classes == ("cat", "dog")
    note = f"data.source={path}: line 3: column owl is empty, so it is not read as a label; write 0 or 1"
    assert note in source.notes
    assert sum("is empty" in found for found in source.notes) == 1


@pytest.mark.parametrize(
    ("headings", "rows", "task", "message"),
    [
        ("path,cat,dog", of_images("1,1", "0,1"), "single",
         "data.task=single, but not exactly one label in 1 of 2 rows (the first has 2); leave data.task out for "
         "several labels per image"),
        ("path,cat,cat", of_images("1,0", "1,1"), "auto",
         "several columns have the same heading; give each label a column of its own"),
        ("path,cat,age", of_images("1,7", "0,9"), "auto",
         "no column for the label among path, cat and age; write label above it in the first line"),
        ('path,"cat|kitten",dog', of_images("1,0", "1,1"), "auto",
         "label 'cat|kitten': contains ; or |, or begins or ends in a blank; rename it"),
        ("path,label,weight", ["a/0.png,cat,1", "a/0.png,dog,2"], "multilabel",
         "path=a/0.png: its rows have different values of weight; give all rows of an image the same"),
        ("path,cat,dog", of_images("0,0", "0,0"), "auto", "none of 2 images has a label; label some of them"),
        ("path,label", of_images("", ""), "multilabel", "none of 2 images has a label; label some of them"),
        ("path,label,split", ["a/0.png,cat;dog,train", "a/1.png,dog;ow,val", "a/2.png,owl,train"], "multilabel",
         "class 'ow' has images in val but none in train; did you mean owl?"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(folder: Path, headings: str, rows: list[str], task: Any, message: str) -> None:
    assert refusal(table(folder, headings, rows), task=task) == message


def test_matrix_that_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_sets, "MAX_CELLS", 5)
    path = table(folder, "path,label", of_images("cat;dog", "dog;owl"))
    assert refusal(path).startswith("2 images times 3 labels are too many for several labels per image; leave out")


def test_folder_is_not_read_as_multilabel(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1, "dog": 1})
    assert error_of(lambda: open_source(root, task="multilabel")) == (
        f"data.task=multilabel: {root} has one label per image; list the images in a table of paths and labels, with "
        "rows such as `photo.jpg,cat;dog`"
    )


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters=";|", exclude_categories=("Cc", "Zs", "Cs")), min_size=1
)


@given(st.lists(st.lists(NAMES, unique=True), min_size=1))
def test_sets_of_labels_survive_a_cell(sets: list[list[str]]) -> None:
    cells = [join_labels(labels) for labels in sets]
    distinct = list(dict.fromkeys(cells))
    of_row = np.array([distinct.index(cell) for cell in cells])
    reading = read_cells("table", distinct, of_row, np.arange(len(cells)), "multilabel")
    read = [{reading.classes[n] for n in np.flatnonzero(row)} for row in reading.labels]
    if any(not name.replace(".", "").lstrip("-").isdecimal() for labels in sets for name in labels):
        assert read == [set(labels) for labels in sets]


def test_every_label_is_in_every_split_that_it_has_images_for(folder: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.array(["cat", "dog", "owl"])
    rows = of_images(*(";".join(names[rng.random(3) < 0.6]) for _ in range(40)))
    surveyed = survey(open_table(table(folder, "path,label", rows)), test_ratio=0.2, val_ratio=0.2)
    for members in surveyed.indices.values():
        assert surveyed.source.labels[members].any(axis=0).all()
    counts = surveyed.source.labels[surveyed.indices["train"]].sum(axis=0)
    assert surveyed.facts.class_counts == tuple(counts)


def test_fingerprint_depends_on_the_labels_of_each_image(folder: Path) -> None:
    marks = set()
    for first in ("cat;dog", "cat;owl", "cat"):
        path = folder / "labels.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [("path", "label"), ("a/0.png", first), ("a/1.png", "cat;dog"), ("a/2.png", "owl")]
            )
        marks.add(survey(open_table(path), test_ratio=0.0, val_ratio=0.0).facts.fingerprint)
    assert len(marks) == 3


def test_request_for_several_labels_without_any_is_answered_by_a_note(folder: Path) -> None:
    path = table(folder, "path,label", of_images("cat dog", "dog"))
    assert open_table(path, task="multilabel").notes == (
        f"data.source={path}: no image has several labels; separate them by ; or |, or write one row per label",
    )


def test_names_that_differ_only_in_case_or_mean_a_missing_label_get_a_note(folder: Path) -> None:
    path = table(folder, "path,label", of_images(*["cat", "Cat", "NaN", "a", "A"] * 8))
    notes = survey(open_table(path)).facts.notes
    assert notes[:2] == (
        "classes 'Cat' and 'cat' differ only in case; if they are one, merge them",
        "class 'NaN' may be a missing label; if it is, remove its images or label them",
    )
