"""What losses, weights of classes and teachers do to a run, told before it begins."""

from collections.abc import Callable
from typing import Any

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError
from vitreous.recipe import keys
from vitreous.recipe.check import consequences
from vitreous.recipe.run_config import RunConfig

Facts = Callable[..., DataFacts]
UNEVEN = (1_000, 290, 10)


def config_with(values: dict[str, Any], **changes: Any) -> RunConfig:
    plain = {
        "data.num_classes": 3, "data.sampler": "shuffle", "data.mix_rate": 0.0, "objective.class_weights": "none",
        "objective.logit_adjustment": 0.0, "objective.loss": "cross_entropy", "objective.bce_threshold": None,
        "objective.teacher": None, "objective.distill": "soft",
    }  # fmt: skip
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return keys.assemble("by-hand", values | plain | changed)


def test_adjusted_logits_of_uneven_classes_say_which_accuracy_suffers(
    make_facts: Facts, values: dict[str, Any]
) -> None:
    config = config_with(values, objective__logit_adjustment=1.5)
    assert list(consequences(config, make_facts(class_counts=UNEVEN))) == [
        "objective.logit_adjustment=1.5: rare classes are called as readily as others; accuracy may fall where images "
        "are as uneven as in training, and the mean accuracy of the classes rises"
    ]


def test_adjusted_logits_of_even_classes_change_nothing(make_facts: Facts, values: dict[str, Any]) -> None:
    config = config_with(values, objective__logit_adjustment=0.5)
    assert list(consequences(config, make_facts(900, num_test=500))) == [
        "objective.logit_adjustment=0.5 changes nothing: all classes have 300 training images"
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"data__sampler": "balanced", "objective__class_weights": "balanced"},
            "data.sampler=balanced and objective.class_weights=balanced both",
        ),
        (
            {"data__sampler": "balanced", "objective__logit_adjustment": 2.0},
            "data.sampler=balanced and objective.logit_adjustment=2 both",
        ),
        (
            {"objective__class_weights": "balanced", "objective__logit_adjustment": 1.0},
            "objective.class_weights=balanced and objective.logit_adjustment=1 both",
        ),
        (
            {"data__sampler": "balanced", "objective__class_weights": "balanced", "objective__logit_adjustment": 1.0},
            "data.sampler=balanced and objective.class_weights=balanced and objective.logit_adjustment=1 all",
        ),
    ],
)
def test_rare_classes_that_are_made_up_for_more_than_once_are_told(
    make_facts: Facts, values: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    first = next(consequences(config_with(values, **changes), make_facts(class_counts=UNEVEN)))
    rest = " make up for rare classes, which then count more than the others; one of them is enough"
    assert first == named + rest


def test_binary_loss_is_told_to_be_no_measure_beside_the_other(make_facts: Facts, values: dict[str, Any]) -> None:
    (sentence,) = consequences(config_with(values, objective__loss="bce"), make_facts())
    assert sentence.startswith("objective.loss=bce: the loss in training is that of a yes or no for each class")


@pytest.mark.parametrize("kind", ["token", "token_soft"])
def test_teacher_that_no_token_hears_is_refused(values: dict[str, Any], kind: str) -> None:
    teacher = {"objective__teacher": "runs/a", "objective__distill": kind, "model__pool": "token"}
    with pytest.raises(ConfigError) as caught:
        config_with(values, **teacher, model__distill_token=False)
    assert str(caught.value) == (
        f"objective.distill={kind}: needs a distillation token; set model.distill_token to true, or use "
        "objective.distill=soft"
    )
    config_with(values, **teacher, model__distill_token=True, model__fc_norm=False)


def test_features_with_holes_are_refused(values: dict[str, Any]) -> None:
    teacher = {"objective__teacher": "runs/a", "objective__distill": "feature"}
    with pytest.raises(ConfigError) as caught:
        config_with(values, **teacher, model__patch_drop_rate=0.25)
    assert str(caught.value) == (
        "objective.distill=feature: compares all patches, but model.patch_drop_rate=0.25 drops some; set it to 0, or "
        "use objective.distill=soft"
    )
    config_with(values, **teacher, model__patch_drop_rate=0.0)
