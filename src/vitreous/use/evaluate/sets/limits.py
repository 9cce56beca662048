"""Held-out images -> limits: which classes are in the set of an image, and which predictions are too uncertain."""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitreous.errors import ConfigError
from vitreous.use.evaluate.calibration import Values
from vitreous.wording import listed, plural, shortened

Kind = Literal["lac", "aps", "raps", "lac-per-class", "aps-per-class", "raps-per-class"]
PER_CLASS = "-per-class"
Numbers = NDArray[np.int64]
_DOUBT = 0.05
_PENALTY, _UNPENALIZED = 0.01, 5
"""What RAPS adds per class, from the sixth most probable one on: the values in the README of its authors' code."""


def nonconformity(probabilities: Values, kind: str, share: float | Values = 0.0) -> Values:
    """Return how badly each class fits each image, `[n, classes]`; a set consists of the classes that fit best.

    For `lac` it is 1 - probability; for `aps` the probability of all classes that are more probable, plus a `share` of
    the class's own; `raps` adds a penalty from the sixth class on. Ties get the same score. Random shares `[n, 1]` in
    [0, 1] make the coverage of `aps` and `raps` exact. With 0 it may be higher, but an image always gets the same set,
    and the most probable class has the score 0, also if its probability is 1. With 1, an image with such a probability
    that is wrong puts all classes into all sets.

    Source: Sadinle, Lei & Wasserman 2019 (1609.00451), Romano, Sesia & Candès 2020 (2006.02544), Angelopoulos et al.
    2021 (2009.14193). We do not tune the penalty of RAPS, because that takes images of its own.
    """
    if kind.startswith("lac"):
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked, scores = np.take_along_axis(probabilities, order, axis=1), np.empty(probabilities.shape)
    above = np.cumsum(ranked, axis=1) - ranked
    if kind.startswith("raps"):
        above += _PENALTY * np.maximum(np.arange(1, above.shape[1] + 1) - _UNPENALIZED, 0)
    above[:, 1:][ranked[:, 1:] == ranked[:, :-1]] = 0.0  # a tie: the maximum below is that of the class before
    np.put_along_axis(scores, order, np.maximum.accumulate(above, axis=1), axis=1)
    return scores + share * probabilities


def fit_limits(kind: str, coverage: float, scores: Values, true: Numbers, classes: Sequence[str]) -> Values:
    """Return the limit of each class, `[classes]`, such that sets of new images contain their class with this coverage.

    The scores `[n, classes]` and true classes `[n]` must be those of images that the model was not trained on and that
    are drawn like the new ones. With `-per-class`, the coverage holds for each class, not just for all images.

    Raises:
        ConfigError: There are too few images, or too few of a class.

    Source: split conformal prediction, Vovk 2012 (1209.2673).
    """
    own, needed = scores[np.arange(len(true)), true], math.ceil(_exact(coverage) / (1 - _exact(coverage)))
    if len(own) < needed:
        missing, most = f"{needed - len(own):,} more than there are", 1000 * len(own) // (len(own) + 1) / 1000
        raise ConfigError(
            f"coverage={coverage}: needs {plural(needed, 'held-out image')}, {missing}; use at most {most:g}"
        )
    groups, score = [own], kind.removesuffix(PER_CLASS)
    if kind != score:
        counts = np.bincount(true, minlength=len(classes))
        few = [f"{needed - n:,} of {shortened(name)}" for name, n in zip(classes, counts, strict=True) if n < needed]
        if few:
            raise ConfigError(
                f"sets={kind}: coverage {coverage} needs {plural(needed, 'held-out image')} of each class; missing: "
                f"{listed(few, 8)}; use {score}, or a lower coverage"
            )
        groups = np.split(own[np.argsort(true, kind="stable")], np.cumsum(counts)[:-1])
    return np.broadcast_to([np.sort(group)[_rank(len(group), coverage) - 1] for group in groups], len(classes))


def contained(scores: Values, limits: Values) -> NDArray[np.bool_]:
    """Return which classes are in the set of each image, `[n, classes]`; the most probable one always is."""
    inside = scores <= limits
    inside[np.arange(len(scores)), scores.argmin(axis=1)] = True
    return inside


def by_chance(coverage: float, num_calibration: Numbers, num_test: Numbers) -> tuple[float, float]:
    """Return where the measured coverage of an exact method lies in 90% of cases; each of the `[groups]` has a limit.

    Source: Vovk 2012 (1209.2673), proposition 2a: the coverage of a limit follows a beta distribution.
    """
    from scipy.signal import convolve
    from scipy.stats import betabinom

    counts = zip(num_calibration.tolist(), num_test.tolist(), strict=True)
    chances = [betabinom.pmf(np.arange(n + 1), n, _rank(m, coverage), m + 1 - _rank(m, coverage)) for m, n in counts]
    low, high = np.searchsorted(np.cumsum(reduce(convolve, chances)), (0.05, 0.95)) / num_test.sum()
    return float(low), float(high)


def least_confidence(confidence: Values, is_correct: Values, accuracy: float) -> float | None:
    """Return a confidence above which new predictions have this accuracy, in (0, 1); None if that is not guaranteed.

    The guarantee holds with a probability of 95% over the choice of these images, `[n]`, which the model must not have
    been trained on. More and more of the most confident predictions are tested, until a binomial test leaves doubt.
    Their numbers are fixed in advance, so 95% holds for all tests together. The first one has enough images to pass
    with half of the allowed mistakes, or else half of the images.

    Source: fixed-sequence testing, as in Learn then Test, Angelopoulos et al. 2021 (2110.01052). It assumes that kept
    predictions are not less accurate if the limit is higher.
    """
    from scipy.stats import binom

    num, fewest = len(confidence), math.ceil(math.log(_DOUBT) / math.log(accuracy))  # if all are correct
    if num < fewest:
        return None
    order = np.argsort(-confidence, kind="stable")
    ranked, right = confidence[order], np.cumsum(is_correct[order])
    counts = np.array([*range(min(4 * fewest, max(fewest, num // 2)), num, max(1, num // 50)), num])
    counts = np.unique(np.searchsorted(-ranked, -ranked[counts - 1], side="right"))  # ties stay together
    passed = np.cumprod(binom.sf(right[counts - 1] - 1, counts, accuracy) <= _DOUBT)
    last = int((counts * passed).max())
    return None if not last else float(ranked[last]) if last < num else 0.0


def _rank(num_images: int, coverage: float) -> int:
    return math.ceil((num_images + 1) * _exact(coverage))  # position of the limit among sorted scores, from 1


def _exact(coverage: float) -> Fraction:
    return Fraction(str(float(coverage)))  # as it is written: as floats, 100 * 0.07 is more than 7
