"""What each labeling tool writes becomes the same images and labels."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.sources.annotations.conftest import opened, shown, write_json
from tests.unit.data.sources.builders import PIXELS, check_pixels, error_of

from vitreous.data.sources import open_source

Put = Callable[[Iterable[str]], Path]

COCO: dict[str, Any] = {
    "info": {},
    "images": [{"id": 7, "file_name": "a.png"}, {"id": "8", "file_name": "b.png"}, {"id": 9, "file_name": "c.png"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "segmentation": [[0, 0]]},
        {"id": 2, "image_id": 7, "category_id": 3},
        {"id": 3, "image_id": "8", "category_id": 1},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": " dog"}, {"id": 4, "name": "owl"}],
}


def with_annotation(image: object, category: int) -> dict[str, Any]:
    return COCO | {"annotations": [*COCO["annotations"], {"id": 9, "image_id": image, "category_id": category}]}


def choice(*names: str, field: str = "choice", kind: str = "choices", **more: object) -> dict[str, Any]:
    result = {"from_name": field, "to_name": "image", "type": kind, "value": {kind: list(names)}}
    return {"result": [result], **more}


def test_one_category_per_coco_image_is_its_class_and_the_others_are_counted(put: Put) -> None:
    source = opened(write_json(put(["a.png", "b.png", "c.png", "d.png", "._d.png"]) / "x.json", COCO))
    assert shown(source) == [("a.png", "dog", ""), ("b.png", "cat", "")]
    assert source.title == "x (COCO annotations)"
    where = f"data.source={source.paths[0].parent / 'x.json'}: "
    assert source.notes == (
        where + "lists no label for 1 image that is in the same folder (d.png): left out",
        where + "1 image without a label: left out; --task multilabel reads such images as showing none of the classes",
        where + "1 class without images: owl",
    )
    check_pixels(source, [PIXELS[0], PIXELS[1]])


def test_several_categories_of_a_coco_image_are_several_labels(put: Put) -> None:
    path = write_json(put(["a.png", "b.png", "c.png"]) / "x.json", with_annotation(7, 1))
    source = opened(path)
    assert shown(source) == [("a.png", ("cat", "dog"), ""), ("b.png", ("cat",), ""), ("c.png", (), "")]
    assert source.task_reason == "1 of 3 images has several labels, such as cat and dog"
    assert f"data.source={path}: 1 image without a label: read as showing none of the classes" in source.notes
    assert error_of(lambda: open_source(path, task="single")).startswith(
        f"data.source={path}: data.task=single, but 1 of 3 images has several labels"
    )


def test_task_multilabel_keeps_images_without_annotations(put: Put) -> None:
    path = write_json(put(["a.png", "b.png", "c.png"]) / "x.json", COCO)
    assert [labels for _, labels, _ in shown(opened(path, task="multilabel"))] == [("dog",), ("cat",), ()]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (with_annotation(7, 5), "annotations[3]: category_id=5: not one of the 3 categories"),
        (with_annotation([], 1), "annotations[3]: image_id=[]: must be a number or text"),
        (COCO | {"images": [{"id": 7}]}, "images[0]: file_name=None: must be text"),
        (COCO | {"images": COCO["images"] * 2}, "images[3]: id=7: is not the first one"),
        (COCO | {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]}, "categories: name=cat: two"),
        (COCO | {"annotations": []}, "no image has a label (3 images)"),
        (COCO | {"categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": " "}]}, "image=a.png: a label is empty"),
        ([3, 4], "is not in the format of COCO, Label Studio or FiftyOne; export"),
        ({"images": []}, "is not in the format of COCO, Label Studio or FiftyOne; export"),
    ],
)
def test_message_names_what_is_wrong_in_coco(put: Put, changed: object, message: str) -> None:
    path = write_json(put(["a.png", "b.png", "c.png"]) / "x.json", changed)
    assert error_of(lambda: open_source(path)).startswith(f"data.source={path}: {message}")


def test_annotations_of_unknown_images_are_counted(put: Put) -> None:
    path = write_json(put(["a.png", "b.png", "c.png"]) / "x.json", with_annotation(77, 1))
    assert f"data.source={path}: left out 1 annotation of images that are not in the list" in opened(path).notes


def test_official_layout_of_coco_has_its_splits(put: Put) -> None:
    folder = put(["train2017/a.png", "train2017/b.png", "train2017/c.png", "val2017/a.png", "val2017/b.png"])
    for split, last in (("train2017", 3), ("val2017", 2)):
        write_json(folder / f"annotations/instances_{split}.json", COCO | {"images": COCO["images"][:last]})
        write_json(folder / f"annotations/captions_{split}.json", COCO)
    assert shown(opened(folder)) == [
        ("train2017/a.png", "dog", "train"), ("train2017/b.png", "cat", "train"),
        ("val2017/a.png", "dog", "val"), ("val2017/b.png", "cat", "val"),
    ]  # fmt: skip
    single = opened(folder / "annotations/instances_val2017.json")
    assert shown(single) == [("val2017/a.png", "dog", ""), ("val2017/b.png", "cat", "")]


def test_coco_file_in_each_folder_of_a_split_belongs_to_it(put: Put) -> None:
    folder = put(["train/a.png", "train/b.png", "valid/a.png", "valid/b.png"])
    for split in ("train", "valid"):
        write_json(folder / split / "_annotations.coco.json", COCO | {"images": COCO["images"][:2]})
    assert {split for _, _, split in shown(opened(folder))} == {"train", "val"}


def test_two_exports_of_one_folder_are_an_error_that_names_both(put: Put) -> None:
    folder = put(["a.png", "b.png"])
    for name in ("one.json", "two.json"):
        write_json(folder / name, COCO)
    assert error_of(lambda: open_source(folder)).startswith(
        f"data.source={folder}: one.json and two.json both have labels; give the path of one of them"
    )


def test_class_folders_with_other_json_files_stay_class_folders(put: Put) -> None:
    folder = put(["cat/a.png", "dog/b.png"])
    write_json(folder / "metadata.json", {"labels": ["cat", "dog"], "images": 2})
    write_json(folder / "predictions.json", [{"data": {"image": "cat/a.png"}, "predictions": []}])
    (folder / "notes.xml").write_text("<annotation><object/></annotation>")
    assert (opened(folder).format, shown(opened(folder))) == ("", [("cat/a.png", "cat", ""), ("dog/b.png", "dog", "")])


def test_label_studio_choices_are_labels(put: Put) -> None:
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/3/a.png"}, "annotations": [choice("cat")]},
        {
            "id": 2,
            "data": {"image": "/data/local-files/?d=in%20it/b.png"},
            "annotations": [choice("dog"), choice("dog")],
        },
        {"id": 3, "data": {"image": "c.png"}, "annotations": [choice("dog", was_cancelled=True)]},
        {"id": 4, "data": {"image": "d.png"}, "annotations": [choice("dog"), choice("cat")]},
        {"id": 5, "data": {"image": "e.png"}, "annotations": [choice("dog"), choice("cat", ground_truth=True)]},
        {"id": 6, "data": {"image": "f.png"}, "annotations": [choice("cat", kind="rectanglelabels"), choice("dog")]},
    ]
    path = write_json(put(["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"]) / "x.json", tasks)
    source = opened(path)
    assert [pair[:2] for pair in shown(source)] == [("a.png", "cat"), ("b.png", "dog"), ("e.png", "cat")]
    assert f"data.source={path}: 2 tasks whose annotations differ: read as not labeled" in source.notes
    assert f"data.source={path}: left out 3 unlabeled images" in source.notes


def test_label_studio_images_may_have_several_choices_or_none(put: Put) -> None:
    tasks = [
        {"data": {"photo": "a.png", "text": "x"}, "annotations": [choice("dog", "cat")]},
        {"data": {"photo": "b.png", "text": "y"}, "annotations": [{"result": []}]},
        {"data": {"photo": "c.png", "text": "z"}, "completions": [choice("dog")]},
    ]
    source = opened(write_json(put(["a.png", "b.png", "c.png"]) / "x.json", tasks))
    assert [pair[1] for pair in shown(source)] == [("cat", "dog"), (), ("dog",)]


def test_label_studio_regions_are_labels_if_there_are_no_choices(put: Put) -> None:
    tasks = [{"data": {"image": f"{name}.png"}, "annotations": [choice(label, field="box", kind="rectanglelabels")]}
             for name, label in (("a", "cat"), ("b", "dog"))]  # fmt: skip
    assert [pair[1] for pair in shown(opened(write_json(put(["a.png", "b.png"]) / "x.json", tasks)))] == ["cat", "dog"]


def test_two_questions_of_label_studio_are_an_error_that_names_both(put: Put) -> None:
    tasks = [
        {"data": {"image": "a.png"}, "annotations": [choice("cat", field="animal"), choice("bad", field="quality")]}
    ]
    path = write_json(put(["a.png"]) / "x.json", tasks)
    assert error_of(lambda: open_source(path)) == (
        f"data.source={path}: choices of several questions (animal, quality); keep one of them in the file"
    )


def test_records_of_json_min_are_tasks(put: Put) -> None:
    records = [
        {"id": 1, "image": "a.png", "choice": "cat", "annotator": 1, "text": "x", "created_at": "now"},
        {"id": 2, "image": "b.png", "choice": "dog", "annotator": 1, "text": "x", "created_at": "now"},
        {"id": 2, "image": "b.png", "choice": "cat", "annotator": 2, "text": "x", "created_at": "now"},
        {"id": 3, "image": "c.png", "choice": "dog", "annotator": 2, "text": "x", "created_at": "now"},
    ]
    path = write_json(put(["a.png", "b.png", "c.png"]) / "x.json", records)
    assert [pair[:2] for pair in shown(opened(path))] == [("a.png", "cat"), ("c.png", "dog")]
    several = [record | {"choice": {"choices": ["cat", "dog"]}} for record in records[:1]] + records[3:]
    assert [pair[1] for pair in shown(opened(write_json(path, several)))] == [("cat", "dog"), ("dog",)]
    unclear = [{"id": 1, "image": "a.png", "animal": "cat", "text": "x", "annotator": 1}]
    assert error_of(lambda: open_source(write_json(path, unclear))) == (
        f"data.source={path}: cannot decide which field holds the choice (animal, text); export the project as JSON"
    )


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels><label>
<name>cat</name></label></labels></task></meta>
<image id="0" name="a.png" subset="Train" width="7" height="9"><tag label="cat" source="manual"></tag>
<box label="owl" xtl="0" ytl="0" xbr="1" ybr="1"></box></image>
<image id="1" name="in/b.png" subset="Train"><tag label="dog"><attribute name="label">x</attribute></tag></image>
<image id="2" name="c.png" subset="test"><tag label="dog"/></image><image id="3" name="d.png" subset="test"/>
</annotations>"""


def test_cvat_tags_are_labels_and_its_subsets_are_splits(put: Put) -> None:
    folder = put(["images/Train/a.png", "images/Train/in/b.png", "images/test/c.png", "images/test/d.png"])
    (folder / "annotations.xml").write_text(CVAT)
    source = opened(folder)
    assert shown(source) == [
        ("images/Train/a.png", "cat", "train"), ("images/Train/in/b.png", "dog", "train"),
        ("images/test/c.png", "dog", "test"),
    ]  # fmt: skip
    assert source.format == "CVAT for images"


def test_cvat_shapes_are_labels_if_there_are_no_tags(put: Put) -> None:
    boxes = CVAT.replace("<tag", "<polygon").replace("</tag", "</polygon")
    (put(["a.png", "in/b.png", "c.png", "d.png"]) / "x.xml").write_text(boxes)
    source = opened(put([]) / "x.xml", task="multilabel")
    assert [pair[1] for pair in shown(source)] == [("cat", "owl"), ("dog",), (), ("dog",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE annotations [<!ENTITY a "b">]><annotations/>', "has a document type"),
        ('<!DOCTYPE annotations SYSTEM "http://127.0.0.1/x"><annotations/>', "has a document type"),
        ("<annotations><image name='a.png'>", "not valid XML"),
        ("<annotations><track id='0' label='cat'/></annotations>", "1 track of a video; export it as"),
        ("<html/>", "is not in the format of CVAT for images"),
        ("<!DOCTYPE svg><svg/>", "is not in the format of CVAT for images"),
        ("", "is not in the format of CVAT for images"),
        ("<annotations><image id='0'><tag label='cat'/></image></annotations>", "image=: is not a path inside"),
    ],
)
def test_message_names_what_is_wrong_in_xml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.xml"
    path.write_text(text)
    assert error_of(lambda: open_source(path)).startswith(f"data.source={path}: {message}")


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (["dog", "cat"], {"a": 1, "in/b": 0, "c": None}),
        (["dog", "cat"], {"a": {"label": 1, "confidence": 0.3, "attributes": {}}, "in/b": {"label": "dog"}}),
        (None, {"a": "cat", "in/b": "dog"}),
    ],
)
def test_fiftyone_names_images_without_suffix(put: Put, classes: object, labels: dict[str, object]) -> None:
    folder = put(["data/a.png", "data/in/b.png", "data/c.png"])
    write_json(folder / "labels.json", {"classes": classes, "labels": labels})
    for path in (folder, folder / "labels.json"):
        assert shown(opened(path)) == [("data/a.png", "cat", ""), ("data/in/b.png", "dog", "")]


def test_fiftyone_lists_are_several_labels(put: Put) -> None:
    folder = put(["data/a.png", "data/b.png"])
    write_json(folder / "labels.json", {"classes": ["dog", "cat"], "labels": {"a": [1, 0], "b": [0]}})
    assert [pair[1] for pair in shown(opened(folder))] == [("cat", "dog"), ("dog",)]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (2, "labels[a]: label=2: no such class; use 0 to 1, or its name"),
        (True, "labels[a]: label=True: must be text"),
        ([{}], "labels[a]: label=None: must be text"),
    ],
)
def test_message_names_what_is_wrong_in_fiftyone(put: Put, target: object, message: str) -> None:
    path = write_json(put(["data/a.png"]) / "labels.json", {"classes": ["dog", "cat"], "labels": {"a": target}})
    assert error_of(lambda: open_source(path)).startswith(f"data.source={path}: {message}")


def test_fiftyone_image_with_two_suffixes_is_an_error(put: Put) -> None:
    folder = put(["data/a.png", "data/a.jpg"])
    write_json(folder / "labels.json", {"classes": ["dog", "cat"], "labels": {"a": 1}})
    message = error_of(lambda: open_source(folder))
    assert "have the same name in it; rename one" in message
    assert {"data/a.png", "data/a.jpg"} <= set(message.split())


def yolo(folder: Path, texts: dict[str, str], names: str, file: str = "data.yaml") -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / file).write_text(names)
    return folder


@pytest.mark.parametrize("layout", ["{kind}/{split}/{name}", "{split}/{kind}/{name}"])
@pytest.mark.parametrize("names", ["path: /elsewhere\nnames: [dog, cat]\n", "names:\n  0: dog\n  1: cat\n"])
def test_yolo_boxes_are_labels_in_both_layouts(put: Put, layout: str, names: str) -> None:
    def place(split: str, kind: str, name: str) -> str:
        return layout.format(split=split, kind=kind, name=name)

    images = [place("train", "images", "a.png"), place("train", "images", "b.png"), place("valid", "images", "a.png")]
    texts = {"a.txt": "1 .5 .5 1 1\n0 .5 .5 1 1\n\n", "b.txt": ""}
    folder = yolo(put(images), {place("train", "labels", name): text for name, text in texts.items()}, names)
    yolo(folder, {place("valid", "labels", "a.txt"): "0 .5 .5 1 1"}, names)
    expected = [("cat", "dog"), (), ("dog",)]
    source = opened(folder)
    assert shown(source) == sorted(zip(images, expected, ["train", "train", "val"], strict=True))
    assert source.title == f"{folder.name} (YOLO labels)"
    assert shown(opened(folder / "data.yaml")) == shown(source)


def test_yolo_images_without_a_folder_of_labels_are_unlabeled(put: Put) -> None:
    texts = {"labels/train/a.txt": "0 .5 .5 1 1", "labels/train/b.txt": "1 .5 .5 1 1"}
    folder = yolo(
        put(["images/train/a.png", "images/train/b.png", "images/test/c.png"]), texts, "dog\ncat\n", "classes.txt"
    )
    source = opened(folder)
    assert shown(source) == [("images/train/a.png", "dog", "train"), ("images/train/b.png", "cat", "train")]
    assert f"data.source={folder}: left out 1 unlabeled image" in source.notes


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("0 .5", "names: 3", "data.yaml: has no list of class names"),
        ("0 .5", "names: [", "data.yaml: cannot be read"),
        (
            "0 .5\n2 .5",
            "names: [dog, cat]",
            "labels/a.txt: line 2: 2: must begin with the number of one of the 2 classes",
        ),
        ("-1 .5", "names: [dog, cat]", "labels/a.txt: line 1: -1: must begin with the number of one of the 2 classes"),
    ],
)
def test_message_names_what_is_wrong_in_yolo(put: Put, text: str, names: str, message: str) -> None:
    folder = yolo(put(["images/a.png"]), {"labels/a.txt": text}, names)
    assert error_of(lambda: open_source(folder)).startswith(f"data.source={folder}/{message}")


@pytest.mark.parametrize("split", ["test", "val"])
def test_yolo_folders_for_classification_are_class_folders(put: Put, split: str) -> None:
    folder = put(["train/cat/a.png", "train/dog/b.png", f"{split}/cat/a.png"])
    assert {pair[1:] for pair in shown(opened(folder))} == {("cat", split), ("cat", "train"), ("dog", "train")}


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"images": ' + "9" * 5_000, "\xff"])
def test_damaged_json_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    assert error_of(lambda: open_source(path)).startswith(f"data.source={path}: not valid JSON (")


def test_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitreous.data.sources.annotations import export

    path = write_json(tmp_path / "x.json", json.dumps(COCO))
    monkeypatch.setattr(export.read_bytes, "__defaults__", (1 << 20,))
    path.write_bytes(b" " * ((1 << 20) + 1))
    assert error_of(lambda: open_source(path)) == (
        f"data.source={path}: has over 1 MiB; export the images in several parts"
    )


def test_images_may_have_the_names_of_fields(put: Put) -> None:
    folder = put(["data/bbox.png", "data/image_id.png", "data/labels.png"])
    write_json(folder / "labels.json", {"classes": ["dog", "cat"], "labels": {"image_id": 1, "labels": 0}})
    assert shown(opened(folder)) == [("data/image_id.png", "cat", ""), ("data/labels.png", "dog", "")]


def test_ids_that_became_floats_are_the_same_ids(put: Put) -> None:
    content = COCO | {"annotations": [{"image_id": 7.0, "category_id": 3.0}, {"image_id": "8", "category_id": 1.0}]}
    path = write_json(put(["a.png", "b.png", "c.png"]) / "x.json", content)
    assert [pair[1] for pair in shown(opened(path))] == ["dog", "cat"]
