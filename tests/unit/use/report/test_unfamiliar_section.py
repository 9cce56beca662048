"""The section of the report on images unlike the training images."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from PIL import Image
from tests.unit.use.report.thumbnails import NO_THUMBNAILS, Thumbnails

from vitreous.recipe.files import read_config
from vitreous.training.fit.familiarity import SCORES
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.report.section import ReportInput
from vitreous.use.report.sections.unfamiliar import unfamiliar_section
from vitreous.use.run import Run

MakeInput = Callable[..., ReportInput]


@pytest.fixture
def input_of() -> MakeInput:
    def make(run: Run, **changes: Any) -> ReportInput:
        folder = RunFolder(run.path)
        values: dict[str, Any] = {
            "folder": folder, "config": read_config(folder.config), "metadata": run.metadata,
            "records": read_records(folder.records), "evaluation": None, "outputs": outputs_of_run(folder),
        }  # fmt: skip
        return ReportInput(**{**values, **changes})

    return make


def altered(run: Run, **changes: Any) -> list[dict[str, Any]]:
    """Return the records of a run with a changed record on what is familiar."""
    records = read_records(RunFolder(run.path).records)
    return [{**record, **changes} if record["kind"] == "familiarity" else record for record in records]


def test_section_has_the_table_of_the_probe_and_says_that_it_is_one(run: Run, input_of: MakeInput) -> None:
    section = unfamiliar_section(input_of(run))
    assert section is not None
    (record,) = (r for r in read_records(RunFolder(run.path).records) if r["kind"] == "familiarity")
    html = "".join(section.parts)
    assert "not a guarantee" in html
    for kind, value in record["auroc"][record["score"]].items():
        assert kind in html
        assert f"{value:.2f}" in html
    assert html.count("(used)") == 1
    assert section.numbers["auroc"] == record["auroc"]
    assert f"Of {record['num_images']} test images, {record['num_flagged']} (" in html


def test_section_shows_the_least_familiar_held_out_images(run: Run, input_of: MakeInput) -> None:
    asked: list[int] = []

    def photos(indices: Sequence[int], side_px: int) -> list[Image.Image | None]:
        asked.extend(indices)
        return [None, *(Image.new("RGB", (14, 9)) for _ in indices[1:])]

    section = unfamiliar_section(input_of(run, pictures=Thumbnails(photos)))
    assert section is not None
    html = "".join(section.parts)
    assert asked == [index for index, _ in section.numbers["least_familiar"]]
    assert html.count("<img ") == len(asked) - 1
    shares = [share for _, share in section.numbers["least_familiar"]]
    assert f"less familiar than {shares[0]:.1%}" not in html.partition("<figure>")[0]
    assert f"less familiar than {shares[1]:.1%}" in html


def test_numbers_of_other_images_are_not_shown(run: Run, input_of: MakeInput) -> None:
    records = altered(run, least_familiar=[[10**9, 0.9], [-3, 0.8]])
    section = unfamiliar_section(input_of(run, records=records, pictures=NO_THUMBNAILS))
    assert section is not None
    assert "<img" not in "".join(section.parts)


def test_names_from_a_record_are_escaped(run: Run, input_of: MakeInput) -> None:
    kinds = {name: {"<script>": 0.5} for name in SCORES}
    section = unfamiliar_section(input_of(run, records=altered(run, auroc=kinds)))
    assert section is not None
    assert "<script>" not in "".join(section.parts)


@pytest.mark.parametrize(("num_flagged", "advises"), [(4, False), (30, True)])
def test_many_flagged_test_images_are_worth_a_look(
    run: Run, input_of: MakeInput, num_flagged: int, advises: bool
) -> None:
    section = unfamiliar_section(input_of(run, records=altered(run, num_flagged=num_flagged, num_images=100)))
    assert section is not None
    assert bool(section.advice) == advises
    if advises:
        assert section.advice[0].text.startswith("30% of the test images are unlike the training images, not 5% as ")
        assert section.advice[0].gain == pytest.approx(0.25)


def test_without_enough_validation_images_the_section_says_how_many_it_takes(
    blind_run: Run, input_of: MakeInput
) -> None:
    section = unfamiliar_section(input_of(blind_run))
    assert section is not None
    assert "that takes 19 validation images; there are 0." in section.parts[0]


def test_a_run_of_an_older_version_has_no_section(run: Run, input_of: MakeInput) -> None:
    old = [record for record in read_records(RunFolder(run.path).records) if record["kind"] != "familiarity"]
    assert unfamiliar_section(input_of(run, records=old)) is None
