"""What the user sets constrains the plan: every key on every kind of data set, and pairs that depend on each other."""

import re
from collections.abc import Callable, Iterator
from itertools import combinations, product
from typing import Any

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe import keys
from vitreous.recipe.pace import Pace
from vitreous.recipe.plan import ASKED, Choice, Plan
from vitreous.recipe.planner import make_plan
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.without_labels import WITHOUT_LABELS

Facts = Callable[..., DataFacts]
KINDS: dict[str, dict[str, Any]] = {
    "gray 28 px": {"num_train": 60_000, "height_px": 28, "width_px": 28, "in_chans": 1},
    "color 32 px": {"num_train": 50_000, "height_px": 32, "width_px": 32},
    "photos 96 px": {"num_train": 3_000, "height_px": 96, "width_px": 96},
    "photos 224 px": {"num_train": 900, "height_px": 224, "width_px": 224},
    "tiny images": {"num_train": 1_400, "height_px": 8, "width_px": 12, "in_chans": 1},
    "odd images": {"num_train": 200, "height_px": 9, "width_px": 13},
    "prime sides": {"num_train": 200, "height_px": 223, "width_px": 67},
    "long images": {"num_train": 200, "height_px": 40, "width_px": 300},
    "tiny set": {"num_train": 12, "height_px": 61, "width_px": 53},
}
CASES = [
    *product(KINDS, [None]),
    *product(["gray 28 px"], ["deit3", "big-vision-s16"]),
    ("photos 224 px", "small-images"),
    ("prime sides", "digits"),
]
"""Kinds of data, and recipes that the user may name for them."""
SIZES = [(8, 8), (28, 28), (32, 32), (96, 96), (222, 222), (224, 224), (100, 60), (48, 64), (7, 7), (13, 17)]
SAMPLES: dict[str, list[Any]] = {
    "train.epochs": [0.05, 0.5, 1.0, 3.0, 10.0],  # 0 needs pretrained weights
    "data.img_size": SIZES,
    "data.in_chans": [1, 3],
    "model.patch_size": [1, 2, 3, 4, 5, 7, 8, 14, 16, 32],
    "model.embed_dim": [8, 30, 96, 97, 100, 384],
    "model.depth": [1, 5, 13],
    "model.num_heads": [1, 2, 3, 5, 7, 16],
    "model.head_dim": [1, 8, 12, 64],
    "model.num_registers": [0, 3],
    "model.mlp_ratio": [0.1, 2.0],
    "train.start_img_size": [(8, 8), (14, 14), (16, 16), (20, 30), (64, 64), (100, 100)],
    "train.freeze_blocks": [0, 2, 9],
    "train.lora_rank": [0, 4],
    "data.batch_size": [1, 2, 64, 5_000],
    "data.repeats": [1, 3, 100],
    "data.mean": [(0.5,), (0.5, 0.4, 0.3)],
    "optim.warmup_ratio": [0.0, 0.5, 0.95],
    "optim.cooldown_ratio": [0.1, 0.95],
    "objective.bce_threshold": [0.2],
    "objective.logit_adjustment": [1.0],
}
"""Values of keys that are not a choice among names, besides the limits of their range."""
TOGETHER = {
    "data.mean": {"data.std": (0.2,)},
    "objective.distill": {"objective.teacher": "/runs/big"},
    **{f"objective.{key}": {"train.pretrain_ratio": 0.5} for key in WITHOUT_LABELS},
}
"""Keys that are refused without another one."""
DECIDED_BY_DATA = ("data.num_classes", "data.num_folds", "data.fold", "data.sampler", "data.task", "objective.loss")
DEPENDENT = (
    ("data.img_size", "model.patch_size", "model.stem", "train.start_img_size"),
    ("model.embed_dim", "model.num_heads", "model.head_dim", "model.rotary", "model.position", "model.pool"),
    ("model.pool", "model.class_token", "model.distill_token", "objective.distill"),
    ("data.batch_size", "data.repeats"),
    ("optim.schedule", "optim.warmup_ratio", "optim.cooldown_ratio"),
    ("objective.loss", "objective.bce_threshold", "objective.logit_adjustment"),
    ("objective.distill", "objective.teacher_views", "objective.bce_threshold", "train.budget_s"),
    ("train.freeze", "train.freeze_blocks", "train.lora_rank", "model.depth"),
    ("optim.name", "train.parallel", "train.compile"),
)
"""Keys that rule out values of one another."""


def values_of(key: str) -> list[Any]:
    rule = keys.rules()[key]
    if key in SAMPLES:
        return SAMPLES[key]
    if rule.choices:
        return list(rule.choices)
    if rule.kind is bool:
        return [True, False]
    inside = [rule.kind(number) for number in (0, 0.05, 0.5, 1, 3, 10) if rule.allows(rule.kind(number))]
    return inside if rule.kind in (int, float) and not rule.length else []


def plan_for(facts: DataFacts, asked: dict[str, Any], recipe: str | None = None) -> Plan:
    values = keys.checked({**asked, **{k: v for key in asked for k, v in TOGETHER.get(key, {}).items()}})
    if "data.mean" in asked:
        values["data.std"] = (0.2,) * len(asked["data.mean"])
    given = [Choice("data.source", "/photos", "the data"), Choice("data.test_ratio", 0.2, "held out")]
    pace = Pace(((0.0, 1.0, 0.5),))
    return make_plan(facts, given, recipe=recipe, asked=values, measure=lambda _: pace, memory=small_machine)


def small_machine(config: RunConfig) -> float:
    return 0.1


def advised(message: str, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the user sets after following each concrete piece of advice."""
    key, way_out = message.partition("=")[0], message.partition("; ")[2]
    options = re.match(r"use ([\dx., =a-z_or]+?\d)(?:,? or [a-z].*| or more.*)?$", way_out)
    for option in re.split(r", | or ", options[1]) if options else ():
        name, equals, value = option.rpartition("=")
        yield asked | {name if equals else key: value}


def check(facts: DataFacts, asked: dict[str, Any], recipe: str | None = None) -> str:
    """Check that these keys give a plan that keeps them, or an error whose advice works; return the error."""
    try:
        plan = plan_for(facts, asked, recipe)
    except ConfigError as error:
        message = str(error)
    else:
        config = keys.take_apart(plan.config)
        assert {key: config[key] for key in asked} == keys.checked(asked)
        assert all(choice.reason == ASKED for choice in plan.choices if choice.key in asked)
        return ""
    blamed = set(re.findall(r"((?:data|model|objective|optim|train)\.\w+)=", message.partition("; ")[0]))
    assert blamed, message
    assert blamed <= {*asked, *(k for key in asked for k in TOGETHER.get(key, ()))}, message
    for followed in advised(message, asked):
        plan_for(facts, followed, recipe)
    return message


@pytest.mark.parametrize(("kind", "recipe"), CASES)
def test_every_value_of_every_key_gets_a_plan_on_every_kind_of_data(
    make_facts: Facts, kind: str, recipe: str | None
) -> None:
    facts = make_facts(**KINDS[kind])
    refused = {}
    for key in keys.rules():
        if key not in DECIDED_BY_DATA:
            for value in values_of(key):
                if message := check(facts, {key: value}, recipe):
                    refused[f"{key}={value}"] = message
    assert not refused


@pytest.mark.parametrize("kind", ["gray 28 px", "photos 224 px", "odd images"])
@pytest.mark.parametrize("group", DEPENDENT, ids=lambda group: group[0])
def test_keys_that_depend_on_each_other_get_a_plan_or_useful_advice(
    make_facts: Facts, kind: str, group: tuple[str, ...]
) -> None:
    facts = make_facts(**KINDS[kind])
    for pair in combinations(group, 2):
        for values in product(*map(values_of, pair)):
            budget = {"train.budget_s": 60.0} if kind == "gray 28 px" else {}
            check(facts, {**dict(zip(pair, values, strict=True)), **budget})
