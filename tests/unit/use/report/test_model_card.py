"""MODEL_CARD.md: metadata that hubs read, and text that Markdown shows as it is."""

from pathlib import Path

import yaml

from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.report.page import write_report
from vitreous.use.run import Run


def parts(card: Path) -> tuple[dict[str, object], str]:
    _, header, text = card.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), text


def test_metadata_is_that_of_an_image_classifier_with_its_accuracy(run: Run) -> None:
    header, _ = parts(RunFolder(run.path).model_card)
    assert (header["license"], header["library_name"]) == ("unknown", "vitreous")
    assert header["pipeline_tag"] == "image-classification"
    ((model,),) = [header["model-index"]]
    assert model["name"] == "tiny run"  # type: ignore[index]
    (result,) = model["results"]  # type: ignore[index]
    assert result["dataset"] == {"name": "my photos", "type": "imagefolder", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "value": run.accuracy}]


def test_names_of_classes_are_escaped(run: Run) -> None:
    _, text = parts(RunFolder(run.path).model_card)
    assert '&lt;b>&amp;"' in text
    assert "<b>" not in text
    assert "{" not in text


def test_results_are_the_sentences_of_the_report(run: Run) -> None:
    _, text = parts(RunFolder(run.path).model_card)
    assert f"accuracy on the test images of my photos: {run.metrics['test']['num_correct']} of" in text
    assert "balanced accuracy" in text


def test_a_card_that_the_user_has_edited_is_kept(own_run: Run) -> None:
    folder = RunFolder(own_run.path)
    card = folder.model_card.read_text(encoding="utf-8")
    folder.model_card.write_text(card.replace("license: unknown", "license: mit"), encoding="utf-8")
    write_report(folder)
    assert "license: unknown" in folder.model_card.read_text(encoding="utf-8")  # the line was still there
    mine = "\n".join(line for line in card.splitlines() if "vitreous report` replaces" not in line)
    folder.model_card.write_text(mine, encoding="utf-8")
    write_report(folder)
    assert folder.model_card.read_text(encoding="utf-8") == mine


def test_a_run_without_held_out_images_has_no_results(blind_run: Run) -> None:
    header, text = parts(RunFolder(blind_run.path).model_card)
    assert "model-index" not in header
    assert "its accuracy is unknown" in text
