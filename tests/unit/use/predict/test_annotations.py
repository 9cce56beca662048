"""Predictions in the formats of labeling tools can be read back, by us and by what the tools document."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data.sources import open_source
from vitreous.errors import ConfigError, SaveError
from vitreous.use.predict.annotations import check_annotations, write_annotations
from vitreous.use.predict.predictor import Prediction

CLASSES = ("dog", "cat ü")


@pytest.fixture
def predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Prediction]:
    """Predictions for data/in/a.png, data/b.png and data/broken.png in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("data/in").mkdir(parents=True)
    for number, name in enumerate(("data/in/a.png", "data/b.png", "data/broken.png")):
        Image.fromarray(np.full((4, 5, 3), number, dtype=np.uint8)).save(name)
    return [
        Prediction("data/in/a.png", "cat ü", 0.75, (0.25, 0.75), labels=("cat ü",), unfamiliar=0.5),
        Prediction(str(tmp_path / "data/b.png"), "dog", 0.875, (0.875, 0.125), labels=("dog",), rejected=True),
        Prediction("data/broken.png", "", 0.0, (), "data/broken.png: empty file"),
    ]


def test_fiftyone_file_is_the_documented_one(tmp_path: Path, predictions: list[Prediction]) -> None:
    path = tmp_path / "labels.json"
    how = write_annotations(path, "fiftyone", predictions, CLASSES, is_multilabel=False)
    assert how == f"its data_path is {tmp_path / 'data'}"
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "classes": ["dog", "cat ü"],
        "labels": {
            "in/a": {"label": 1, "confidence": 0.75, "attributes": {"unfamiliar": 0.5}},
            "b": {"label": 0, "confidence": 0.875, "attributes": {"rejected": True}},
            "broken": None,
        },
    }


def test_fiftyone_file_keeps_addresses(tmp_path: Path) -> None:
    found = [Prediction("s3://bucket/c d.png", "dog", 0.5, (0.5, 0.5), labels=("dog",))]
    write_annotations(tmp_path / "x.json", "fiftyone", found, CLASSES, is_multilabel=False)
    assert list(json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["labels"]) == ["s3://bucket/c d"]


def test_fiftyone_file_can_be_read_back(tmp_path: Path, predictions: list[Prediction]) -> None:
    path = tmp_path / "labels.json"
    write_annotations(path, "fiftyone", predictions, CLASSES, is_multilabel=False)
    source = open_source(path)
    found = {source.key(number): source.classes[label] for number, label in enumerate(source.labels)}
    assert found == {"data/in/a.png": "cat ü", "data/b.png": "dog"}
    assert any("2 images with confidences, as predictions have" in note for note in source.notes)


def test_several_labels_are_a_list_also_if_there_is_one_or_none(tmp_path: Path) -> None:
    found = [
        Prediction("a.png", "", 0.4, (0.4, 0.3)),
        Prediction("b.png", "dog", 0.8, (0.8, 0.3), labels=("dog",)),
        Prediction("c.png", "dog;cat ü", 0.9, (0.8, 0.9), labels=("cat ü", "dog")),
    ]
    write_annotations(tmp_path / "x.json", "fiftyone", found, CLASSES, is_multilabel=True)
    labels = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["labels"]
    assert [[one["label"] for one in labels[name]] for name in "abc"] == [[], [0], [1, 0]]
    write_annotations(tmp_path / "x.json", "label-studio", found, CLASSES, is_multilabel=True)
    results = [task["predictions"][0]["result"] for task in json.loads((tmp_path / "x.json").read_text("utf-8"))]
    assert [[one["value"]["choices"] for one in result] for result in results] == [[], [["dog"]], [["cat ü", "dog"]]]


def test_label_studio_file_has_tasks_with_predictions(tmp_path: Path, predictions: list[Prediction]) -> None:
    path = tmp_path / "x.json"
    remote = Prediction("s3://bucket/c d.png", "dog", 0.5, (0.5, 0.5), labels=("dog",))
    how = write_annotations(path, "label-studio", [*predictions, remote], CLASSES, is_multilabel=False)
    assert how == f"start Label Studio with LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}"
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert [task["data"] for task in tasks] == [
        {"image": "/data/local-files/?d=data/in/a.png", "unfamiliar": 0.5},
        {"image": "/data/local-files/?d=data/b.png", "rejected": True},
        {"image": "/data/local-files/?d=data/broken.png"},
        {"image": "s3://bucket/c d.png"},
    ]
    assert tasks[0]["predictions"] == [
        {"model_version": "vitreous", "score": 0.75,
         "result": [{"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": ["cat ü"]}}]}
    ]  # fmt: skip
    assert tasks[2]["predictions"] == []


def test_label_studio_predictions_become_labels_once_they_are_accepted(
    tmp_path: Path, predictions: list[Prediction]
) -> None:
    path = tmp_path / "x.json"
    write_annotations(path, "label-studio", predictions, CLASSES, is_multilabel=False)
    tasks = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps([task | {"annotations": task["predictions"]} for task in tasks]), encoding="utf-8")
    source = open_source(path)
    found = {source.key(number): source.classes[label] for number, label in enumerate(source.labels)}
    assert found == {"data/in/a.png": "cat ü", "data/b.png": "dog"}


@pytest.mark.parametrize(
    ("format_", "names", "message"),
    [
        (None, ["a.png"], "out=x.json: JSON files are for labeling tools; add --format label-studio or --format fift"),
        ("fiftyone", ["in/a.png", "in/a.jpg"], "format=fiftyone: in/a.png and in/a.jpg have the same name without suf"),
    ],
)
def test_what_cannot_be_written_is_refused_before_images_are_read(
    format_: str | None, names: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_annotations(Path("x.json"), format_, [(name, name) for name in names])
    assert str(caught.value).startswith(message)


def test_same_name_in_two_folders_is_accepted() -> None:
    check_annotations(Path("x.json"), "fiftyone", [("one/a.png", ""), ("two/a.png", ""), ("one/a.png", "")])


def test_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SaveError):
        write_annotations(tmp_path / "no" / "x.json", "fiftyone", [], CLASSES, is_multilabel=False)
