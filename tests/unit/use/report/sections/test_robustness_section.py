"""The section on changed photos: curves with pictures and a table, or the command that measures them."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit.use.report.thumbnails import NO_THUMBNAILS, Thumbnails

from vitreous.errors import DamagedFileError
from vitreous.recipe.files import read_config
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.robustness.changes import CHANGES
from vitreous.use.evaluate.stored import stored_evaluation
from vitreous.use.report.section import ReportInput
from vitreous.use.report.sections.robustness import robustness_section
from vitreous.use.run import Run

asked: list[tuple[Sequence[int], int]] = []


def photos_of(indices: Sequence[int], side: int) -> list[Image.Image | None]:
    asked.append((indices, side))
    return [Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side // 2, 3), dtype=np.uint8))]


@pytest.fixture
def report(own_run: Run) -> ReportInput:
    folder = RunFolder(own_run.path)
    return ReportInput(
        folder=folder,
        config=read_config(folder.config),
        metadata=own_run.metadata,
        records=read_records(folder.records),
        evaluation=stored_evaluation(folder, own_run.metadata, "test"),
        outputs=outputs_of_run(folder),
        pictures=Thumbnails(photos_of),
    )


def measured(report: ReportInput, **more: Any) -> None:
    """Write a result with three changes."""
    common = {"unit": "severity", "strengths": [1, 2, 3, 4, 5], "accuracies": [0.9, 0.8, 0.7, 0.6, 0.5],
              "losses": [[0.05 + k / 10, k / 10, 0.1 + k / 10] for k in range(5)],
              "loss": [0.25, 0.2, 0.3]}  # fmt: skip
    effects = [
        common | {"name": "gaussian noise", "option": "", "way_out": "add such images to the training images"},
        common | {"name": "fog", "option": "--data.color_jitter 0.4",
                  "way_out": "train with `--data.color_jitter 0.4`"},
        {"name": "box resizing", "unit": "", "strengths": [1], "accuracies": [0.94], "losses": [[0.01, -0.01, 0.03]],
         "loss": [0.01, -0.01, 0.03], "option": "", "way_out": "resize as in training"},
    ]  # fmt: skip
    values = {"data": "photos, test split", "is_own": True, "num_images": 20, "num_available": 20, "accuracy": 0.95,
              "loss": [0.25, 0.2, 0.3], "effects": effects}  # fmt: skip
    report.folder.robustness.write_text(json.dumps(values | more), encoding="utf-8")


def test_without_a_measurement_the_section_gives_the_command(report: ReportInput) -> None:
    section = robustness_section(report)
    assert section is not None
    (advice,) = section.advice
    assert advice.command == f"vitreous evaluate {report.folder.path} --robustness"
    assert section.numbers == {}


def test_without_held_out_images_there_is_no_section(report: ReportInput) -> None:
    assert robustness_section(replace(report, evaluation=None)) is None


def test_each_change_with_strengths_has_a_picture_and_a_curve(report: ReportInput) -> None:
    measured(report)
    asked.clear()
    section = robustness_section(report)
    assert section is not None
    drawn = ET.fromstring(f"<p>{section.parts[2]}</p>")
    assert [svg.findtext("title") for svg in drawn] == ["gaussian noise", "fog"]
    for svg in drawn:
        assert len(svg.findall(".//circle")) == 5
        (image,) = svg.findall("image")
        assert image.attrib["href"].startswith("data:image/jpeg;base64,")
    heights = [float(circle.attrib["cy"]) for circle in drawn[0].iter("circle")]
    assert heights == sorted(heights)  # lower accuracies are lower on the page
    assert [list(indices) for indices, _ in asked] == [[int(report.outputs["test"].indices[0])]]  # type: ignore[index]


def test_numbers_sentences_and_table_are_those_of_the_result(report: ReportInput) -> None:
    measured(report)
    section = robustness_section(report)
    assert section is not None
    assert section.numbers["accuracy"] == 0.95
    assert "fog costs 25.0 points (95% interval 20.0 to 30.0); train with" in section.parts[0]
    assert "box resizing" in section.parts[-1]
    (advice,) = section.advice
    assert advice.command == f"vitreous train --recipe {report.folder.config} --data.color_jitter 0.4"
    assert 0 < advice.gain < 0.25


def test_without_photos_there_are_only_curves(report: ReportInput) -> None:
    measured(report)
    for changed in (
        replace(report, pictures=None),
        replace(report, outputs={}),
        replace(report, pictures=NO_THUMBNAILS),
    ):
        section = robustness_section(changed)
        assert section is not None
        assert "<circle" in section.parts[2]
        assert "<image" not in section.parts[2]


def test_texts_of_a_foreign_file_are_escaped(report: ReportInput) -> None:
    effect = {"name": "</script><img onerror=x>", "unit": "<b>", "strengths": [1], "accuracies": [0.5], "option": "",
              "losses": [[0.4, 0.3, 0.5]], "loss": [0.4, 0.3, 0.5], "way_out": "<i>"}  # fmt: skip
    measured(report, data="<u>", effects=[effect])
    section = robustness_section(report)
    assert section is not None
    text = "".join(section.parts)
    assert not any(tag in text for tag in ("<img", "</script", "<b>", "<i>", "<u>"))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"effects": 3}', "null", "x" * 1000],
)
def test_damaged_file_is_reported_with_the_command_that_repeats_it(report: ReportInput, content: str) -> None:
    report.folder.robustness.write_text(content, encoding="utf-8")
    with pytest.raises(DamagedFileError) as caught:
        robustness_section(report)
    assert str(caught.value).endswith(f"delete it, or repeat `vitreous evaluate {report.folder.path} --robustness`")


@pytest.mark.parametrize("key", ["accuracy", "loss", "effects", "num_images"])
@pytest.mark.parametrize("value", ["text", None, [1, 2]])
def test_values_of_another_type_are_reported(report: ReportInput, key: str, value: object) -> None:
    measured(report, **{key: value})
    with pytest.raises(DamagedFileError):
        robustness_section(report)


def test_pictures_of_all_changes_take_little_space(report: ReportInput) -> None:
    effects = [
        {"name": change.name, "unit": change.unit, "strengths": change.strengths, "option": "", "way_out": "x",
         "accuracies": [0.5] * len(change.strengths), "losses": [[0.1, 0.0, 0.2]] * len(change.strengths),
         "loss": [0.1, 0.0, 0.2]}
        for change in CHANGES
    ]  # fmt: skip
    measured(report, effects=effects)
    large = replace(report, config=replace(report.config, data=replace(report.config.data, img_size=(224, 224))))
    section = robustness_section(large)
    assert section is not None
    assert section.parts[2].count("<image") == sum(bool(change.unit) for change in CHANGES)
    assert len("".join(section.parts)) < 400_000
