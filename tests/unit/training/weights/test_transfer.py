"""Plans for pretrained weights: image sizes and trainable blocks that follow from measured speed and budget."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vitreous.errors import ConfigError
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.cost.count import count_flops
from vitreous.model.weights import load_model, save_model
from vitreous.recipe.pace import Pace
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.records import ignore, read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.measure.instruments import Instruments
from vitreous.training.request import TrainRequest
from vitreous.training.start import dry_run, run_training
from vitreous.training.weights import transfer
from vitreous.training.weights.transfer import image_sizes

NATIVE = ModelConfig(img_size=(80, 80), patch_size=4, in_chans=3, num_classes=4, embed_dim=16, depth=3, num_heads=2)
"""20×20 patches, more than a plan uses."""


def test_dinov2_starts_at_224_px_and_goes_down_to_98() -> None:
    sizes = list(image_sizes(replace(config_for("vit_small_patch14_dinov2"), img_size=(518, 518)), 14))
    assert (sizes[0], sizes[-1]) == ((224, 224), (98, 98))
    assert all(height == width and height % 14 == 0 for height, width in sizes)


def test_small_weights_keep_their_size_and_wide_ones_their_aspect_ratio() -> None:
    assert list(image_sizes(replace(NATIVE, img_size=(20, 20)), 4)) == [(20, 20)]
    sizes = list(image_sizes(replace(NATIVE, img_size=(40, 80)), 4))
    assert sizes[0] == (40, 80)
    assert all(width == pytest.approx(2 * height, abs=4) for height, width in sizes)


def test_relative_positions_are_not_resized() -> None:
    assert list(image_sizes(replace(NATIVE, relative_bias=True), 4)) == [(80, 80)]


@pytest.fixture
def ask(images_folder: Path, tmp_path: Path) -> Callable[..., TrainRequest]:
    """Return a function that makes a request to train from the weights of `NATIVE`."""
    model = build_model(NATIVE, generator=torch.Generator().manual_seed(4))
    save_model(tmp_path / "w.safetensors", model, {"classes": [], "preprocess": {}})

    def make(**keys: Any) -> TrainRequest:
        values = {"train.pretrained": str(tmp_path / "w.safetensors"), "data.batch_size": 8, "train.device": "cpu",
                  "train.precision": "fp32"}  # fmt: skip
        values |= {key.replace("__", "."): value for key, value in keys.items()}
        return TrainRequest(data=str(images_folder), values=values, out=tmp_path / "run")

    return make


def machine(flop_per_s: float) -> Instruments:
    """Instruments of a machine whose steps take time in proportion to their operations."""

    def pace(config: RunConfig, teacher: object = None) -> Pace:
        share_trained = 1 - config.train.freeze_blocks / config.model.depth
        forward = share_trained if config.train.reuse_frozen else 1
        step_s = config.data.batch_size * count_flops(config.model) * (forward + 2 * share_trained) / flop_per_s
        return Pace(((0.0, 1.0, step_s),))

    return Instruments(training_pace=pace)


def seconds_for(epochs: float, size: int) -> float:
    """Return the budget in which a machine of 1 GFLOP/s trains for this many epochs, without any fixed cost."""
    return epochs * 40 * 3 * count_flops(replace(NATIVE, img_size=(size, size), num_classes=3)) / 1e9


@pytest.fixture
def _enough_are_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 13 test images suffice, so that no time is left for folds."""
    monkeypatch.setattr(transfer, "FEW_TESTED", 0)


@pytest.mark.usefixtures("_enough_are_tested")
def test_budget_decides_the_image_size(ask: Any) -> None:
    chosen = []
    for speed in (1e12, 4e7, 1e7):
        _, plan = dry_run(ask(train__budget_s=60.0), ignore, instruments=machine(speed))
        chosen.append(plan.config.data.img_size[0])
        reason = next(choice.reason for choice in plan.choices if choice.key == "data.img_size")
        assert "images/s on this machine" in reason
    assert chosen[0] == 64  # 256 patches
    assert chosen == sorted(chosen, reverse=True)
    assert len(set(chosen)) == 3


@pytest.mark.usefixtures("_enough_are_tested")
def test_short_budgets_freeze_more_blocks_and_then_reuse_their_outputs(ask: Any) -> None:
    # Without steps, there is time for larger images again.
    for speed, side, blocks, reuses, is_trained in (
        (1.7e5, 28, 0, False, True), (9e4, 28, 1, False, True), (4e4, 28, 2, True, True),
        (2.5e4, 32, 0, False, False), (5e3, 28, 0, False, False),
    ):  # fmt: skip
        _, plan = dry_run(ask(train__budget_s=6000.0), ignore, instruments=machine(speed))
        train = plan.config.train
        assert (train.freeze_blocks, train.reuse_frozen, train.epochs > 0) == (blocks, reuses, is_trained)
        assert plan.config.data.img_size == (side, side)
    _, plan = dry_run(ask(train__budget_s=60.0, train__lora_rank=2), ignore, instruments=machine(1e6))
    assert (plan.config.data.img_size, plan.config.train.freeze_blocks) == ((28, 28), 0)


def test_few_images_are_trained_for_a_share_of_the_budget(ask: Any) -> None:
    # Seconds for these epochs at 64 px and at the smallest size, of the about 44 s that the run and each fold have.
    large_s, small_s = (seconds_for(transfer.FEW_EPOCHS, size) * 42 / 40 for size in (64, 28))
    chosen = []
    for speed in (1e12, 1e9 * large_s / 50, 1e9 * small_s / 60):
        _, plan = dry_run(ask(train__budget_s=240.0), ignore, instruments=machine(speed))
        chosen.append((plan.config.data.img_size[0], plan.config.train.epochs))
    assert chosen[0] == (64, transfer.FEW_EPOCHS)
    assert 28 <= chosen[1][0] < 64
    assert chosen[1][1] == transfer.FEW_EPOCHS
    assert chosen[2][1] > transfer.FEW_EPOCHS  # no time for folds: all of it is for the run
    _, plan = dry_run(ask(train__budget_s=240.0, train__epochs=3.0), ignore, instruments=machine(1e12))
    assert plan.config.train.epochs == 3


def test_size_of_the_user_is_kept(ask: Any) -> None:
    _, plan = dry_run(ask(train__budget_s=60.0, data__img_size=(80, 80)), ignore, instruments=machine(1e6))
    assert (plan.config.data.img_size, plan.config.train.freeze_blocks) == ((80, 80), 0)


@pytest.mark.parametrize("keys", [
    {}, {"train__budget_s": 20.0}, {"data__val_ratio": 0.0}, {"train__lora_rank": 2},
    {"train__freeze": "backbone", "train__head_init": "fitted"},
])  # fmt: skip
def test_without_epochs_the_fitted_head_is_the_model(ask: Any, keys: dict[str, Any]) -> None:
    folder: RunFolder = run_training(ask(train__epochs=0.0, data__img_size=(28, 28), **keys))
    records = list(read_records(folder.records))
    (head,) = [record for record in records if record["kind"] == "first_model"]
    end = records[-1]
    assert (end["kind"], end["step"], end["weights"]) == ("end", 0, "first")
    assert end["metrics"]["test"]["accuracy"] > 0.9
    model = load_model(folder.model)
    assert (model.config.depth, model.config.pool) == (head["depth"], head["pool"])


def test_no_epochs_are_refused_without_a_head_that_is_fitted(ask: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs=0: takes no step, .*; set both, or use more epochs"):
        dry_run(ask(train__epochs=0.0, train__head_init="zero"), ignore)


def test_new_head_is_fitted_before_the_first_step(ask: Any) -> None:
    folder: RunFolder = run_training(ask(train__epochs=1.0, data__img_size=(28, 28)))
    records = list(read_records(folder.records))
    (head,) = [record for record in records if record["kind"] == "first_model"]
    first = next(record for record in records if record["kind"] == "step")
    assert head["cross_validated"]["num_images"] == 42
    assert head["cross_validated"]["accuracy"] > 0.9  # the classes differ in color, which random weights preserve
    assert first["loss"] < 0.5


def test_distillation_token_has_no_fitted_head() -> None:
    with pytest.raises(ConfigError, match=r"train\.head_init=fitted: .*; use train\.head_init=zero"):
        dry_run(
            TrainRequest(
                data="digits", values={"model.distill_token": True, "model.pool": "token", "train.head_init": "fitted"}
            )
        )
