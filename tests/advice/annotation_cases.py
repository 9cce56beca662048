"""Cases of exports of labeling tools: files that are refused, then repaired; and predictions in their formats."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.advice.data_cases import images
from tests.advice.walk import Refusals, case

from vitreous.cli.look.predict import PredictOptions, _engine
from vitreous.data.sources import open_source
from vitreous.data.sources.annotations import export
from vitreous.use.predict.annotations import check_annotations
from vitreous.use.predict.listing import list_data

TAGS = '<image name="{}/0.png"><tag label="{}"/></image>'
CVAT = f"<annotations>{TAGS.format('cat', 'cat')}{TAGS.format('dog', 'dog')}</annotations>"


def coco(**changes: object) -> dict[str, Any]:
    """Return a COCO file of two images."""
    return {
        "images": [{"id": 1, "file_name": "cat/0.png"}, {"id": 2, "file_name": "dog/0.png"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    } | changes  # fmt: skip


def task(name: str, *choices: str, field: str = "choice") -> dict[str, Any]:
    """Return a task of Label Studio."""
    results = [{"from_name": field, "type": "choices", "value": {"choices": [choice]}} for choice in choices]
    return {"data": {"image": f"{name}/0.png"}, "annotations": [{"result": results}]}


@case
def exports_in_json(folder: Path) -> Refusals:
    images(folder)
    path, good = folder / "x.json", [task("cat", "cat"), task("dog", "dog")]

    def check(content: object) -> None:
        path.write_text(json.dumps(content))
        assert len(open_source(path)) == 2

    unknown = [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 3}]
    twice = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]
    first = {"id": 1, "file_name": "cat/0.png"}
    questions = {
        "data": {"image": "cat/0.png"},
        "annotations": [
            {
                "result": [
                    *task("", "cat")["annotations"][0]["result"],
                    *task("", "x", field="y")["annotations"][0]["result"],
                ]
            }
        ],
    }
    record = {"image": "cat/0.png", "animal": "cat", "text": "x", "annotator": 1}
    for content, advice, repaired in (
        (coco(annotations=unknown), "correct it, or export it again", coco()),
        (coco(categories=twice), "two categories have it; rename one", coco()),
        (coco(images=[first, first]), "give each its own id", coco()),
        (coco(images=[{"id": 1}]), "correct it, or export it again", coco()),
        (coco(images=[{"file_name": "cat/0.png"}]), "correct it", coco()),
        (coco(categories=[{"id": 1, "name": ""}, {"id": 2, "name": "dog"}]), "give it a name", coco()),
        (coco(annotations=[]), "label some, and export them again", coco()),
        ({"a": 1}, "export the labels in it", coco()),
        ([questions, good[1]], "keep one of them in the file", good),
        ([record], "export the project as JSON", good),
        ([{"data": {"a": "b"}}], "name its path image", good),
        ({"classes": ["cat", "dog"], "labels": {"cat/0": 0, "dog/0": 2}}, "use 0 to 1, or its name",
         {"classes": ["cat", "dog"], "labels": {"cat/0": 0, "dog/0": "dog"}}),
    ):  # fmt: skip
        path.write_text(json.dumps(content))
        yield lambda: open_source(path), advice
        check(repaired)
    path.write_text("{")
    yield lambda: open_source(path), "export it again"
    check(coco())
    several = coco(annotations=[*coco()["annotations"], {"image_id": 1, "category_id": 2}])
    path.write_text(json.dumps(several))
    yield lambda: open_source(path, task="single"), "leave data.task out for several labels per image"
    check(several)
    with patch.object(export.read_bytes, "__defaults__", (5,)):
        yield lambda: open_source(path), "export the images in several parts"
    with patch.object(Path, "open", side_effect=PermissionError(13, "Permission denied")):
        yield lambda: open_source(path), "check the file"
    assert len(open_source(path)) == 2
    images(folder / "f", "data/a.png", "data/a.jpg", "data/b.png")
    fiftyone = folder / "f" / "labels.json"
    fiftyone.write_text(json.dumps({"classes": None, "labels": {"a": "cat", "b": "dog"}}))
    yield lambda: open_source(fiftyone), "have the same name in it; rename one"
    (folder / "f/data/a.jpg").rename(folder / "f/data/c.jpg")
    assert len(open_source(fiftyone)) == 2


@case
def places_of_images_in_exports(folder: Path) -> Refusals:
    path, moved = folder / "x.json", images(folder / "moved")

    def refused(first: str, second: str) -> None:
        path.write_text(json.dumps(coco(images=[{"id": 1, "file_name": first}, {"id": 2, "file_name": second}])))
        open_source(path)

    yield lambda: refused("/a/cat/0.png", "/a/dog/0.png"), "and set data.root to it"
    assert len(open_source(path, moved)) == 2
    yield lambda: refused("../cat/0.png", "dog/0.png"), "correct it"
    yield lambda: refused("cat/0.png", "dog/0.png"), "or set data.root to their folder"
    assert len(open_source(path, moved)) == 2
    yield lambda: open_source(path, folder / "no"), "use the folder with the images of the export"
    yield lambda: open_source(folder.joinpath("x.zip").rename(folder / "y.zip") if (folder / "x.zip").exists() else
                              Path((folder / "x.zip").write_bytes(b"") or folder / "x.zip")), "unpack it"  # fmt: skip
    images(folder)
    (folder / "y.json").write_text(path.read_text())
    yield lambda: open_source(folder), "give the path of one of them instead of the folder"
    assert len(open_source(folder / "y.json")) == 2
    with patch.object(Path, "glob", side_effect=PermissionError(13, "Permission denied")):
        yield lambda: open_source(folder), "check the path and its permissions"


@case
def exports_in_xml(folder: Path) -> Refusals:
    images(folder)
    path = folder / "x.xml"
    for text, advice in (
        ("<annotations>", "export it again, or move it elsewhere"),
        ("<annotations><track/></annotations>", "export it as `CVAT for images 1.1`"),
        (f"<!DOCTYPE annotations>{CVAT}", "remove its line <!DOCTYPE …>"),
    ):
        path.write_text(text)
        yield lambda: open_source(path), advice
        path.write_text(CVAT)
        assert len(open_source(path)) == 2


@case
def exports_of_yolo(folder: Path) -> Refusals:
    images(folder, "images/a.png", "images/b.png")
    (folder / "labels").mkdir()
    names, labels = folder / "data.yaml", folder / "labels" / "a.txt"
    (folder / "labels" / "b.txt").write_text("1 .5 .5 1 1")
    good, box = "names: [cat, dog]", "0 .5 .5 1 1"
    for text, line, advice in (
        ("names: [", box, "correct it"),
        ("names: 3", box, "write them as `names: [cat, dog]`"),
        (good, "7 .5 .5 1 1", "correct it"),
    ):
        names.write_text(text)
        labels.write_text(line)
        yield lambda: open_source(names), advice
        names.write_text(good)
        labels.write_text(box)
        assert len(open_source(names)) == 2
    (folder / "images").rename(folder / "pictures")
    yield lambda: open_source(names), "put images/ next to labels/"
    (folder / "pictures").rename(folder / "images")
    assert len(open_source(names)) == 2


@case
def predictions_for_labeling_tools(folder: Path) -> Refusals:
    images(folder, "a.png", "a.jpg", "b.png")
    pictures, out = list_data([str(folder)]), folder / "x.json"
    yield lambda: check_annotations(out, None, pictures), "add --format label-studio or --format fiftyone"
    yield lambda: check_annotations(out, "fiftyone", pictures), "or use another format"
    check_annotations(out, "label-studio", pictures)
    yield lambda: _engine(PredictOptions(out=folder / "x.csv", format="fiftyone")), "add --out labels.json"
    assert _engine(PredictOptions(out=folder / "labels.json", format="fiftyone")) is None
    from tests.unit.data.sources.builders import tar

    (folder / "a.tar").write_bytes(tar([("a.png", (folder / "a.png").read_bytes())]))
    in_tar = list_data([str(folder / "a.tar")])
    yield lambda: check_annotations(out, "fiftyone", in_tar), "extract the images first"
    check_annotations(out, "fiftyone", list_data([str(folder / "b.png")]))
