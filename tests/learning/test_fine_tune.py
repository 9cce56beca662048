"""Weights trained on digits help with another task: in the same epochs they beat fresh weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from vitreous.model.weights import read_metadata
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write 1,000 digits for pre-training, and the others as five classes of two digits, 20 training images each."""
    root = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    counts = dict.fromkeys(range(5), 0)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = f"digits/n{label}"
        if number >= 1_000:
            counts[label % 5] += 1
            name = f"pairs/{'train' if counts[label % 5] <= 20 else 'test'}/{label % 5} or {label % 5 + 5}"
        (root / name).mkdir(parents=True, exist_ok=True)
        pixels = np.clip(image.reshape(8, 8) * 16, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / name / f"{number}.png")
    return {"digits": root / "digits", "pairs": root / "pairs"}


def train(data: Path, out: Path, **keys: Any) -> RunFolder:
    values = {"train.device": "cpu", "train.precision": "fp32"} | {k.replace("__", "."): v for k, v in keys.items()}
    return run_training(TrainRequest(data=str(data), values=values, out=out))


def accuracy(folder: RunFolder) -> float:
    return float(read_metadata(folder.model)["metrics"]["test"]["accuracy"])


def test_trained_weights_beat_fresh_ones_in_the_same_epochs(folders: dict[str, Path], tmp_path: Path) -> None:
    base = train(folders["digits"], tmp_path / "digits", train__epochs=10.0)
    shape = {"data__batch_size": 16, "train__epochs": 6.0}
    fresh = train(folders["pairs"], tmp_path / "fresh", **shape)
    methods = {
        "all": {},
        "lora": {"train__lora_rank": 4, "optim__lr": 5e-3},
        "probe": {"train__freeze": "backbone", "train__epochs": 60.0},
    }
    for name, keys in methods.items():
        tuned = train(folders["pairs"], tmp_path / name, train__pretrained=str(base.path), **(shape | keys))
        assert accuracy(tuned) > accuracy(fresh) + 0.05, name
