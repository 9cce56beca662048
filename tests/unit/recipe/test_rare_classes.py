"""The plan reacts to very uneven classes, says how, and leaves all other plans as they are."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.recipe.test_planner import plan_for, reason_of

from vitreous.data.survey.facts import DataFacts

Facts = Callable[..., DataFacts]


def _uneven(make_facts: Facts, *counts: int) -> DataFacts:
    return make_facts(sum(counts), classes=("ant", "bee", "cat")[: len(counts)], class_counts=counts)


def test_very_uneven_classes_are_shown_equally_often(make_facts: Facts) -> None:
    plan = plan_for(_uneven(make_facts, 500, 15))
    assert plan.config.data.sampler == "balanced"
    assert reason_of(plan, "data.sampler").startswith("the largest class has 33 times the training images of the ")
    assert "| `data.sampler` | balanced | the largest class has 33 times" in plan.as_markdown(())


@pytest.mark.parametrize("counts", [(500, 500), (500, 51), (500, 300, 51)])
def test_balanced_and_moderately_uneven_classes_keep_their_plan(make_facts: Facts, counts: tuple[int, ...]) -> None:
    plan = plan_for(_uneven(make_facts, *counts))
    assert plan.config.data.sampler == "shuffle"
    assert "data.sampler" not in {choice.key for choice in plan.choices}


@pytest.mark.parametrize(
    ("asked", "sampler"),
    [
        ({"data.sampler": "shuffle"}, "shuffle"),
        ({"objective.class_weights": "balanced"}, "shuffle"),
        ({"objective.logit_adjustment": 0.5}, "shuffle"),
        ({"objective.loss": "bce"}, "balanced"),
    ],
)
def test_reaction_of_the_user_is_not_supplemented(make_facts: Facts, asked: dict[str, Any], sampler: str) -> None:
    plan = plan_for(_uneven(make_facts, 700, 20, 60), asked)
    assert plan.config.data.sampler == sampler
    assert all(getattr(plan.config, key.split(".")[0]).__dict__[key.split(".")[1]] == asked[key] for key in asked)


def test_class_without_images_does_not_count_as_rare(make_facts: Facts) -> None:
    assert plan_for(_uneven(make_facts, 400, 0, 300)).config.data.sampler == "shuffle"


def test_logit_adjustment_turns_label_smoothing_off_unless_the_user_sets_it(make_facts: Facts) -> None:
    facts = _uneven(make_facts, 500, 15)
    assert plan_for(facts, {"objective.logit_adjustment": 1.0}).config.objective.label_smoothing == 0
    both = plan_for(facts, {"objective.logit_adjustment": 1.0, "objective.label_smoothing": 0.2})
    assert both.config.objective.label_smoothing == 0.2
    assert any("with objective.label_smoothing=0.2: smoothed labels become a preference" in note for note in both.notes)
    even = plan_for(make_facts(900), {"objective.logit_adjustment": 1.0})
    assert even.config.objective.label_smoothing == plan_for(make_facts(900)).config.objective.label_smoothing > 0
