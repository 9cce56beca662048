"""A small folder with train/ and val/ only: all of train/ is trained on, and val/ reports an unbiased accuracy."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.pictures import write_pictures

from vitreous.errors import ConfigError
from vitreous.model.weights import load_model, read_metadata
from vitreous.recipe.files import read_config
from vitreous.training.folder.records import ignore, read_records
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.use.report.page import write_report

Tiny = Callable[..., TrainRequest]


def with_validation(root: Path, *, seed: int = 1) -> Path:
    """A folder with 33 training and 25 validation images; `seed` draws the latter."""
    colors = {"apple": (220, 30, 40), "kiwi": (60, 190, 50), "plum": (80, 40, 170)}
    train = {name: (color, count) for (name, color), count in zip(colors.items(), (14, 10, 9), strict=True)}
    val = {name: (color, count) for (name, color), count in zip(colors.items(), (12, 7, 6), strict=True)}
    write_pictures(root / "train", train, seed=0, name="{:02d}.png", noise=40)
    write_pictures(root / "val", val, seed=seed, name="{:02d}.png", noise=60)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_validation(tmp_path / "fruit")


def test_all_of_train_is_trained_on_and_all_of_val_reports_the_accuracy(tiny: Tiny, folder: Path) -> None:
    run = run_training(tiny(data=folder))
    metadata = read_metadata(run.model)
    assert list(metadata["metrics"]) == ["val"]
    assert metadata["metrics"]["val"]["num_images"] == 25
    assert (metadata["weights"], metadata["chosen_on_val"]) == ("average", False)
    assert len(run.predictions.read_text().splitlines()) == 1 + 25
    (data,) = (record for record in read_records(run.records) if record["kind"] == "data")
    assert (data["num_train"], data["num_val"], data["num_test"]) == (33, 25, 0)


def test_plan_says_how_many_images_serve_what(tiny: Tiny, folder: Path) -> None:
    plan = run_training(tiny(data=folder)).plan.read_text()
    sentence = "33 images to train on, none to choose the weights by, 25 validation images to report the accuracy on; "
    assert f"- fruit: {sentence}3 classes with 9 to 14 training images" in plan
    assert "| `train.choose_weights` | false | 25 validation images report the accuracy, so they must not " in plan
    assert "optimistic" not in plan


def test_report_does_not_claim_that_weights_were_chosen(tiny: Tiny, folder: Path) -> None:
    run = run_training(tiny(data=folder))
    write_report(run)
    report = run.report.read_text()
    assert "accuracy on the validation images of fruit" in report
    assert "kept the running average of the weights</" in report
    assert "lowest validation loss" not in report


def test_validation_images_influence_nothing_but_the_report(tiny: Tiny, tmp_path: Path) -> None:
    runs = [
        run_training(tiny(f"run {seed}", data=with_validation(tmp_path / f"fruit {seed}", seed=seed)))
        for seed in (1, 2)
    ]
    first, second = (load_model(run.model).state_dict() for run in runs)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert runs[0].predictions.read_text() != runs[1].predictions.read_text()


def test_weights_are_chosen_on_validation_images_if_that_is_asked_for_and_said_to_be_optimistic(
    tiny: Tiny, folder: Path
) -> None:
    run = run_training(tiny(data=folder, train__choose_weights=True))
    assert read_metadata(run.model)["chosen_on_val"]
    plan = run.plan.read_text()
    assert "25 validation images to choose the weights by, the same to report the accuracy on" in plan
    assert "the final accuracy is measured on validation images, and is optimistic" in plan
    write_report(run)
    assert ", which had the lowest validation loss" in run.report.read_text()


def test_early_stopping_chooses_on_the_validation_images_and_says_so(tiny: Tiny, folder: Path) -> None:
    surveyed, plan = plan_run(tiny(data=folder, train__patience_ratio=0.5), ignore)
    assert (surveyed.facts.num_train, surveyed.facts.num_test) == (33, 0)
    assert plan.config.train.choose_weights
    assert any(note.endswith("is measured on validation images, and is optimistic") for note in plan.notes)
    with pytest.raises(
        ConfigError, match=r"^train.patience_ratio=0.5: early stopping chooses .*; leave it out, or set"
    ):
        plan_run(tiny(data=folder, train__patience_ratio=0.5, train__choose_weights=False), ignore)


def test_a_test_split_that_is_asked_for_is_held_out_of_train(tiny: Tiny, folder: Path) -> None:
    surveyed, plan = plan_run(tiny(data=folder, data__test_ratio=0.2), ignore)
    assert surveyed.facts.num_val == 25
    assert surveyed.facts.num_train + surveyed.facts.num_test == 33
    assert surveyed.facts.num_test > 0
    assert plan.config.train.choose_weights


def test_train_and_test_only_takes_validation_images_from_train(tiny: Tiny, folder: Path) -> None:
    (folder / "val").rename(folder / "test")
    surveyed, plan = plan_run(tiny(data=folder), ignore)
    assert surveyed.facts.num_test == 25
    assert surveyed.facts.num_train + surveyed.facts.num_val == 33
    assert 0 < surveyed.facts.num_val < 10
    assert plan.config.train.choose_weights


def test_run_of_an_older_version_keeps_choosing(tiny: Tiny, folder: Path) -> None:
    """Its `config.yaml` does not have the key, and a resumed run must end as it would have then."""
    run = run_training(tiny(data=folder))
    text = run.config.read_text()
    assert " choose_weights: false," in text
    run.config.write_text(text.replace(" choose_weights: false,", ""))
    assert read_config(run.config).train.choose_weights
