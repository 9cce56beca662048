from collections.abc import Callable

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.pace import EVALUATION_MARGIN, OUTSIDE_S, TimeLimit, time_limit


def test_reserve_covers_evaluation_of_weights_and_average_on_validation_and_of_one_on_test(
    make_facts: Callable[..., DataFacts],
) -> None:
    limit = time_limit(600.0, make_facts(num_val=18, num_test=50), evaluation_images_per_s=10.0)
    assert limit.limit_s == 600.0
    assert limit.reserve_s == pytest.approx(OUTSIDE_S + EVALUATION_MARGIN * (2 * 18 + 50) / 10)
    assert limit.familiar_share == 0.0


def test_reserve_covers_the_images_that_show_what_is_familiar(make_facts: Callable[..., DataFacts]) -> None:
    facts = make_facts(num_train=5_000, num_val=30, num_test=700)
    limit = time_limit(600.0, facts, evaluation_images_per_s=1_000.0)
    evaluated, familiar = 2 * 30 + 700, 2_000 + 30 + 500 + 400
    assert limit.reserve_s == pytest.approx(OUTSIDE_S + EVALUATION_MARGIN * (evaluated + familiar) / 1_000)
    assert limit.familiar_share == 1.0


def test_what_is_familiar_takes_at_most_a_share_of_the_budget(make_facts: Callable[..., DataFacts]) -> None:
    facts = make_facts(num_train=5_000, num_val=300, num_test=0)
    limit = time_limit(600.0, facts, evaluation_images_per_s=100.0)
    assert limit.reserve_s == pytest.approx(OUTSIDE_S + EVALUATION_MARGIN * 2 * 300 / 100 + 0.015 * 600)
    assert limit.familiar_share == pytest.approx(0.015 * 600 * 100 / EVALUATION_MARGIN / (2_000 + 300 + 400))


def test_with_several_processes_it_takes_longer_because_one_of_them_does_it(
    make_facts: Callable[..., DataFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = make_facts(num_train=1_000, num_val=50, num_test=0)
    one = time_limit(600.0, facts, evaluation_images_per_s=1_000.0).reserve_s
    monkeypatch.setattr("vitreous.processes.count", lambda: 4)
    four = time_limit(600.0, facts, evaluation_images_per_s=1_000.0).reserve_s
    assert four - one == pytest.approx(3 * EVALUATION_MARGIN * (1_000 + 50 + 400) / 1_000)


def test_time_for_training_is_what_the_reserve_and_the_elapsed_time_leave() -> None:
    limit = TimeLimit(limit_s=100.0, reserve_s=15.0)
    assert limit.training_s() == 85.0
    assert limit.training_s(elapsed_s=60.0) == 25.0
    assert limit.training_s(elapsed_s=90.0) == 0.0
