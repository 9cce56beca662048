"""Differences between two models on the same images -> their mean with its interval."""

import numpy as np
from numpy.typing import ArrayLike


def paired_interval(differences: ArrayLike) -> tuple[float, float]:
    """Return the 95% interval of the mean of paired differences, one per image, each in [−1, 1].

    Source: Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", eq. 4. One image that only the first model classifies correctly and one that only the second does are
    added, so the interval does not collapse if the models differ on few images. Their formula covers the differences
    −1, 0 and 1; we also apply it to averages over seeds.
    """
    from scipy.stats import norm

    added = np.append(np.asarray(differences, dtype=np.float64), (1.0, -1.0))
    mean, half_width = float(added.mean()), float(norm.ppf(0.975)) * float(added.std()) / len(added) ** 0.5
    return max(-1.0, mean - half_width), min(1.0, mean + half_width)
