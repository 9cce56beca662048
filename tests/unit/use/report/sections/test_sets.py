"""Sections of the report on sets of classes and on rejecting."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.use.evaluate.sets.made import CLASSES, made_outputs

from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.evaluate.sets.measured import measure_rejecting, measure_sets
from vitreous.use.report.section import ReportInput, Section
from vitreous.use.report.sections.sets import rejecting_section, sets_section
from vitreous.use.run import Run

HOSTILE = ("<script>alert(1)</script>", 'a"b\nc', "$x_1$ 猫", "n" * 300)


def report(run: Run, outputs: dict[str, Outputs], folder: Path | None = None) -> ReportInput:
    path = RunFolder(folder or run.path)
    return ReportInput(path, read_config(run.path / "config.yaml"), run.metadata, (), None, outputs)


def sections(run: Run, outputs: dict[str, Outputs]) -> list[Section]:
    found = [sets_section(report(run, outputs)), rejecting_section(report(run, outputs))]
    return [section for section in found if section is not None]


def elements(section: Section) -> ET.Element:
    """Parse the parts of a section, which raises if they are not well-formed."""
    return ET.fromstring(f"<body>{''.join(section.parts)}</body>")


def texts(section: Section) -> str:
    return " ".join(" ".join(elements(section).itertext()).split())


def test_sections_have_the_numbers_of_evaluate(run: Run) -> None:
    outputs = {"val": made_outputs(900, 1), "test": made_outputs(400, 2)}
    sets, rejecting = sections(run, outputs)
    assert (sets.name, sets.numbers) == ("sets", {"scores": measure_sets(outputs)})
    assert (rejecting.name, rejecting.numbers) == ("rejecting", measure_rejecting(outputs))
    for section in (sets, rejecting):
        json.dumps(section.numbers, allow_nan=False)
    for scores in measure_sets(outputs):
        low, high = scores["expected"]
        assert f"{scores['kind']} {scores['level']:.0%} {scores['coverage']:.1%} {low:.1%} to {high:.1%}" in texts(sets)


def test_histogram_of_sizes_has_a_bar_and_a_number_for_each_share(run: Run) -> None:
    outputs = {"val": made_outputs(400, 1), "test": made_outputs(200, 2)}
    sets, _ = sections(run, outputs)
    (first, *_), rows = measure_sets(outputs), elements(sets).findall(".//tr")
    counts = [count for _, count in first["by_size"]]
    cells = rows[1].findall("td")[5:]
    assert [float(bar.get("value") or "") for bar in elements(sets).iter("meter")][:4] == [
        round(count / 200, 3) for count in [*counts, 0, 0, 0][:4]
    ]
    assert "".join(cells[0].itertext()).strip() == f"{counts[0] / 200:.1%}"


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_run_with_one_held_out_split_has_both_sections(run: Run, split: str) -> None:
    sets, rejecting = sections(run, {split: made_outputs(300, 3)})
    assert "in 90% of random halves" in texts(sets)
    assert " – " in texts(rejecting)


def test_a_run_without_outputs_or_with_several_labels_has_no_section(run: Run) -> None:
    labels = replace(made_outputs(50, 1), thresholds=(0.5,) * 4, true=made_outputs(50, 1).logits.clip(0, 1).round())
    assert sections(run, {}) == sections(run, {"val": labels}) == []


def test_a_run_with_very_few_held_out_images_has_no_sets(run: Run) -> None:
    assert [section.name for section in sections(run, {"val": made_outputs(5, 1)})] == ["rejecting"]
    assert [section.name for section in sections(run, {"val": made_outputs(1, 1)})] == ["rejecting"]


def test_images_that_have_chosen_the_weights_are_mentioned(run: Run) -> None:
    for chose in (False, True):
        outputs = {"val": made_outputs(300, 1, chose_weights=chose), "test": made_outputs(100, 2)}
        for section in sections(run, outputs):
            assert ("have chosen the weights too, so guarantees are slightly optimistic" in texts(section)) == chose


def test_names_of_classes_and_folders_are_escaped(run: Run, tmp_path: Path) -> None:
    outputs = {"val": made_outputs(900, 1, classes=HOSTILE), "test": made_outputs(400, 2, classes=HOSTILE)}
    hostile = report(run, outputs, tmp_path / "<b> & 'run'")
    for section in (sets_section(hostile), rejecting_section(hostile)):
        assert section is not None
        assert "<script" not in "".join(section.parts)
        assert "<b>" not in "".join(section.parts)
        assert "'\"'\"'run'\"'\"''" in texts(section)


def test_parts_work_under_a_policy_without_inline_styles_and_scripts(run: Run) -> None:
    outputs = {"val": made_outputs(900, 1), "test": made_outputs(400, 2)}
    for section in sections(run, outputs):
        assert not re.search(r"\b(style|on\w+|href|src)=", "".join(section.parts))


def test_curve_is_described_and_within_its_frame(run: Run) -> None:
    for outputs in (
        {"val": made_outputs(900, 1)},
        {"val": made_outputs(3, 1)},
        {"val": made_outputs(90, 1, spread=60.0)},
    ):
        found = rejecting_section(report(run, outputs))
        assert found is not None
        (svg,) = (element for element in elements(found).iter("svg") if element.get("role") == "img")
        assert svg.findtext("title")
        assert svg.findtext("desc")
        points = [tuple(map(float, point.split(","))) for point in svg.find(".//polyline").get("points").split()]  # type: ignore[union-attr]
        assert all(50 <= x <= 450 and 30 <= y <= 190 for x, y in points)
        assert points == sorted(points)
        assert points[-1][0] == 450


def test_advice_names_a_command_that_can_be_run_and_what_it_gains(run: Run) -> None:
    outputs = {"val": made_outputs(900, 1), "test": made_outputs(400, 2)}
    (advice,) = sections(run, outputs)[1].advice
    found = measure_rejecting(outputs)
    assert found is not None
    best = max(found["kept"])
    assert advice.command.endswith(f" IMAGES --reject {best:g}")
    share = found["kept"][best]["share"]
    assert advice.gain == pytest.approx(share * (1 - found["accuracy"] - share * (1 - best)))
    certain = {"val": made_outputs(900, 1, spread=60.0), "test": made_outputs(400, 2, spread=60.0)}
    assert sections(run, certain)[1].advice == ()


def test_classes_with_the_lowest_coverage_are_named(run: Run) -> None:
    outputs = {"val": made_outputs(900, 1), "test": made_outputs(400, 2)}
    lac = next(of for of in measure_sets(outputs) if (of["kind"], of["level"]) == ("lac", 0.95))
    share, name = min((covered / count, name) for name, (covered, count) in zip(CLASSES, lac["by_class"], strict=True))
    assert f"lowest coverage of a class: {share:.1%}, {name}" in texts(sections(run, outputs)[0])
