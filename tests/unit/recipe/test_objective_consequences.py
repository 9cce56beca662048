"""Notes and errors on losses, class weights and teachers, before a run starts."""

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
        "objective.logit_adjustment": 0.0, "objective.label_smoothing": 0.0,
        "objective.loss": "cross_entropy", "objective.bce_threshold": None,
        "objective.teacher": None, "objective.distill": "soft",
    }  # fmt: skip
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return keys.assemble("by-hand", values | plain | changed)


def test_logit_adjustment_of_imbalanced_classes_says_which_accuracy_falls(
    make_facts: Facts, values: dict[str, Any]
) -> None:
    config = config_with(values, objective__logit_adjustment=1.5)
    assert list(consequences(config, make_facts(class_counts=UNEVEN))) == [
        "objective.logit_adjustment=1.5: rare classes are predicted as readily as common ones; the mean accuracy per "
        "class rises, and the overall accuracy may fall if the test images are as imbalanced as the training images"
    ]


def test_logit_adjustment_of_balanced_classes_has_no_effect(make_facts: Facts, values: dict[str, Any]) -> None:
    config = config_with(values, objective__logit_adjustment=0.5)
    assert list(consequences(config, make_facts(900, num_test=500))) == [
        "objective.logit_adjustment=0.5 has no effect: every class has 300 training images"
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
            "data.sampler=balanced, objective.class_weights=balanced and objective.logit_adjustment=1 all",
        ),
    ],
)
def test_compensating_more_than_once_for_rare_classes_is_reported(
    make_facts: Facts, values: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    first = next(consequences(config_with(values, **changes), make_facts(class_counts=UNEVEN)))
    rest = " compensate for rare classes, which then outweigh the others; use only one"
    assert first == named + rest


def test_binary_training_loss_is_reported_as_not_comparable_with_the_validation_loss(
    make_facts: Facts, values: dict[str, Any]
) -> None:
    (sentence,) = consequences(config_with(values, objective__loss="bce"), make_facts())
    assert sentence.startswith(
        "objective.loss=bce: the training loss is binary cross-entropy for each class, the validation loss is "
    )


@pytest.mark.parametrize("kind", ["token", "token_soft"])
def test_token_distillation_without_a_distillation_token_is_refused(values: dict[str, Any], kind: str) -> None:
    teacher = {"objective__teacher": "runs/a", "objective__distill": kind, "model__pool": "token"}
    with pytest.raises(ConfigError) as caught:
        config_with(values, **teacher, model__distill_token=False)
    assert str(caught.value) == (
        f"objective.distill={kind}: needs a distillation token and the class token; use objective.distill=soft, or "
        "leave model.distill_token, model.pool and model.class_token out"
    )
    config_with(values, **teacher, model__distill_token=True, model__fc_norm=False)


def test_fixed_teacher_gives_only_probabilities(values: dict[str, Any]) -> None:
    fixed = {"objective__teacher": "runs/a", "objective__teacher_views": "fixed"}
    with pytest.raises(ConfigError) as caught:
        config_with(values, **fixed, objective__distill="hard")
    assert str(caught.value) == (
        "objective.teacher_views=fixed: gives probabilities, but objective.distill=hard learns something else; use "
        "objective.teacher_views=consistent"
    )
    with pytest.raises(ConfigError) as caught:
        config_with(values, **fixed, objective__loss="bce", objective__bce_threshold=0.2)
    assert str(caught.value) == (
        "objective.bce_threshold=0.2: makes targets of small probabilities, which every class gets from "
        "objective.teacher_views=fixed; use objective.teacher_views=consistent"
    )
    config_with(values, **fixed)


def test_feature_distillation_with_dropped_patches_is_refused(values: dict[str, Any]) -> None:
    teacher = {"objective__teacher": "runs/a", "objective__distill": "feature"}
    with pytest.raises(ConfigError) as caught:
        config_with(values, **teacher, model__patch_drop_rate=0.25)
    assert str(caught.value) == (
        "objective.distill=feature: compares all patches, but model.patch_drop_rate=0.25 drops some; set it to 0, or "
        "use objective.distill=soft"
    )
    config_with(values, **teacher, model__patch_drop_rate=0.0)
