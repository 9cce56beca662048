import io
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from vitreous.data.sources import open_object, open_source
from vitreous.data.survey.facts import survey
from vitreous.errors import DataError, DataNotFoundError, MissingDependencyError, UnknownNameError
from vitreous.use.inspect import inspect

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)


def encoded(number: int) -> dict[str, Any]:
    file = io.BytesIO()
    PillowImage.fromarray(PIXELS[number]).save(file, format="png")
    return {"bytes": file.getvalue(), "path": None}


class Image:
    """A feature, as `datasets` calls it."""

    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class ClassLabel:
    def __init__(self, *names: str) -> None:
        self.names = list(names)


class Value:
    pass


class Rows:
    """As much of `datasets.Dataset` as is used."""

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
    """A stub of the package; `answer` is what it loads or raises, `asked` what it was asked for."""
    box: dict[str, Any] = {"asked": []}

    def load(*place: Any, **options: Any) -> Any:
        box["asked"].append((*place, options))
        if isinstance(box["answer"], Exception):
            raise box["answer"]
        return box["answer"]

    stub = types.SimpleNamespace(load_dataset=load, load_from_disk=load)
    monkeypatch.setitem(sys.modules, "datasets", stub)  # type: ignore[arg-type]
    return box


def told(name: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        open_source(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hf://ann/cats", ("ann/cats", None, {"revision": None})),
        ("hf://datasets/ann/cats", ("ann/cats", None, {"revision": None})),
        ("hf://cats", ("cats", None, {"revision": None})),
        ("hf://ann/cats/small@v2", ("ann/cats", "small", {"revision": "v2"})),
    ],
)
def test_set_of_the_hub_is_opened_by_name(hub: dict[str, Any], name: str, asked: tuple[Any, ...]) -> None:
    hub["answer"] = {"test": rows(9, 12), "validation": rows(6, 9), "train": rows(0, 6)}
    source = open_source(name)
    assert hub["asked"] == [asked]
    assert (source.name, source.classes) == ("cats", ("cat", "dog", "owl"))
    assert list(source.splits) == ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    assert source.labels.tolist() == [0, 1, 2] * 4
    for index in range(12):
        np.testing.assert_array_equal(np.asarray(source.image(index)), PIXELS[index])
    assert source.describe(7) == "cats val[1]"
    assert survey(source).facts.skipped == ()


@pytest.mark.parametrize("name", ["hf://", "hf://a//b", "hf://a/b/c/d", "hf://datasets/"])
def test_name_that_names_nothing_is_told(hub: dict[str, Any], name: str) -> None:
    assert told(name) == f"data.source={name}: is no name of a data set; write hf://organisation/name"


@pytest.mark.parametrize("mark", ["dataset_dict.json", "state.json"])
def test_folder_that_was_saved_to_disk_is_opened(hub: dict[str, Any], tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).write_text("{}")
    hub["answer"] = rows(0, 6)
    source = open_source(tmp_path)
    assert hub["asked"] == [(str(tmp_path), {})]
    assert (source.name, set(source.splits), len(source)) == (tmp_path.name, {""}, 6)


def test_folder_of_parquet_files_is_opened_with_the_splits_of_their_names(hub: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        (tmp_path / "data" / f"{name}.parquet").write_bytes(b"")
    hub["answer"] = {"train": rows(0, 6), "test": rows(6, 9)}
    assert list(open_source(str(tmp_path)).splits) == ["train"] * 6 + ["test"] * 3
    ((kind, options),) = hub["asked"]
    assert kind == "parquet"
    assert {split: [Path(file).name[:8] for file in files] for split, files in options["data_files"].items()} == {
        "test": ["test-000"], "train": ["train-00", "train-00"],
    }  # fmt: skip


def test_parquet_files_without_splits_are_one_set_yet_to_be_split(hub: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").write_bytes(b"")
    hub["answer"] = {"train": rows(0, 6)}
    assert set(open_source(tmp_path).splits) == {""}
    (tmp_path / "val-0.parquet").write_bytes(b"")
    assert told(tmp_path) == (
        f"data.source={tmp_path}: part-0.parquet names no split, others do; call it train-….parquet"
    )


def test_class_folders_beside_a_parquet_file_stay_a_folder(hub: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_bytes(b"")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        PillowImage.fromarray(PIXELS[0]).save(tmp_path / name / "0.png")
    assert open_source(tmp_path).classes == ("cat", "dog")
    assert hub["asked"] == []


def test_columns_are_found_by_type_then_by_name(hub: dict[str, Any]) -> None:
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
def test_columns_that_do_not_tell_are_named(hub: dict[str, Any], features: dict[str, Any], what: str) -> None:
    hub["answer"] = Rows(features, {name: [0, 1] for name in features})
    assert told("hf://a/b") == (
        f"data.source=hf://a/b: no column among {', '.join(features)} is plainly the {what}; load it in Python, "
        f"rename_column() the right one to {what}, and give it to vitreous.train"
    )


def test_splits_without_labels_or_known_name_are_left_out_with_a_note(hub: dict[str, Any]) -> None:
    blind = rows(9, 12)
    blind.columns["kind"] = [-1, -1, -1]
    hub["answer"] = {"train": rows(0, 6), "unsupervised": rows(6, 9), "test": blind, "dev": rows(6, 9)}
    source = open_source("hf://a/b")
    assert list(source.splits) == ["train"] * 6 + ["val"] * 3
    assert source.notes == (
        "hf://a/b: split unsupervised of 3 rows is left out", "hf://a/b: test has no labels; left out",
    )  # fmt: skip


def test_set_that_cannot_be_classified_is_refused(hub: dict[str, Any]) -> None:
    hub["answer"] = {"validation": rows(0, 3), "extra": rows(0, 3)}
    assert told("hf://a/b") == "data.source=hf://a/b: splits validation, extra hold no train; give one that does"
    blind = rows(0, 3)
    blind.columns["kind"] = [None] * 3
    hub["answer"] = blind
    assert told("hf://a/b") == "data.source=hf://a/b: no split has labels in kind; give a labelled data set"
    hub["answer"] = Rows({"image": Image(), "label": Value()}, {"image": [1, 2], "label": [0.5, 1.5]})
    assert told("hf://a/b") == "data.source=hf://a/b: label=0.5: must be a class; leave such rows out"
    hub["answer"] = Rows({"image": Image(), "label": Value()}, {"image": [1, 2], "label": ["x", "x"]})
    assert told("hf://a/b") == "data.source=hf://a/b: only one class, 'x'; a classifier needs two"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FileNotFoundError("Dataset a/b doesn't exist\nlong story"), DataNotFoundError,
         "no such data set (Dataset a/b doesn't exist); check the name"),
        (ConnectionError("no network"), DataNotFoundError, "was not reached (no network); try later"),
        (ValueError("Config is missing"), DataError, "cannot be loaded (Config is missing); check the data set"),
        (RuntimeError(), DataError, "cannot be loaded (RuntimeError); check the data set"),
    ],
)  # fmt: skip
def test_what_the_package_raises_becomes_one_line(
    hub: dict[str, Any], error: Exception, kind: type[DataError], message: str
) -> None:
    hub["answer"] = error
    assert told("hf://a/b") == f"data.source=hf://a/b: {message}"
    with pytest.raises(kind):
        open_source("hf://a/b")


def test_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_source("hf://a/b")
    assert str(caught.value) == (
        "data.source=hf://a/b: needs datasets, which is not installed; `pip install 'vitreous[datasets]'`"
    )


def test_objects_of_the_package_are_accepted_from_python() -> None:
    source = open_object(rows(0, 6))  # type: ignore[arg-type]
    assert (source.name, source.classes, set(source.splits)) == ("Rows", ("cat", "dog", "owl"), {""})
    source = open_object({"train": rows(0, 6), "test": rows(6, 9)})
    assert list(source.splits) == ["train"] * 6 + ["test"] * 3


def test_inspect_tells_data_of_the_hub_from_weights(hub: dict[str, Any]) -> None:
    hub["answer"] = rows(0, 12)
    found = inspect("hf://datasets/ann/cats")
    assert (found.kind, found.title) == ("data", "cats")
    with pytest.raises(UnknownNameError):
        inspect("no/such/thing.csv")


def test_package_itself_saves_what_is_read_back(tmp_path: Path) -> None:
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
        for index in range(12):
            np.testing.assert_array_equal(np.asarray(source.image(index)), PIXELS[index])
