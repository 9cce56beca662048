import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from tests.unit.data.sources.builders import PIXELS, check_pixels, error_of, png

from vitreous.data.sources import open_object, open_source
from vitreous.data.survey.facts import survey
from vitreous.errors import DataError, DataNotFoundError, MissingDependencyError, UnknownNameError
from vitreous.use.inspect import inspect
from vitreous.wording import listed


def encoded(number: int) -> dict[str, Any]:
    """Return an image as `datasets` stores it."""
    return {"bytes": png(PIXELS[number]), "path": None}


class Image:
    """A feature type of `datasets`."""

    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class ClassLabel:
    def __init__(self, *names: str) -> None:
        self.names = list(names)


class Value:
    pass


class Rows:
    """A stub of `datasets.Dataset` with the methods that are used."""

    def __init__(self, features: Mapping[str, Any], columns: Mapping[str, list[Any]]) -> None:
        self.features, self.columns = dict(features), dict(columns)
        self.column_names = list(features)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        row = {name: values[key] for name, values in self.columns.items()}
        for name, feature in self.features.items():
            assert not isinstance(feature, Image) or not feature.decode, "images stay encoded"
            assert name in row
        return row

    def with_format(self, kind: None) -> "Rows":
        return self

    def select_columns(self, names: list[str]) -> "Rows":
        return Rows(*({name: found[name] for name in names} for found in (self.features, self.columns)))

    def cast_column(self, name: str, feature: Image) -> "Rows":
        return Rows({**self.features, name: feature}, self.columns)


def rows(start: int, stop: int, **more: list[Any]) -> Rows:
    images = [encoded(number) for number in range(start, stop)]
    labels = [number % 3 for number in range(start, stop)]
    features = {"pixels": Image(), "kind": ClassLabel("cat", "dog", "owl"), **dict.fromkeys(more, Value())}
    return Rows(features, {"pixels": images, "kind": labels, **more})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stub of the package; `answer` is what it loads or raises, `requests` the arguments of each call."""
    box: dict[str, Any] = {"requests": []}

    def load(*place: Any, **options: Any) -> Any:
        box["requests"].append((*place, options))
        if isinstance(box["answer"], Exception):
            raise box["answer"]
        return box["answer"]

    stub = types.SimpleNamespace(load_dataset=load, load_from_disk=load)
    monkeypatch.setitem(sys.modules, "datasets", stub)  # type: ignore[arg-type]
    return box


def refusal(name: str | Path) -> str:
    return error_of(lambda: open_source(name))


@pytest.mark.parametrize(
    ("name", "request_args"),
    [
        ("hf://ann/cats", ("ann/cats", None, {"revision": None})),
        ("hf://datasets/ann/cats", ("ann/cats", None, {"revision": None})),
        ("hf://cats", ("cats", None, {"revision": None})),
        ("hf://ann/cats/small@v2", ("ann/cats", "small", {"revision": "v2"})),
    ],
)
def test_data_set_of_the_hub_is_opened_by_name(hub: dict[str, Any], name: str, request_args: tuple[Any, ...]) -> None:
    hub["answer"] = {"test": rows(9, 12), "validation": rows(6, 9), "train": rows(0, 6)}
    source = open_source(name)
    assert hub["requests"] == [request_args]
    assert (source.name, source.classes) == ("cats", ("cat", "dog", "owl"))
    assert list(source.splits) == ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    assert source.labels.tolist() == [0, 1, 2] * 4
    check_pixels(source, PIXELS)
    assert source.describe(7) == "cats val[1]"
    assert survey(source).facts.skipped == ()


@pytest.mark.parametrize("name", ["hf://", "hf://a//b", "hf://a/b/c/d", "hf://datasets/"])
def test_invalid_name_is_refused(hub: dict[str, Any], name: str) -> None:
    assert refusal(name) == f"data.source={name}: not the name of a data set; write hf://organization/name"


@pytest.mark.parametrize("mark", ["dataset_dict.json", "state.json"])
def test_folder_from_save_to_disk_is_opened(hub: dict[str, Any], tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).write_text("{}")
    hub["answer"] = rows(0, 6)
    source = open_source(tmp_path)
    assert hub["requests"] == [(str(tmp_path), {})]
    assert (source.name, set(source.splits), len(source)) == (tmp_path.name, {""}, 6)


def test_folder_of_parquet_files_has_the_splits_in_their_names(hub: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "._test-00000-of-00001"):
        (tmp_path / "data" / f"{name}.parquet").write_bytes(b"")
    hub["answer"] = {"train": rows(0, 6), "test": rows(6, 9)}
    assert list(open_source(str(tmp_path)).splits) == ["train"] * 6 + ["test"] * 3
    ((kind, options),) = hub["requests"]
    assert kind == "parquet"
    assert {split: [Path(file).name[:8] for file in files] for split, files in options["data_files"].items()} == {
        "test": ["test-000"], "train": ["train-00", "train-00"],
    }  # fmt: skip


def test_parquet_files_without_splits_are_one_set_without_splits(hub: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").write_bytes(b"")
    hub["answer"] = {"train": rows(0, 6)}
    assert set(open_source(tmp_path).splits) == {""}
    (tmp_path / "val-0.parquet").write_bytes(b"")
    assert refusal(tmp_path) == (
        f"data.source={tmp_path}: the name of part-0.parquet does not begin with a split, but others do; "
        "rename it, e.g. to train-part-0.parquet"
    )


def test_class_folders_next_to_a_parquet_file_are_a_folder_of_images(hub: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_bytes(b"")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        PillowImage.fromarray(PIXELS[0]).save(tmp_path / name / "0.png")
    assert open_source(tmp_path).classes == ("cat", "dog")
    assert hub["requests"] == []


def test_columns_are_found_by_type_and_then_by_name(hub: dict[str, Any]) -> None:
    images = [encoded(number) for number in range(4)]
    several = {"image": Image(), "mask": Image(), "label": Value(), "id": Value()}
    columns = {"image": images, "mask": images[::-1], "label": ["x", "y", "x", "y"], "id": [1, 2, 3, 4]}
    hub["answer"] = Rows(several, columns)
    source = open_source("hf://a/b")
    assert (source.classes, source.labels.tolist()) == (("x", "y"), [0, 1, 0, 1])
    np.testing.assert_array_equal(np.asarray(source.image(1)), PIXELS[1])
    fine = {"img": Image(), "fine_label": ClassLabel("a", "b"), "coarse_label": ClassLabel("c")}
    hub["answer"] = Rows(fine, {"img": images, "fine_label": [0, 1, 1, 0], "coarse_label": [0] * 4})
    assert open_source("hf://a/b").classes == ("a", "b")


@pytest.mark.parametrize(
    ("features", "what"),
    [({"left": Image(), "right": Image(), "label": Value()}, "image"),
     ({"image": Image(), "age": Value(), "sex": ClassLabel("f", "m"), "hair": ClassLabel("n", "y")}, "label"),
     ({"text": Value(), "label": Value()}, "image")],
)  # fmt: skip
def test_ambiguous_or_missing_columns_are_refused(hub: dict[str, Any], features: dict[str, Any], what: str) -> None:
    hub["answer"] = Rows(features, {name: [0, 1] for name in features})
    assert refusal("hf://a/b") == (
        f"data.source=hf://a/b: cannot decide which of the columns {listed(list(features))} is the {what}; load it in "
        f"Python, call rename_column(COLUMN, {what!r}) and pass the result to vitreous.train"
    )


def test_splits_without_labels_or_with_unknown_names_are_left_out_with_a_note(hub: dict[str, Any]) -> None:
    blind = rows(9, 12)
    blind.columns["kind"] = [-1, -1, -1]
    hub["answer"] = {"train": rows(0, 6), "unsupervised": rows(6, 9), "test": blind, "dev": rows(6, 9)}
    source = open_source("hf://a/b")
    assert list(source.splits) == ["train"] * 6 + ["val"] * 3
    assert source.notes == (
        "hf://a/b: split unsupervised (3 rows) is left out",
        "hf://a/b: split test has no labels and is left out",
    )  # fmt: skip


def test_data_set_that_no_classifier_can_be_trained_on_is_refused(hub: dict[str, Any]) -> None:
    hub["answer"] = {"validation": rows(0, 3), "extra": rows(0, 3)}
    assert refusal("hf://a/b") == (
        "data.source=hf://a/b: no train split among validation and extra; use a data set with one"
    )
    blind = rows(0, 3)
    blind.columns["kind"] = [None] * 3
    hub["answer"] = blind
    assert refusal("hf://a/b") == (
        "data.source=hf://a/b: column kind has no labels in any split; use a labeled data set"
    )
    hub["answer"] = Rows({"image": Image(), "label": Value()}, {"image": [1, 2], "label": [3, 1.5]})
    rule = "neither a class index nor a class name; filter such rows out"
    assert refusal("hf://a/b") == f"data.source=hf://a/b: row 1: label=1.5: {rule}"
    odd = rows(6, 9)
    odd.columns["kind"][2] = None
    hub["answer"] = {"train": rows(0, 6), "test": odd}
    assert refusal("hf://a/b") == f"data.source=hf://a/b: row 2 of test: kind=None: {rule}"
    hub["answer"] = Rows({"image": Image(), "label": Value()}, {"image": [1, 2], "label": ["x", "x"]})
    assert refusal("hf://a/b") == (
        "data.source=hf://a/b: only one class, 'x'; a classifier needs two, so add images of another"
    )


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FileNotFoundError("Dataset a/b doesn't exist\nlong story"), DataNotFoundError,
         "not found (Dataset a/b doesn't exist); check the name"),
        (ConnectionError("no network"), DataNotFoundError,
         "could not be reached (no network); check the network and try again"),
        (ValueError("Config is missing"), DataError,
         "`datasets` could not load it (Config is missing); fix the data set"),
        (RuntimeError(), DataError, "`datasets` could not load it (RuntimeError); fix the data set"),
    ],
)  # fmt: skip
def test_errors_of_the_package_become_one_line(
    hub: dict[str, Any], error: Exception, kind: type[DataError], message: str
) -> None:
    hub["answer"] = error
    assert refusal("hf://a/b") == f"data.source=hf://a/b: {message}"
    with pytest.raises(kind):
        open_source("hf://a/b")


def test_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_source("hf://a/b")
    assert str(caught.value) == (
        "data.source=hf://a/b: needs datasets, which is not installed; run `pip install 'vitreous[datasets]'`"
    )


def test_class_indices_are_those_of_the_split_that_has_them() -> None:
    train, test = rows(0, 6), rows(0, 2)
    test.features["kind"] = ClassLabel("owl", "cat")
    source = open_object({"train": train, "test": test})  # type: ignore[dict-item]
    assert (source.classes, source.labels.tolist()) == (("cat", "dog", "owl"), [0, 1, 2, 0, 1, 2, 2, 0])


def test_stream_of_the_package_is_refused() -> None:
    class Stream:
        features, column_names = None, None

        def __iter__(self) -> Iterator[Any]:
            yield {}

    rule = "has no len() or cannot be indexed; use a set of (image, label) pairs that has both, not a stream"
    assert error_of(lambda: open_object(Stream())) == f"data=Stream: {rule}"  # type: ignore[arg-type]
    assert error_of(lambda: open_object({"train": Stream()})) == f"data=Stream train: {rule}"  # type: ignore[dict-item]


def test_objects_of_the_package_are_accepted_from_python() -> None:
    source = open_object(rows(0, 6))  # type: ignore[arg-type]
    assert (source.name, source.classes, set(source.splits)) == ("Rows", ("cat", "dog", "owl"), {""})
    source = open_object({"train": rows(0, 6), "test": rows(6, 9)})
    assert list(source.splits) == ["train"] * 6 + ["test"] * 3


def test_inspect_distinguishes_data_of_the_hub_from_weights(hub: dict[str, Any]) -> None:
    hub["answer"] = rows(0, 12)
    found = inspect("hf://datasets/ann/cats")
    assert (found.kind, found.title) == ("data", "cats")
    with pytest.raises(UnknownNameError):
        inspect("no/such/thing.csv")


def test_data_sets_saved_by_the_package_are_read_back(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "owl"])})

    def made(start: int, stop: int) -> Any:
        images = [PillowImage.fromarray(image) for image in PIXELS[start:stop]]
        labels = [number % 3 for number in range(start, stop)]
        return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)

    parts = datasets.DatasetDict({"train": made(0, 6), "validation": made(6, 9), "test": made(9, 12)})
    parts.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "files").mkdir()
    for split, part in parts.items():
        part.to_parquet(str(tmp_path / "files" / f"{split}-00000-of-00001.parquet"))
    for source in (open_source(tmp_path / "saved"), open_source(tmp_path / "files"), open_object(parts)):
        assert list(source.splits) == ["train"] * 6 + ["val"] * 3 + ["test"] * 3
        assert source.labels.tolist() == [0, 1, 2] * 4
        check_pixels(source, PIXELS)
