"""Exports are read as the libraries of their makers read or write them. Skipped without these libraries."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.sources.annotations.conftest import opened, shown, write_json

Put = Callable[[Iterable[str]], Path]

CONFIG = """<View><Image name="image" value="$image"/><Choices name="choice" toName="image" choice="multiple">
<Choice value="cat"/><Choice value="dog"/><Choice value="owl"/></Choices></View>"""


def test_coco_labels_are_those_of_pycocotools(put: Put) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    draw, names = np.random.default_rng(0), [f"{number}.png" for number in range(12)]
    content = {
        "info": {},
        "images": [{"id": 5 * number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": int(image), "category_id": int(category), "bbox": [0, 0, 1, 1], "area": 1,
             "iscrowd": int(category == 2)}
            for number, (image, category) in enumerate(draw.integers(0, [12, 4], (30, 2)) * [5, 1])
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(("owl", "cat", "dog", "ant"))],
    }  # fmt: skip
    path = write_json(put(names) / "x.json", content)
    theirs = coco.COCO(str(path))
    expected = []
    for image in theirs.dataset["images"]:
        found = theirs.loadAnns(theirs.getAnnIds(imgIds=image["id"]))
        labels = {theirs.loadCats(one["category_id"])[0]["name"] for one in found}
        expected.append((image["file_name"], tuple(sorted(labels)), ""))
    assert shown(opened(path)) == sorted(expected)


def test_json_min_of_label_studio_has_the_labels_of_its_json(put: Put) -> None:
    converter = pytest.importorskip("label_studio_sdk.converter", reason="needs label-studio-sdk")
    folder, picked = put(["a.png", "b.png", "c.png"]), {"a": ["cat"], "b": ["dog", "owl"], "c": ["dog"]}
    tasks = [
        {"id": number, "data": {"image": f"{name}.png", "note": name},
         "annotations": [{"id": number, "completed_by": {"id": 1}, "was_cancelled": False, "created_at": "2026-01-01",
                          "updated_at": "2026-01-01", "lead_time": 1.0,
                          "result": [{"id": "x", "from_name": "choice", "to_name": "image", "type": "choices",
                                      "value": {"choices": picked[name]}}]}]}
        for number, name in enumerate(picked)
    ]  # fmt: skip
    path = write_json(folder / "x.json", tasks)
    maker = converter.Converter(config=CONFIG, project_dir=str(folder))
    maker.convert_to_json_min(str(path), str(folder / "out"), is_dir=False)
    written = json.loads((folder / "out" / "result.json").read_text())
    assert [record["choice"] for record in written] == ["cat", {"choices": ["dog", "owl"]}, "dog"]
    ours = shown(opened(write_json(folder / "min.json", written)))
    assert ours == shown(opened(path)) == [(f"{name}.png", tuple(labels), "") for name, labels in picked.items()]


def test_predictions_suit_the_labeling_interface_of_label_studio(tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="needs label-studio-sdk")
    from vitreous.use.predict.annotations import write_annotations
    from vitreous.use.predict.predictor import Prediction

    found = Prediction("a.png", "cat;owl", 0.9, (0.9, 0.1, 0.8), labels=("cat", "owl"))
    write_annotations(tmp_path / "x.json", "label-studio", [found], ("cat", "dog", "owl"), is_multilabel=True)
    (task,) = json.loads((tmp_path / "x.json").read_text())
    assert interface.LabelInterface(CONFIG).validate_prediction(task["predictions"][0], return_errors=True) == []


def test_folder_of_datasets_is_opened(put: Put) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    from vitreous.data.sources import open_source

    folder = put(["a.png", "b.png"])
    rows = {"image": [str(folder / "a.png"), str(folder / "b.png")], "label": [1, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder / "saved"))
    source = open_source(folder / "saved")
    assert (source.classes, source.labels.tolist()) == (("dog", "cat"), [1, 0])
