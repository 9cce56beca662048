import pytest

from vitreous.errors import ConfigError
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
    ],
)
def test_broken_rule_is_told_with_key_and_value(key: str, got: float) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{key: got})
    assert str(caught.value) == f"train.{key}={got}: must be at least 0 and finite; leave it out for the default"
