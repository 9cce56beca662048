"""Folds that follow a run which few images tested."""

from pathlib import Path

import pytest
import torch

from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights import save_model
from vitreous.recipe.files import read_config
from vitreous.recipe.pace import OUTSIDE_S
from vitreous.training.folder.records import ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.signals import Interrupted
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.use.series.automatic import add_folds
from vitreous.use.series.summary import summarize_series

CONFIG = ModelConfig(img_size=(16, 16), patch_size=4, in_chans=3, num_classes=4, embed_dim=16, depth=2, num_heads=2)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_model(tmp_path / "w.safetensors", build_model(CONFIG, generator=torch.Generator().manual_seed(4)),
               {"classes": [], "preprocess": {}})  # fmt: skip
    return tmp_path / "w.safetensors"


def trained(data: Path, weights: Path, tmp_path: Path, **keys: object) -> RunFolder:
    values = {"train.pretrained": str(weights), "train.device": "cpu", "train.precision": "fp32", "train.seed": 3}
    values |= {key.replace("__", "."): value for key, value in keys.items()}
    return run_training(TrainRequest(data=str(data), values=values, out=tmp_path / "run"))


@pytest.mark.slow
def test_each_image_is_tested_once_with_the_settings_of_the_run(photos: Path, weights: Path, tmp_path: Path) -> None:
    folder = trained(photos, weights, tmp_path, train__budget_s=300.0)
    stops: list[str] = []

    def stop_in_second_fold(kind: str, fields: object) -> None:
        if kind == "member":
            stops.append(str(fields))
            if len(stops) == 2:
                raise Interrupted(2, folder.folds.path, 0)

    with pytest.raises(Interrupted):
        add_folds(folder, stop_in_second_fold)
    series = add_folds(folder, ignore)  # continues
    assert series is not None
    summary = summarize_series(series)
    assert summary.by_seed()[3].num_images == 72
    own, of_fold = read_config(folder.config), read_config(RunFolder(series.path / "fold-2").config)
    assert of_fold.data.img_size == own.data.img_size
    assert of_fold.train.epochs == own.train.epochs
    assert 3 * (of_fold.train.budget_s - OUTSIDE_S) < own.train.budget_s - OUTSIDE_S


@pytest.mark.parametrize(("keys", "why"), [
    ({"train__epochs": 1.0}, "no budget"),
    ({"train__epochs": 1.0, "train__budget_s": 20.0}, "no time left"),
    ({"train__epochs": 1.0, "train__budget_s": 600.0, "data__num_folds": 4}, "a fold itself"),
])  # fmt: skip
def test_folds_need_time_that_the_budget_leaves(
    photos: Path, weights: Path, tmp_path: Path, keys: dict[str, object], why: str
) -> None:
    folder = trained(photos, weights, tmp_path, **keys)
    assert add_folds(folder, ignore) is None, why
    assert not folder.folds.path.exists()
