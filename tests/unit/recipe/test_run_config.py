from typing import Any

import pytest

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.recipe import keys
from vitreous.recipe.run_config import TrainConfig


def test_limits_of_every_range_are_accepted() -> None:
    TrainConfig(epochs=1e-9, budget_s=0, seed=0, checkpoint_every_s=0, max_retries=0)
    TrainConfig(epochs=10_000, budget_s=1e6, seed=2**63, checkpoint_every_s=1e6, max_retries=100)


@pytest.mark.parametrize("epochs", [-1.5, float("nan"), float("inf")])
def test_epochs_must_not_be_negative(epochs: float) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(epochs=epochs)
    assert str(caught.value) == f"train.epochs={epochs}: must be in [0, inf); 20 is a start"


@pytest.mark.parametrize(
    ("key", "got", "rule"),
    [
        ("budget_s", -0.5, "in [0, inf); the default is 0"),
        ("budget_s", float("inf"), "in [0, inf); the default is 0"),
        ("checkpoint_every_s", float("nan"), "in [0, inf); the default is 60"),
        ("max_retries", -3, "from 0 to 2,147,483,647; the default is 3"),
        ("seed", -7, "from 0 to 18,446,744,073,709,551,615; the default is 0"),
        ("seed", 1.5, "a whole number from 0 to 18,446,744,073,709,551,615; the default is 0"),
        ("freeze_blocks", -1, "from 0 to 2,147,483,647; the default is 0"),
        ("micro_batches", 0, "from 1 to 2,147,483,647; 1 does not split batches"),
        ("lora_rank", -4, "from 0 to 2,147,483,647; 8 is usual, 0 turns LoRA off"),
        ("lora_alpha", 0.0, "in (0, inf); 16 is usual"),
        ("patch_drop_until", 1.5, "in [0, 1]; the default is 1"),
        ("patience_ratio", -0.1, "in [0, 1]; 0 turns early stopping off"),
        ("freeze_until", 0.0, "in (0, 1]; the default is 1"),
        ("resolution_until", 1.01, "in (0, 1]; the default is 0.6"),
        (
            "start_img_size",
            (0, 8),
            "2 whole numbers, each from 1 to 2,147,483,647, or none; half of data.img_size is usual",
        ),
        ("deterministic", 1, "true or false; the default is false"),
    ],
)
def test_invalid_value_is_named_with_its_key_range_and_what_to_do(key: str, got: float, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{key: got})  # type: ignore[arg-type]
    assert str(caught.value) == f"train.{key}={got}: must be {rule}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"freeze": "backbone", "freeze_blocks": 2},
            "train.freeze_blocks=2: train.freeze=backbone freezes all blocks already; leave one of the two out",
        ),
        (
            {"lora_rank": 8, "freeze_blocks": 2},
            "train.lora_rank=8: freezes the backbone already; leave out train.freeze and train.freeze_blocks",
        ),
    ],
)
def test_only_one_way_of_freezing_can_be_chosen(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**values)
    assert str(caught.value) == message


def test_nearest_kernel_is_suggested() -> None:
    with pytest.raises(UnknownNameError) as caught:
        TrainConfig(attention_kernel="sdpb")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "train.attention_kernel=sdpb: must be one of auto, explicit, sdpa, measured; did you mean sdpa?"
    )


def test_nearest_way_to_freeze_is_suggested() -> None:
    with pytest.raises(UnknownNameError) as caught:
        TrainConfig(freeze="backbon")  # type: ignore[arg-type]
    assert str(caught.value) == "train.freeze=backbon: must be one of none, backbone; did you mean backbone?"


@pytest.mark.parametrize(("key", "got"), [("parallel", "dpp"), ("compile", "fast"), ("logger", "wand")])
def test_unknown_choice_is_refused(key: str, got: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"^train\.{key}={got}: must be one of "):
        TrainConfig(**{key: got})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train.freeze_blocks": 5},
            "train.freeze_blocks=5: the model has only 3 blocks; use fewer, or train.freeze=backbone",
        ),
        (
            {"train.start_img_size": (30, 36)},
            "train.start_img_size=30x36: must be at most data.img_size=24x36; half of that is usual",
        ),
        (
            {"train.start_img_size": (12, 20)},
            "train.start_img_size=12x20: is not a multiple of model.patch_size=6; use multiples of it",
        ),
        (
            {"train.start_img_size": (12, 18), "model.relative_bias": True},
            "train.start_img_size=12x18: model.relative_bias=True needs a single image size; use model.rotary instead",
        ),
    ],
)
def test_training_keys_must_fit_the_model(values: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        keys.assemble("made-up", values | changes)
    assert str(caught.value) == message
