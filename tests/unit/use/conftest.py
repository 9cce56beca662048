"""Generated photos with awkward names, and two tiny runs on them that all tests of this folder share."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.pictures import write_pictures

from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.use.report.page import write_report
from vitreous.use.run import Run

KEYS: Mapping[str, Any] = {
    "data.img_size": (8, 12),
    "data.batch_size": 16,
    "data.test_ratio": 0.3,
    "data.val_ratio": 0.5,  # at least 20 images, so the temperature is fitted
    "model.patch_size": 4,
    "model.embed_dim": 16,
    "model.depth": 1,
    "model.num_heads": 2,
    "optim.lr": 0.003,
    "train.epochs": 2.0,
    "train.device": "cpu",
    "train.precision": "fp32",
}
CLASSES = {"Äpfel": ((200, 60, 50), 29), '<b>&"': ((70, 180, 60), 23), "two words": ((90, 70, 190), 20)}


@pytest.fixture(scope="session")
def run_on(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Train a tiny model on a folder; `keys` are configuration keys."""

    def train(data: Path, *, name: str = "tiny", **keys: Any) -> Run:
        out = tmp_path_factory.mktemp("runs") / name
        folder = run_training(TrainRequest(data=str(data), values={**KEYS, **keys}, out=out))
        write_report(folder)
        return Run(folder.path)

    return train


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 images, 9 px high and 14 wide, of three classes that differ in color; do not modify."""
    root = tmp_path_factory.mktemp("use") / "my photos"
    # The tint is so strong that some images are misclassified.
    return write_pictures(root, CLASSES, seed=5, name="bild {} ü.png", noise=20, tint=60)


@pytest.fixture(scope="session")
def run(run_on: Callable[..., Run], photos: Path) -> Run:
    """A finished run on the photos; do not modify."""
    return run_on(photos, name="tiny run")


@pytest.fixture(scope="session")
def blind_run(run_on: Callable[..., Run], photos: Path) -> Run:
    """A run without test and validation images; do not modify."""
    return run_on(photos, name="blind", **{"data.test_ratio": 0.0, "data.val_ratio": 0.0, "train.epochs": 0.2})


@pytest.fixture
def own_run(run: Run, tmp_path: Path) -> Run:
    """A copy of the run that a test may modify."""
    return Run(shutil.copytree(run.path, tmp_path / "own"))


@pytest.fixture
def lone_model(run: Run, tmp_path: Path) -> Path:
    """The model file, moved out of its run folder."""
    return Path(shutil.copy(run.path / "model.safetensors", tmp_path / "moved.safetensors"))


@pytest.fixture
def unfinished(run: Run, tmp_path: Path) -> Path:
    """The folder of an unfinished run, without a model; its name has a space."""
    folder = Path(shutil.copytree(run.path, tmp_path / "half done"))
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def broken_png(tmp_path: Path) -> Path:
    """A file that is an image only by its name."""
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    return path
