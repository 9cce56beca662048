from typing import Any

import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.recipe import keys
from vitreous.recipe.run_config import TrainConfig


def test_limits_of_every_range_are_accepted() -> None:
    TrainConfig(epochs=1e-9, budget_s=0, seed=0, checkpoint_every_s=0, max_retries=0)
    TrainConfig(epochs=10_000, budget_s=1e6, seed=2**63, checkpoint_every_s=1e6, max_retries=100)


@pytest.mark.parametrize("epochs", [0, -1.5, float("nan"), float("inf")])
def test_a_run_needs_some_epochs(epochs: float) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(epochs=epochs)
    assert str(caught.value) == f"train.epochs={epochs}: must be above 0 and finite; 20 is a start"


@pytest.mark.parametrize(
    ("key", "got"),
    [
        ("budget_s", -0.5),
        ("budget_s", float("inf")),
        ("checkpoint_every_s", float("nan")),
        ("max_retries", -3),
        ("seed", -7),
        ("freeze_blocks", -1),
        ("lora_rank", -4),
    ],
)
def test_broken_rule_is_told_with_key_and_value(key: str, got: float) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{key: got})
    assert str(caught.value) == f"train.{key}={got}: must be at least 0 and finite; leave it out for the default"


@pytest.mark.parametrize(
    ("key", "got", "rule"),
    [
        ("patch_drop_until", 1.5, "in [0, 1]"),
        ("patience_ratio", -0.1, "in [0, 1]"),
        ("freeze_until", 0.0, "above 0 and at most 1"),
        ("resolution_until", 1.01, "above 0 and at most 1"),
    ],
)
def test_share_of_the_run_is_one(key: str, got: float, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{key: got})  # type: ignore[arg-type]
    expected = f"train.{key}={got}: must be {rule}, a share of the run; leave it out for the default"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"freeze": "backbone", "freeze_blocks": 2},
            "train.freeze_blocks=2: train.freeze=backbone freezes all blocks; leave one out",
        ),
        (
            {"lora_rank": 8, "freeze_blocks": 2},
            "train.lora_rank=8: freezes the backbone itself; leave train.freeze out",
        ),
        ({"lora_alpha": 0.0}, "train.lora_alpha=0.0: must be above 0 and finite; 16 is usual"),
    ],
)
def test_what_is_frozen_is_said_in_one_way(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**values)
    assert str(caught.value) == message


def test_nearest_kernel_is_suggested() -> None:
    with pytest.raises(UnknownNameError, match=r"^train\.attention_kernel=sdpb: no such choice; did you mean sdpa\?"):
        TrainConfig(attention_kernel="sdpb")  # type: ignore[arg-type]


def test_nearest_way_to_freeze_is_suggested() -> None:
    with pytest.raises(UnknownNameError, match=r"^train\.freeze=backbon: no such choice; .*backbone"):
        TrainConfig(freeze="backbon")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train.freeze_blocks": 5},
            "train.freeze_blocks=5: the model has 3 blocks; use fewer, or train.freeze=backbone",
        ),
        (
            {"train.start_img_size": (30, 36)},
            "train.start_img_size=30x36: must be at least model.patch_size=6 and at most data.img_size=24x36; "
            "a half of that is usual",
        ),
        (
            {"train.start_img_size": (12, 20)},
            "train.start_img_size=12x20: is not tiled by model.patch_size=6; use multiples of it",
        ),
        (
            {"train.start_img_size": (12, 18), "model.relative_bias": True},
            "train.start_img_size=12x18: model.relative_bias=True has entries for one grid only; use model.rotary",
        ),
    ],
)
def test_training_fits_the_model(values: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        keys.assemble("made-up", values | changes)
    assert str(caught.value) == message
