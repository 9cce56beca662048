"""Recipes from papers: their hyperparameters are those of the papers and of the authors' commands."""

from collections.abc import Callable
from typing import Any

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe import keys
from vitreous.recipe.pace import Pace
from vitreous.recipe.plan import Choice
from vitreous.recipe.planner import make_plan

Facts = Callable[..., DataFacts]

DEIT = {  # 2012.12877, table 9, DeiT-B's column, which all sizes share
    "train.epochs": 300.0,
    "data.batch_size": 1024,
    "optim.name": "adamw",
    "optim.lr": 0.001,  # 0.0005 · 1024 / 512
    "optim.schedule": "cosine",
    "optim.weight_decay": 0.05,
    "optim.warmup_ratio": pytest.approx(5 / 300),
    "objective.loss": "cross_entropy",
    "objective.label_smoothing": 0.1,
    "model.proj_drop_rate": 0.0,
    "model.drop_path_rate": 0.1,
    "data.repeats": 3,
    "optim.clip_norm": 0.0,
    "data.policy": "randaugment",  # 9/0.5
    "data.policy_num_ops": 2,
    "data.policy_strength": 0.9,
    "data.mixup_alpha": 0.8,
    "data.cutmix_alpha": 1.0,
    "data.erase_rate": 0.25,
    "model.embed_dim": 384,
    "model.depth": 12,
    "model.num_heads": 6,
    "data.img_size": (224, 224),
}
DEIT3 = {  # the command for deit_small_patch16_LS in the authors' README_revenge.md, 8 GPUs of 256 images
    "train.epochs": 800.0,
    "data.batch_size": 2048,
    "optim.name": "lamb",
    "optim.lr": 0.004,
    "optim.weight_decay": 0.05,
    "optim.warmup_ratio": pytest.approx(5 / 800),
    "objective.loss": "bce",
    "objective.label_smoothing": 0.0,
    "data.erase_rate": 0.0,
    "data.mixup_alpha": 0.8,
    "data.cutmix_alpha": 1.0,
    "data.policy": "3-augment",
    "data.color_jitter": 0.3,
    "data.repeats": 3,
    "model.drop_path_rate": 0.05,
    "model.layer_scale": 1e-4,
}
BIG_VISION = {  # big_vision's configs/vit_s16_i1k.py
    "train.epochs": 90.0,
    "data.batch_size": 1024,
    "optim.lr": 0.001,
    "optim.weight_decay": pytest.approx(0.0001 / 0.001),
    "optim.clip_norm": 1.0,
    "optim.warmup_ratio": pytest.approx(10_000 / 111_476, rel=1e-3),  # 90 epochs of 99% of the images
    "data.mixup_alpha": 0.2,
    "data.policy": "randaugment",
    "data.policy_num_ops": 2,
    "data.policy_strength": 1.0,
    "data.min_crop_area": 0.05,
    "model.pool": "mean",
    "model.position": "sincos2d_big_vision",
    "objective.label_smoothing": 0.0,
}


def planned_values(facts: DataFacts, recipe: str, **asked: Any) -> dict[str, Any]:
    given = [Choice("data.source", "/images", "the data"), Choice("data.test_ratio", 0.0, "the data")]
    plan = make_plan(facts, given, recipe=recipe, asked=asked, measure=lambda config: Pace(), memory=lambda config: 0.0)
    return keys.take_apart(plan.config)


@pytest.mark.parametrize(("recipe", "published"), [("deit", DEIT), ("deit3", DEIT3), ("big-vision-s16", BIG_VISION)])
def test_hyperparameters_are_the_published_ones(make_facts: Facts, recipe: str, published: dict[str, Any]) -> None:
    found = planned_values(make_facts(1_281_167, height_px=375, width_px=500), recipe)
    assert {key: found[key] for key in published} == published


def test_short_run_keeps_a_label_smoothing_of_zero(make_facts: Facts) -> None:
    found = planned_values(make_facts(), "deit3", **{"train.epochs": 25.0, "data.batch_size": 32})
    assert (found["objective.label_smoothing"], found["model.drop_path_rate"]) == (0.0, pytest.approx(0.025))


def test_learning_rate_of_deit_scales_with_the_batch_size(make_facts: Facts) -> None:
    assert planned_values(make_facts(), "deit", **{"data.batch_size": 256})["optim.lr"] == pytest.approx(0.00025)


@pytest.mark.parametrize(("width", "heads", "lr", "rate"), [(768, 12, 3e-3, 0.2), (1024, 16, 3e-3, 0.45)])
def test_rates_of_deit3_follow_the_model_size(
    make_facts: Facts, width: int, heads: int, lr: float, rate: float
) -> None:
    found = planned_values(make_facts(), "deit3", **{"model.embed_dim": width, "model.num_heads": heads})
    assert (found["optim.lr"], found["model.drop_path_rate"]) == (lr, rate)


def test_shorter_run_keeps_the_number_of_warm_up_epochs(make_facts: Facts) -> None:
    found = planned_values(make_facts(), "deit", **{"train.epochs": 50.0})
    assert found["optim.warmup_ratio"] == pytest.approx(0.1)
