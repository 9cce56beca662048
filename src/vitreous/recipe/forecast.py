"""Accuracy of a run with a time budget -> the accuracy to expect from a longer one on the same data and machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any, NamedTuple

from vitreous.recipe.pace import OUTSIDE_S
from vitreous.recipe.run_config import RunConfig
from vitreous.recipe.shipped.from_scratch import BY_SIZE


class Law(NamedTuple):
    """The share of mistakes falls as time**-exponent: its mean over data sets, their standard deviation and number."""

    exponent: float
    spread: float
    num_data_sets: int


LAW = Law(0.197, 0.094, 8)
"""Measured by `benchmarks/forecast.py`."""
FARTHEST = 20.0
"""Factor of training time up to which this was measured."""
COVERAGE = 0.8
"""Share of data sets for which the interval of a forecast should contain the accuracy."""
FEWEST_EPOCHS = 1.0
"""Runs that have not seen every image learn faster, so they predict nothing."""
_FULL = 0.98
"""Share of the allowed epochs from which on a run has ended because of them, so that more time changes nothing."""


@dataclass(frozen=True)
class Forecast:
    """Expected accuracy of a run with a longer time budget.

    Attributes:
        budget_s: The budget in seconds.
        accuracy: Expected accuracy, in [0, 1].
        interval: Bounds that contain the accuracy for `COVERAGE` of data sets.
        is_extrapolated: The budget is longer than what was measured, relative to that of the run.
    """

    budget_s: float
    accuracy: float
    interval: tuple[float, float]
    is_extrapolated: bool

    @property
    def text(self) -> str:
        """The accuracy with its interval, and a warning if it is extrapolated."""
        low, high = self.interval
        warning = f", a guess: more than {FARTHEST:g} times as long was not measured" if self.is_extrapolated else ""
        return f"about {self.accuracy:.1%} ({low:.1%} to {high:.1%} on {COVERAGE:.0%} of data sets{warning})"


def forecast(num_correct: int, num_images: int, budget_s: float, longer_s: float, law: Law = LAW) -> Forecast:
    """Predict the accuracy after `longer_s` seconds from the correct answers of a run with a budget of `budget_s`.

    The logarithm of the share of mistakes falls in proportion to the logarithm of the training time. Its variance is
    that of the counted mistakes, and of the exponent between data sets.
    """
    from scipy.special import stdtrit  # slow to import

    factor = training_factor(budget_s, longer_s)
    mistakes, counted = log_mistakes(num_correct, num_images)
    between = (law.spread * log(factor)) ** 2 * (1 + 1 / law.num_data_sets)
    half = float(stdtrit(law.num_data_sets - 1, (1 + COVERAGE) / 2)) * sqrt(counted + between)
    expected = mistakes - law.exponent * log(factor)
    low, middle, high = (1 - exp(min(expected + shift, 0.0)) for shift in (half, 0.0, -half))
    return Forecast(longer_s, middle, (low, high), factor > FARTHEST)


def training_factor(budget_s: float, longer_s: float) -> float:
    """Return how much more training time the longer budget has."""
    return (longer_s - OUTSIDE_S) / (budget_s - OUTSIDE_S)


def log_mistakes(num_correct: int, num_images: int) -> tuple[float, float]:
    """Return the logarithm of the share of mistakes, and its variance from counting them on few images."""
    num_wrong = num_images - num_correct + 0.5  # a run without mistakes would predict none for ever
    return log(num_wrong / (num_images + 1)), 1 / num_wrong - 1 / (num_images + 1)


def forecast_of(config: RunConfig, epochs: float, found: Mapping[str, Any], longer_s: float) -> Forecast | None:
    """Return the forecast for a finished run; None for runs that it does not apply to.

    It applies to runs from scratch that have seen every image, that the budget has ended, and that are better than
    always predicting the largest class.

    Args:
        config: Configuration of the run.
        epochs: Passes over the training images that it has made.
        found: Its scores on the held-out images.
        longer_s: The longer budget in seconds.
    """
    train = config.train
    is_limited = train.budget_s > OUTSIDE_S and FEWEST_EPOCHS <= epochs < _FULL * train.epochs
    is_from_scratch = train.pretrained is None and config.recipe in BY_SIZE
    if not (is_limited and is_from_scratch and "majority_share" in found) or longer_s <= train.budget_s:
        return None
    if found["accuracy"] <= found["majority_share"]:
        return None
    return forecast(found["num_correct"], found["num_images"], train.budget_s, longer_s)
