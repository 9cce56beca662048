"""The accuracy that a longer budget is expected to give: the power law, its interval, and the runs it applies to."""

import numpy as np
import pytest
from scipy import stats

from vitreous.recipe import keys
from vitreous.recipe.forecast import COVERAGE, FARTHEST, LAW, Law, forecast, forecast_of
from vitreous.recipe.pace import OUTSIDE_S
from vitreous.recipe.run_config import RunConfig

FOUND = {"accuracy": 0.8, "num_correct": 800, "num_images": 1_000, "majority_share": 0.1}


def config(recipe: str = "small-images", **train: object) -> RunConfig:
    """Return the configuration of a run from scratch, with a budget of a minute and at most 100 epochs."""
    data = {"data.source": "photos", "data.img_size": (32, 32), "data.in_chans": 3, "data.num_classes": 10}
    model = {"model.depth": 2, "model.embed_dim": 32, "model.num_heads": 2, "model.patch_size": 8}
    values = {f"train.{key}": value for key, value in {"budget_s": 60.0, "epochs": 100.0, **train}.items()}
    return keys.assemble(recipe, {**data, **model, **values})


def test_mistakes_fall_with_the_power_of_the_training_time() -> None:
    found = forecast(80_000, 100_000, 60.0, OUTSIDE_S + 4 * (60.0 - OUTSIDE_S), Law(0.5, 0.1, 10))
    assert found.accuracy == pytest.approx(0.9, abs=1e-4)  # a half of the mistakes in four times the time
    assert not found.is_extrapolated


def test_the_interval_covers_the_share_of_data_sets_that_it_names() -> None:
    rng, law = np.random.default_rng(0), Law(0.3, 0.1, 30)
    within = []
    for _ in range(2_000):
        wrong, exponent = rng.uniform(0.05, 0.4), rng.normal(law.exponent, law.spread)
        counted = rng.binomial(500, wrong)
        found = forecast(500 - counted, 500, 60.0, OUTSIDE_S + 10 * (60.0 - OUTSIDE_S), law)
        within.append(found.interval[0] <= 1 - wrong * 10**-exponent <= found.interval[1])
    low, high = stats.binomtest(sum(within), len(within)).proportion_ci()
    assert low - 0.02 < COVERAGE < high + 0.02


@pytest.mark.parametrize("num_correct", [0, 5, 10])
def test_few_images_and_extreme_accuracies_give_probabilities(num_correct: int) -> None:
    found = forecast(num_correct, 10, 60.0, 600.0)
    assert 0 <= found.interval[0] <= found.accuracy <= found.interval[1] <= 1


def test_budgets_longer_than_measured_are_marked() -> None:
    longer_s = OUTSIDE_S + 1.01 * FARTHEST * (60.0 - OUTSIDE_S)
    found = forecast(800, 1_000, 60.0, longer_s)
    assert found.is_extrapolated
    assert "a guess" in found.text
    assert "a guess" not in forecast(800, 1_000, 60.0, 600.0).text


def test_a_run_from_scratch_that_its_budget_ended_has_a_forecast() -> None:
    found = forecast_of(config(), 5.0, FOUND, 600.0)
    assert found == forecast(800, 1_000, 60.0, 600.0, LAW)


@pytest.mark.parametrize(
    ("of", "epochs", "scores", "longer_s"),
    [
        (config(budget_s=0.0), 5.0, FOUND, 600.0),
        (config(), 100.0, FOUND, 600.0),
        (config(), 0.9, FOUND, 600.0),
        (config(pretrained="weights.safetensors"), 5.0, FOUND, 600.0),
        (config("fine-tune"), 5.0, FOUND, 600.0),
        (config(), 5.0, FOUND | {"accuracy": 0.1}, 600.0),
        (config(), 5.0, {"f1": 0.5}, 600.0),
        (config(), 5.0, FOUND, 60.0),
    ],
)
def test_other_runs_have_none(of: RunConfig, epochs: float, scores: dict, longer_s: float) -> None:
    assert forecast_of(of, epochs, scores, longer_s) is None
