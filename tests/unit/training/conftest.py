"""Fixtures: a folder of tiny images, a tiny model in a state, and a request that trains in a second."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.pictures import write_pictures

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Supervised
from vitreous.optim.config import OptimConfig
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.tensors import Images, Labels
from vitreous.training.measure.instruments import Instruments
from vitreous.training.measure.speed import evaluation_images_per_s, training_pace
from vitreous.training.request import TrainRequest
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings

TINY_KEYS: dict[str, Any] = {
    "data.img_size": (8, 12),
    "data.batch_size": 8,
    "model.patch_size": 4,
    "model.embed_dim": 16,
    "model.depth": 1,
    "model.num_heads": 2,
    "model.drop_path_rate": 0.2,
    "model.proj_drop_rate": 0.1,
    "train.epochs": 2.0,
    "train.device": "cpu",
    "train.precision": "fp32",
}


@pytest.fixture
def quick() -> Instruments:
    """Instruments that measure the speed of the machine only for a moment."""
    return Instruments(
        training_pace=partial(training_pace, seconds=0.03),
        evaluation_images_per_s=partial(evaluation_images_per_s, seconds=0.03),
    )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, so that sums are the same on every machine and parallel tests do not compete for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """61 images, 9 px high and 14 wide, of three classes with different colors; do not change them."""
    classes = {"apple": ((220, 30, 40), 25), "kiwi": ((60, 190, 50), 20), "plum": ((80, 40, 170), 16)}
    return write_pictures(tmp_path_factory.mktemp("images") / "fruit", classes, seed=7, name="{:02d}.png", noise=40)


@pytest.fixture(scope="session")
def tiny_keys() -> dict[str, Any]:
    """Keys of a run of 12 steps, which takes about a second."""
    return TINY_KEYS


@pytest.fixture
def own_images(images_folder: Path, tmp_path: Path) -> Path:
    """A copy of the images, which a test may change."""
    return Path(shutil.copytree(images_folder, tmp_path / "fruit"))


@pytest.fixture
def tiny(images_folder: Path, tmp_path: Path) -> Callable[..., TrainRequest]:
    """Make a request to train a tiny model on the images; keys are written `room__key`."""

    def make(out: str | None = "run", *, data: Path | None = None, **keys: Any) -> TrainRequest:
        values = TINY_KEYS | {key.replace("__", "."): value for key, value in keys.items()}
        folder = None if out is None else tmp_path / out
        return TrainRequest(data=str(data or images_folder), values=values, out=folder)

    return make


@pytest.fixture
def make_state() -> Callable[..., TrainState]:
    """Make a state at step 0 of 20, of a model of width 16 with one block; equal seeds give equal weights."""

    def make(*, seed: int = 0, end_step: int = 20, optim: OptimConfig | None = None, **changes: Any) -> TrainState:
        values: dict[str, Any] = {
            "img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 16, "depth": 1,
            "num_heads": 2, "pos_drop_rate": 0.1, "drop_path_rate": 0.2,
        }  # fmt: skip
        config = ModelConfig(**{**values, **changes})
        model = build_model(config, generator=torch.Generator().manual_seed(seed))
        optimizer = build_optimizer(model, optim or OptimConfig())
        return TrainState(
            model=model, ema=Ema(model), optimizer=optimizer, horizon=Horizon(end_step), data_fingerprint="f00d"
        )

    return make


@pytest.fixture
def settings() -> StepSettings:
    task = Supervised(CrossEntropy(label_smoothing=0.1))
    return StepSettings(task=task, optim=OptimConfig(), precision="fp32", seed=3)


@pytest.fixture
def batch() -> tuple[Images, Labels]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(6, 3, 8, 12, generator=generator), torch.randint(5, (6,), generator=generator)


@pytest.fixture
def snapshot() -> Callable[[TrainState], dict[str, torch.Tensor]]:
    """Return copies of all tensors of a state: weights, average and moments."""
    return lambda state: {name: tensor.detach().clone() for name, tensor in state.tensors().items()}
