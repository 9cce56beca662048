"""What the report of a run from scratch advises: pretrained weights for photos, more time for short runs."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.use.report.test_sections import Make, make

from vitreous.recipe.forecast import forecast
from vitreous.use.report.section import Advice, ReportInput
from vitreous.use.report.sections.training import training_section

__all__ = ["make"]  # a fixture


def advised(report: ReportInput, epochs: float, recipe: str = "small-images", **train: Any) -> dict[str, Advice]:
    """Return the advice by its option, of a run of this many epochs on 300 images."""
    records = [dict(record) for record in report.records if record["kind"] != "step"]
    for record in records:
        record |= {"num_train": 300} if record["kind"] == "data" else {}
    config = replace(report.config, recipe=recipe, train=replace(report.config.train, **train))
    section = training_section(
        replace(report, config=config, records=[*records, {"kind": "step", "step": 1, "epoch": epochs}])
    )
    return {each.command.split(" --")[1]: each for each in section.advice}


@pytest.mark.parametrize(
    ("epochs", "train", "option"),
    [
        (4.0, {"budget_s": 0.0}, "epochs 200"),
        (4.0, {"budget_s": 60.0}, "budget 50m"),
        (0.5, {"budget_s": 60.0}, "budget 400m"),
    ],
)
def test_a_short_run_is_advised_to_train_for_the_usual_epochs(
    make: Make, epochs: float, train: dict[str, Any], option: str
) -> None:
    assert list(advised(make(("a", "b")), epochs, **train)) == [option]


def test_photos_without_pretrained_weights_are_advised_to_use_them_first(make: Make) -> None:
    found = advised(make(("a", "b")), 4.0, "small-photos", budget_s=0.0)
    assert list(found) == ["pretrained auto", "epochs 200"]
    assert found["pretrained auto"].gain > found["epochs 200"].gain > 0


def test_the_gain_of_a_longer_budget_is_predicted(make: Make) -> None:
    report = make(("a", "b"))
    advice = advised(report, 1.0, budget_s=60.0)["budget 200m"]
    score = report.evaluation.score.as_dict()
    expected = forecast(score["num_correct"], score["num_images"], 60.0, 12_000.0)
    assert advice.text.endswith(f" Expect {expected.text}.")
    assert advice.gain == expected.accuracy - report.evaluation.accuracy > 0


@pytest.mark.parametrize(
    ("epochs", "recipe", "train"),
    [(150.0, "small-images", {}), (4.0, "fine-tune", {"pretrained": "weights.safetensors"}), (4.0, "deit", {})],
)
def test_other_runs_get_no_such_advice(make: Make, epochs: float, recipe: str, train: dict[str, Any]) -> None:
    assert not advised(make(("a", "b")), epochs, recipe, **train)
