"""The section in which readers try the model: what it says about a run, and when it has no model."""

import json
from pathlib import Path

import pytest
from tests.unit.use.report.thumbnails import NO_THUMBNAILS

from vitreous.model.weights import read_metadata
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.export.page import pack as pack_module
from vitreous.use.report.photos import Pictures
from vitreous.use.report.section import ReportInput, Section
from vitreous.use.report.sections.try_it import try_it_section
from vitreous.use.run import Run


def section_of(run: Path, pictures: Pictures | None = NO_THUMBNAILS) -> Section:
    folder = RunFolder(run)
    return try_it_section(
        ReportInput(
            folder=folder,
            config=read_config(folder.config),
            metadata=read_metadata(folder.model),
            records=[],
            evaluation=None,
            outputs=outputs_of_run(folder),
            pictures=pictures,
        )
    )


def test_section_has_the_model_and_how_well_its_rounded_weights_agree(run: Run) -> None:
    found, text = section_of(run.path), "".join(section_of(run.path).parts)
    agreement = found.numbers["agreement"]
    assert agreement["num_images"] == run.metrics["test"]["num_images"]
    assert f"for {agreement['num_same']} of {agreement['num_images']} held-out images" in text
    assert f"and {agreement['num_same_generated']} of {agreement['num_generated']} blends of two of them" in text
    assert agreement["num_images"] + agreement["num_generated"] == 1_000
    assert f"probabilities differ by at most {agreement['largest_difference']:.3f}" in text
    assert found.numbers["runs_in_page"] is True
    assert found.numbers["size_bytes"] < 80_000
    assert json.dumps(found.numbers)
    assert text.count("<script") == 1
    assert found.script.count("const Engine") == 1
    assert ".try-it" in found.style


def test_example_is_left_out_with_the_photos(run: Run) -> None:
    assert '"example":null' not in "".join(section_of(run.path).parts)
    assert '"example":null' in "".join(section_of(run.path, pictures=None).parts)


def test_model_that_is_too_large_is_replaced_by_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "MOST_BYTES", 100)
    found = section_of(run.path)
    assert "<script" not in "".join(found.parts)
    assert f"vitreous predict &#x27;{run.path}&#x27; IMAGE" in found.parts[1]
    assert f"vitreous explain &#x27;{run.path}&#x27; IMAGE" in found.parts[2]
    assert "about 2.9 million parameters" in found.parts[0]
    assert found.numbers["runs_in_page"] is False


def test_run_without_stored_outputs_says_so(own_run: Run) -> None:
    RunFolder(own_run.path).outputs.unlink()
    found = section_of(own_run.path)
    assert "the run has not stored what it held out" in "".join(found.parts)
    assert "agreement" not in found.numbers


def test_moved_data_is_named_unless_the_agreement_is_stored(own_run: Run, tmp_path: Path) -> None:
    folder = RunFolder(own_run.path)
    source = read_config(folder.config).data.source
    folder.config.write_text(folder.config.read_text("utf-8").replace(source, str(tmp_path / "gone")), encoding="utf-8")
    stored = section_of(own_run.path)
    assert stored.numbers["agreement"]["num_images"] == own_run.metrics["test"]["num_images"]
    folder.agreement.unlink()
    text = "".join(section_of(own_run.path).parts)
    assert "could not be measured" in text
    assert "gone" in text
