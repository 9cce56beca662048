from collections.abc import Callable

import pytest

from vitreous.data.survey.facts import DataFacts
from vitreous.recipe.pace import EVALUATION_MARGIN, OUTSIDE_S, TimeLimit, time_limit


def test_reserve_covers_evaluation_of_weights_and_average_on_validation_and_of_one_on_test(
    make_facts: Callable[..., DataFacts],
) -> None:
    limit = time_limit(600.0, make_facts(num_val=30, num_test=50), evaluation_images_per_s=10.0)
    assert limit.limit_s == 600.0
    assert limit.reserve_s == pytest.approx(OUTSIDE_S + EVALUATION_MARGIN * (2 * 30 + 50) / 10)


def test_time_for_training_is_what_the_reserve_and_the_elapsed_time_leave() -> None:
    limit = TimeLimit(limit_s=100.0, reserve_s=15.0)
    assert limit.training_s() == 85.0
    assert limit.training_s(elapsed_s=60.0) == 25.0
    assert limit.training_s(elapsed_s=90.0) == 0.0
