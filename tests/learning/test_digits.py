"""Complete runs on real images learn, and report the accuracy that they reached."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.model.weights import read_metadata
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of five epochs, a twelfth of the usual length of the recipe. Chance is 10%."""
    values = {"train.epochs": 5.0, "train.device": "cpu", "train.precision": "fp32"}
    return run_training(TrainRequest(data="digits", values=values, out=tmp_path_factory.mktemp("digits") / "run"))


def test_five_epochs_reach_90_percent_on_digits(digits: RunFolder) -> None:
    found = read_metadata(digits.model)["metrics"]["test"]
    assert found["num_images"] > 400
    assert found["interval_95"][0] > 0.90


def test_loss_falls_to_less_than_half(digits: RunFolder) -> None:
    losses = [record["loss"] for record in read_records(digits.records) if record["kind"] == "step"]
    assert np.mean(losses[:3]) > 2.0
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])


def test_averaged_weights_of_a_short_run_are_no_worse_than_the_trained_ones(digits: RunFolder) -> None:
    records = [record for record in read_records(digits.records) if record["kind"] == "evaluation"]
    last = {record["weights"]: record["accuracy"] for record in records[-2:]}
    assert last["average"] >= last["trained"] - 0.03


def test_validation_and_test_accuracy_agree(digits: RunFolder) -> None:
    metrics = read_metadata(digits.model)["metrics"]
    assert abs(metrics["val"]["accuracy"] - metrics["test"]["accuracy"]) < 0.06


def test_noise_is_not_learned(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        (tmp_path / "noise" / name).mkdir(parents=True)
        for number in range(60):
            pixels = draw.integers(0, 256, (9, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "noise" / name / f"{number}.png")
    values = {
        "data.img_size": (8, 12), "data.batch_size": 16, "data.test_ratio": 0.5, "model.patch_size": 4,
        "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "train.epochs": 20.0, "train.device": "cpu",
        "train.precision": "fp32",
    }  # fmt: skip
    folder = run_training(TrainRequest(data=str(tmp_path / "noise"), values=values, out=tmp_path / "run"))
    low, _ = read_metadata(folder.model)["metrics"]["test"]["interval_95"]
    assert low < 1 / 3
