"""Counts of a confusion matrix, probabilities -> scores, their 95% intervals, ROC and precision-recall curves."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Numbers = NDArray[np.int64]
Interval = tuple[float, float] | None

_MOST_DRAWN, _MOST_POINTS = 10_000_000, 200
"""Cells of all resampled confusion matrices together, which take about a second; points of a curve."""


def wilson(successes: ArrayLike, trials: ArrayLike) -> Values:
    """Return the 95% intervals of shares, `[..., 2]`, NaN without trials: Wilson 1927, for many shares at once."""
    found, num, z = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64), 1.959963984540054
    with np.errstate(invalid="ignore"):
        half = z * np.sqrt(found * (num - found) / num + z**2 / 4)
    return np.clip(np.stack([found + z**2 / 2 - half, found + z**2 / 2 + half]) / (num + z**2), 0.0, 1.0).T


def matrix_scores(images: Values, predicted: Values, correct: Values) -> dict[str, Values]:
    """Compute scores from the images of each class, those predicted as it, and the correct ones, each `[classes]`.

    They are `f1` of each class, `[classes]`; `macro_f1` and `balanced_accuracy`, means over the classes that have
    images; Cohen's `kappa` and Matthews' `mcc`. NaN where a score is undefined.
    """
    total, occurs = images.sum(), images > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        f1, recall = 2 * correct / (images + predicted), correct / images
        chance = (images * predicted).sum() / total**2
        beyond = correct.sum() / total - chance
        spread = (1 - (images**2).sum() / total**2) * (1 - (predicted**2).sum() / total**2)
        mcc = beyond / np.sqrt(spread) if spread > 0 else np.where(chance < 1, 0.0, np.nan)
        means = {"macro_f1": f1[occurs].mean(), "balanced_accuracy": recall[occurs].mean()}
        return {"f1": f1, **means, "kappa": beyond / (1 - chance), "mcc": mcc}


def bootstrap(true: Numbers, predicted: Numbers, num_classes: int, seed: int = 0) -> dict[str, Values]:
    """Return the 95% intervals of the scores of `matrix_scores`, `[2]`, of F1 `[classes, 2]`: percentile bootstrap.

    Images in the same cell of the confusion matrix are alike, so a sample of images is one multinomial draw of the
    cells. There are 1,000 samples, fewer for over 10,000 cells or classes, at least 100: this bounds the cost. NaN if
    all samples agree, as for a class without mistakes: other images may well be mistaken (Efron and Tibshirani 1993,
    "An Introduction to the Bootstrap", chapter 13).
    """
    cells, counts = np.unique(true * num_classes + predicted, return_counts=True)
    rows, columns = np.divmod(cells, num_classes)
    draws, found = np.random.default_rng(seed), list[dict[str, Values]]()
    for _ in range(int(np.clip(_MOST_DRAWN // max(len(cells), num_classes), 100, 1000))):
        drawn = draws.multinomial(len(true), counts / len(true))
        parts = ((rows, drawn), (columns, drawn), (rows, drawn * (rows == columns)))
        found.append(matrix_scores(*(np.bincount(of, times, num_classes).astype(np.float64) for of, times in parts)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a class without images and predictions has no F1
        ends = {name: np.nanquantile([scores[name] for scores in found], (0.025, 0.975), axis=0) for name in found[0]}
    return {name: np.where(low < high, (low, high), np.nan).T for name, (low, high) in ends.items()}


def as_pair(ends: Values) -> Interval:
    """Return both ends of an interval as numbers; None if they are undefined."""
    low, high = ends.tolist()
    return None if np.isnan(ends).any() else (low, high)


def operating_curves(name: str, probabilities: NDArray[Any], is_true: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Compute both curves of a class from its probability for each image, `[n]`, and which images have it, `[n]`.

    Returns:
        The `class`; the areas `roc_auc` and `average_precision`; and at most 200 points of each curve: `roc` with false
        positive rate, recall, threshold; `precision_recall` with recall, precision, threshold, which is None where
        nothing is predicted. None if all or none of the images have the class.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    if is_true.all() or not is_true.any():
        return None
    precision, recall, thresholds = precision_recall_curve(is_true, probabilities)
    curves = {"roc": roc_curve(is_true, probabilities), "precision_recall": (recall, precision, [*thresholds, np.inf])}
    found = {"class": name, "roc_auc": float(roc_auc_score(is_true, probabilities)),
             "average_precision": float(average_precision_score(is_true, probabilities))}  # fmt: skip
    for kind, columns in curves.items():
        kept = np.unique(np.linspace(0, len(columns[0]) - 1, _MOST_POINTS).round().astype(np.int64))
        points = np.stack(columns, axis=1)[kept].tolist()
        found[kind] = [(x, y, threshold if np.isfinite(threshold) else None) for x, y, threshold in points]
    return found
