"""Scores of images -> means with bootstrap intervals, paired between methods."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vitreous.seeding import derive

NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over images, with the ends of its interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2


def resampled_means(scores: Float[np.ndarray, "images columns"], seed: int = 0) -> NDArray[np.float64]:
    """Return the means over images that are drawn with replacement, `[resamples, columns]`.

    Each resample draws the same images for all columns, so differences between columns are paired.

    Source:
        Efron 1979, Bootstrap methods.
    """
    count, draw = len(scores), np.random.default_rng(derive(seed, "bootstrap"))
    return draw.multinomial(count, np.full(count, 1 / count), NUM_RESAMPLES) @ scores / count


def estimate(
    values: Float[np.ndarray, " images"], means: Float[np.ndarray, " resamples"], comparisons: int = 1
) -> Estimate:
    """Return the mean and its 95% percentile interval; all of several `comparisons` cover with 95% (Bonferroni)."""
    tail = 0.025 / comparisons
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high))
