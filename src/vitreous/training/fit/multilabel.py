"""Logits, sets of labels -> LabelScore: mean average precision with its interval, F1; the threshold of each label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitreous.tensors import Logits, Targets
from vitreous.training.fit.evaluate import Score, score

_MOST_RESAMPLED = 2e8
"""Number of labels of images in all bootstrap samples, which takes some seconds."""
LEAST_FOR_THRESHOLD = 10
"""Number of images with a label below which the label gets the threshold that suits all labels together."""


@dataclass(frozen=True, kw_only=True)
class LabelScore(Score):
    """Scores of a model that predicts any number of labels per image; `num_correct` images have all of them right.

    Attributes:
        mean_average_precision: Average precision, averaged over the labels that occur; no threshold influences it.
        micro_f1: F1 over all decisions; frequent labels count more.
        macro_f1: F1 of each label, averaged over the labels that occur.
        map_interval: 95% interval of the mean average precision; None if there is none.
    """

    mean_average_precision: float
    micro_f1: float
    macro_f1: float
    map_interval: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the score as plain values, for records and model files."""
        names = ("mean_average_precision", "micro_f1", "macro_f1")
        interval = {} if self.map_interval is None else {f"{names[0]}_interval_95": list(self.map_interval)}
        return super().as_dict() | {name: getattr(self, name) for name in names} | interval


def score_task(logits: Logits, labels: Targets, classes: Sequence[str], thresholds: Sequence[float] | None = None,
               temperature: float = 1.0, *, with_interval: bool = False) -> Score:  # fmt: skip
    """Score logits, with a `LabelScore` if images may have several labels.

    A label is predicted from its threshold on, without thresholds from 1/2. The interval of the mean average precision
    takes up to a few seconds.
    """
    found = score(logits, labels, classes)
    if not labels.is_floating_point():
        return found
    probabilities, true = (logits / temperature).sigmoid().numpy(), labels.numpy() > 0.5
    result = score_labels(probabilities, true, found.loss, thresholds)
    return replace(result, map_interval=map_interval(probabilities, true)) if with_interval else result


def score_labels(
    probabilities: NDArray[np.float32], true: NDArray[np.bool_], loss: float, thresholds: Sequence[float] | None
) -> LabelScore:
    """Score probabilities, `[n, classes]`; `loss` is the binary cross-entropy. See `score_task`."""
    from sklearn.metrics import average_precision_score

    predicted = probabilities.astype(np.float64) >= (0.5 if thresholds is None else np.array(thresholds))
    occurs = np.flatnonzero(true.any(axis=0))
    # Not by scikit-learn's f1_score, which takes a single label for two classes, present and absent.
    num_right, num_all = (true & predicted).sum(axis=0), true.sum(axis=0) + predicted.sum(axis=0)
    precision = average_precision_score(true[:, occurs], probabilities[:, occurs]) if len(occurs) else 0.0
    return LabelScore(
        num_images=len(true),
        num_correct=int((predicted == true).all(axis=1).sum()),
        loss=loss,
        mean_average_precision=float(precision),
        micro_f1=float(2 * num_right.sum() / max(1, num_all.sum())),
        macro_f1=float((2 * num_right[occurs] / num_all[occurs]).mean()) if len(occurs) else 0.0,
    )


def map_interval(probabilities: NDArray[np.float32], true: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Return the 95% interval of the mean average precision, from `[n, classes]`: percentile bootstrap over images.

    It is None if all samples have the same precision, as those of a perfect model do: that would be an interval of
    width 0, although other images may well be ranked wrongly.

    Source:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. The seed is fixed.
    """
    draws, num = np.random.default_rng(0), len(true)
    num_samples, batch = int(np.clip(_MOST_RESAMPLED / true.size, 100, 1000)), max(1, min(100, 2**20 // num))
    found: list[float] = []
    for _ in range(0, num_samples, batch):
        times = np.stack([np.bincount(row, minlength=num) for row in draws.integers(num, size=(batch, num))], axis=1)
        found += _weighted_map(probabilities, true, times.astype(np.int32)).tolist()
    low, high = np.quantile(found, (0.025, 0.975)).tolist()
    return (low, high) if low < high else None


def _weighted_map(
    probabilities: NDArray[np.float32], true: NDArray[np.bool_], times: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the mean average precision of several samples; `times[i, j]` is how often image i is in sample j."""
    total, num_labels = np.zeros(times.shape[1]), np.zeros(times.shape[1])
    for likely, has in zip(probabilities.T, true.T, strict=True):
        order = np.argsort(-likely, kind="stable")
        # Images of equal probability are predicted together, so each has the precision at the last of them.
        last = np.searchsorted(-likely[order], -likely[order], side="right") - 1
        ends, hits = last[has[order]], np.flatnonzero(has[order])
        right = times[order[hits]]
        num_right = right.sum(axis=0)
        # How many images are predicted, and how many of them rightly, down to each image that has the label.
        predicted = times[order].cumsum(axis=0, dtype=np.int32)[ends]
        found = right.cumsum(axis=0, dtype=np.int32)[np.searchsorted(hits, ends, side="right") - 1]
        total += (right * (found / np.maximum(predicted, 1))).sum(axis=0) / np.maximum(num_right, 1)
        num_labels += num_right > 0
    return total / np.maximum(num_labels, 1)


def fit_thresholds(probabilities: ArrayLike, labels: ArrayLike) -> tuple[float, ...]:
    """Return the probability from which each label is predicted: the one with the highest F1 on these images.

    Fit it on validation images. A label that fewer than `LEAST_FOR_THRESHOLD` images have gets the threshold that is
    best for all labels together, because its own would be fitted to noise. Both arguments are `[n, classes]`; a label
    is 1 if the image has it, else 0.

    Source:
        Lipton et al. 2014 (1402.1892), who show that F1 is maximal for one threshold per label. Yang 2001, "A study of
        thresholding strategies for text categorization", on labels with few images.
    """
    likely, true = np.asarray(probabilities, dtype=np.float64), np.asarray(labels) > 0.5
    common = best_threshold(likely.ravel(), true.ravel())
    columns = zip(likely.T, true.T, strict=True)
    return tuple(best_threshold(p, t) if t.sum() >= LEAST_FOR_THRESHOLD else common for p, t in columns)


def best_threshold(probabilities: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    """Return the threshold with the highest F1, halfway between two probabilities; of several, the one nearest 1/2."""
    from sklearn.metrics import precision_recall_curve

    if not true.any():
        return 0.5
    precision, recall, values = precision_recall_curve(true, probabilities)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    # A threshold between two values decides these images as the upper value would, and tolerates rounding errors.
    middles = (values + np.r_[0.0, values[:-1]]) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middles[best[np.abs(middles[best] - 0.5).argmin()]])


def predicted_labels(row: Sequence[float], thresholds: Sequence[float]) -> list[int]:
    """Return the classes whose probability reaches their threshold, the most probable first."""
    reached = [number for number, value in enumerate(row) if value >= thresholds[number]]
    return sorted(reached, key=lambda number: -row[number])
