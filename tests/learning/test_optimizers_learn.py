"""The name of an optimizer is enough: with the learning rate of the plan it learns real images."""

from pathlib import Path

import pytest

from vitreous.model.weights import read_metadata
from vitreous.recipe.files import read_config
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training

pytestmark = pytest.mark.slow


def test_lion_reaches_90_percent_on_digits_in_five_epochs_with_planned_settings(tmp_path: Path) -> None:
    values = {"optim.name": "lion", "train.epochs": 5.0, "train.device": "cpu", "train.precision": "fp32"}
    folder = run_training(TrainRequest(data="digits", values=values, out=tmp_path / "run"))
    optim = read_config(folder.config).optim
    assert (optim.name, optim.beta2) == ("lion", 0.99)
    assert read_metadata(folder.model)["metrics"]["test"]["accuracy"] > 0.90
