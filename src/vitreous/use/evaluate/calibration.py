"""Probabilities, true classes -> how far they can be trusted: proper scores, calibration error, reliability curve."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

NUM_BINS = 15
_NUM_SIMULATED = 1_000


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """How often predictions of each confidence are correct.

    Attributes:
        confidence: Probabilities of the predicted class in ascending order, `[n]`.
        accuracy: Share of correct predictions at that confidence, `[n]`; it never falls.
        low: Lower end of the band in which 95% of the curves of a perfectly calibrated model lie, `[n]`.
        high: Upper end.

    Source:
        CORP: Dimitriadis, Gneiting & Jordan 2021 (2008.03033): isotonic regression replaces bins, whose number would
        have to be chosen. The consistency band is theirs too, point by point.
    """

    confidence: Values
    accuracy: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of a model can be trusted, judged by its predicted classes.

    Attributes:
        nll: Mean negative log-likelihood of the true class; NaN if only the confidence is known.
        brier: Brier score of all classes, from 0 to 2; NaN for the same reason.
        miscalibration: Part of the Brier score of the confidence that calibration would remove.
        discrimination: Part that the differences in confidence between correct and wrong predictions remove.
        uncertainty: Brier score of the overall accuracy as a confidence for every image. The Brier score of the
            confidence is miscalibration - discrimination + uncertainty.
        confidence: Mean probability of the predicted class.
        ece: Expected calibration error: mean difference between confidence and accuracy over `NUM_BINS` bins of equal
            width.
        ece_of_calibrated: What a perfectly calibrated model with the same confidences would get on this number of
            images, because chance moves the accuracy of a bin.
        ece_limit: What it would exceed in 5% of the cases.

    Source:
        Guo et al. 2017 (1706.04599) for the error and its bins, which Nixon et al. 2019 (1904.01685) show to be biased
        upward for few images; hence the comparison. CORP decomposition: Dimitriadis et al. 2021 (2008.03033).
    """

    nll: float
    brier: float
    miscalibration: float
    discrimination: float
    uncertainty: float
    confidence: float
    ece: float
    ece_of_calibrated: float
    ece_limit: float

    @property
    def sentence(self) -> str:
        """The result in words."""
        error = f"calibration error (ECE) {self.ece:.1%}"
        usual = f"a perfectly calibrated model would get about {self.ece_of_calibrated:.1%} on these images"
        if self.ece <= self.ece_limit:
            return f"{error}; {usual}, so no miscalibration is found"
        return f"{error}; {usual}, at most {self.ece_limit:.1%} in 95% of cases, so the probabilities are off"

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON; None for those that are not known."""
        return {key: None if value != value else value for key, value in vars(self).items()}


def measure_calibration(probabilities: Values, true: NDArray[np.int64]) -> Calibration:
    """Measure how well probabilities, `[n, classes]` with rows that sum to 1, fit the true class numbers, `[n]`."""
    of_true = probabilities[np.arange(len(true)), true]
    return replace(
        judge_confidence(*top_label(probabilities, true)),
        nll=float(-np.log(np.maximum(of_true, np.finfo(np.float64).tiny)).mean()),
        brier=float(np.mean((probabilities**2).sum(axis=1) - 2 * of_true + 1)),
    )


def judge_confidence(confidence: Values, is_correct: Values) -> Calibration:
    """Measure how well the probabilities of the predicted classes, `[n]`, fit the correct ones, `[n]`: 1 or 0."""
    recalibrated, accuracy = fit_reliability(confidence, is_correct), is_correct.mean()
    of_confidence, of_recalibrated, of_accuracy = (
        float(np.mean((values - is_correct) ** 2)) for values in (confidence, recalibrated, accuracy)
    )
    simulated = np.array([calibration_error(confidence, drawn) for drawn in _simulate(confidence)])
    return Calibration(
        nll=np.nan,
        brier=np.nan,
        miscalibration=of_confidence - of_recalibrated,
        discrimination=of_accuracy - of_recalibrated,
        uncertainty=of_accuracy,
        confidence=float(confidence.mean()),
        ece=calibration_error(confidence, is_correct),
        ece_of_calibrated=float(simulated.mean()),
        ece_limit=float(np.quantile(simulated, 0.95)),
    )


def top_label(probabilities: Values, true: NDArray[np.int64]) -> tuple[Values, Values]:
    """Return the probability of each predicted class, `[n]`, and 1 where it is the true class, `[n]`."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(true)), predicted]
    return np.minimum(confidence, 1.0), (predicted == true).astype(np.float64)


def top_k_accuracy(probabilities: Values, true: NDArray[np.int64], k: int) -> float:
    """Return the share of images whose class is among the k most probable ones; a tie counts as a miss."""
    of_true = probabilities[np.arange(len(true)), true]
    return float(np.mean((probabilities >= of_true[:, None]).sum(axis=1) <= k))


def calibration_error(confidence: Values, is_correct: Values) -> float:
    """Return the expected calibration error, with bins of equal width that include their upper end.

    Those of torchmetrics include their lower end, and a confidence of exactly 1 gets a bin of its own above the last
    one. Its error is larger if lower confidences of the last bin err in the other direction.
    """
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    differences = np.bincount(bins, confidence - is_correct)
    return float(np.abs(differences).sum() / len(confidence))


def fit_reliability(confidence: Values, is_correct: Values) -> Values:
    """Return the share of correct predictions at each confidence, `[n]`, by isotonic regression."""
    from sklearn.isotonic import isotonic_regression

    _, place, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    return isotonic_regression(np.bincount(place, is_correct) / counts, sample_weight=counts)[place]


def reliability_curve(probabilities: Values, true: NDArray[np.int64]) -> ReliabilityCurve:
    """Return the reliability curve of the predicted classes; the arguments are those of `measure_calibration`."""
    confidence, is_correct = top_label(probabilities, true)
    order = np.argsort(confidence, kind="stable")
    confidence, is_correct = confidence[order], is_correct[order]
    simulated = np.stack([fit_reliability(confidence, drawn) for drawn in _simulate(confidence)])
    low, high = np.quantile(simulated, (0.025, 0.975), axis=0)
    return ReliabilityCurve(confidence, fit_reliability(confidence, is_correct), low, high)


def _simulate(confidence: Values) -> Iterator[Values]:
    """Yield several times which predictions of a perfectly calibrated model are correct, `[n]`."""
    generator = np.random.default_rng(0)
    for _ in range(max(100, min(_NUM_SIMULATED, 20_000_000 // len(confidence)))):
        yield (generator.random(len(confidence), dtype=np.float32) < confidence).astype(np.float64)
