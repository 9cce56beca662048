"""True and predicted classes, probabilities -> Evaluation: accuracy and scores per class, with their intervals."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vitreous.training.fit.class_counts import ClassCounts
from vitreous.training.fit.evaluate import Score
from vitreous.use.evaluate.calibration import Calibration, judge_confidence, measure_calibration, top_k_accuracy
from vitreous.use.evaluate.known import Known
from vitreous.use.evaluate.metrics import scores
from vitreous.use.evaluate.metrics.costs import decide
from vitreous.use.evaluate.metrics.scores import Interval, Numbers, Values, as_pair

MOST_IN_MATRIX = 1_000
"""Number of classes above which the confusion matrix, whose size is its square, is neither drawn nor in JSON."""
UNDEFINED = "–"
"""Text for the recall of a class without images, and for the precision of a class that is never predicted."""
_TOP = (2, 3, 5)
"""Numbers k for which the accuracy of the k most probable classes is computed."""


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class, and 95% intervals, which are None where they are undefined.

    Attributes:
        name: The class.
        precision: Share of the images predicted as this class that belong to it; NaN if there are none.
        recall: Share of the images of this class that are predicted as such; NaN if there are none.
        f1: Harmonic mean of precision and recall; NaN if there are neither images nor predictions of this class.
        num_images: Number of images of this class.
        average_precision: Area under its precision-recall curve; NaN without its images, or without probabilities.
        precision_interval_95: Wilson's interval.
        recall_interval_95: Wilson's interval.
        f1_interval_95: Bootstrap over images.
    """

    name: str
    precision: float
    recall: float
    f1: float
    num_images: int
    average_precision: float
    precision_interval_95: Interval
    recall_interval_95: Interval
    f1_interval_95: Interval

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as plain values for JSON; None for an undefined score."""
        return {key: None if value != value else value for key, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a model on a set of labeled images, most of them computed when they are first read.

    Attributes:
        data: Name of the images.
        score: Accuracy, its interval, loss, and the images by class; the loss is NaN without probabilities.
        names: Class names, in the model's order.
        true: True class indices, `[n]`.
        predicted: Predicted class indices, `[n]`.
        probabilities: Calibrated probabilities, `[n, classes]`; None if they are not known.
        confidence: Probability of the predicted class, `[n]`, if only that is known.
        indices: Numbers of the images in their source, `[n]`; None if they are not known.
        known: Images that the model was trained with; None if that is not known, or none can be among these.
        views: `num_views`, and what averaging over them gives: `accuracy` and `gain`; None if it was not measured.
        costs: Costs of mistakes, by the numbers of the true and the predicted class; empty if none were given.
    """

    data: str
    score: Score
    names: tuple[str, ...]
    true: Numbers
    predicted: Numbers
    probabilities: Values | None = None
    confidence: Values | None = None
    indices: Numbers | None = None
    known: Known | None = None
    views: Mapping[str, Any] | None = None
    costs: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of images that are classified correctly, in [0, 1]."""
        return self.score.accuracy

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur in the set; rare and frequent classes count equally."""
        return float(self._scores["macro_f1"])

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance, from -1 to 1; NaN if there is one class and it is predicted."""
        return float(self._scores["kappa"])

    @property
    def mcc(self) -> float:
        """Matthews correlation coefficient, from -1 to 1; 0 if only one class is predicted, NaN as for kappa."""
        return float(self._scores["mcc"])

    @cached_property
    def intervals(self) -> dict[str, Values]:
        """95% intervals of F1 and of the scores over all classes: see `bootstrap`."""
        return scores.bootstrap(self.true, self.predicted, len(self.names))

    @cached_property
    def calibration(self) -> Calibration | None:
        """How far the probabilities can be trusted; None if only the predicted classes are known."""
        if self.probabilities is not None:
            return measure_calibration(self.probabilities, self.true)
        is_correct = (self.true == self.predicted).astype(np.float64)
        return None if self.confidence is None else judge_confidence(self.confidence, is_correct)

    @cached_property
    def top_k(self) -> Mapping[int, float]:
        """Share of the images whose class is among the k most probable ones, by k; empty without probabilities."""
        likely, each = self.probabilities, [k for k in _TOP if k < len(self.names)]
        return {} if likely is None else {k: top_k_accuracy(likely, self.true, k) for k in each}

    @cached_property
    def curves(self) -> dict[str, Any] | None:
        """The `operating_curves` of the rarer class; None unless there are two classes and probabilities."""
        if self.probabilities is None or len(self.names) != 2:
            return None
        rarer = int(self._counts[0].argmin())
        return scores.operating_curves(self.names[rarer], self.probabilities[:, rarer], self.true == rarer)

    @cached_property
    def decision(self) -> dict[str, Any] | None:
        """What `decide` finds, and the `confusion` matrix of its predictions; None without costs or probabilities."""
        if not self.costs or self.probabilities is None:
            return None
        found = decide(self.costs, self.probabilities, self.true, self.predicted)
        return found | {"confusion": replace(self, predicted=found["predicted"]).confusion if self.has_matrix else None}

    @cached_property
    def classes(self) -> tuple[ClassScore, ...]:
        """One row per class, in the model's order."""
        from sklearn.metrics import average_precision_score

        images, predicted, correct = self._counts
        areas, present = np.full(len(images), np.nan), np.flatnonzero(images)
        if self.probabilities is not None:
            is_true, likely = self.true[:, None] == present, self.probabilities[:, present]
            areas[present] = average_precision_score(is_true, likely, average=None)
        with np.errstate(invalid="ignore"):
            columns = (correct / predicted, correct / images, self._scores["f1"], images.astype(np.int64), areas)
        ends = (scores.wilson(correct, predicted), scores.wilson(correct, images), self.intervals["f1"])
        rows = zip(self.names, *(values.tolist() for values in columns), *(map(as_pair, e) for e in ends), strict=True)
        return tuple(ClassScore(*row) for row in rows)

    @cached_property
    def confusion(self) -> Numbers:
        """Confusion matrix; `confusion[i, j]` images of class i were predicted as class j."""
        num = len(self.names)
        return np.bincount(self.true * num + self.predicted, minlength=num**2).reshape(num, num)

    @property
    def has_matrix(self) -> bool:
        """True if there are few enough classes to show a confusion matrix."""
        return len(self.names) <= MOST_IN_MATRIX

    @property
    def class_rows(self) -> list[tuple[str, ...]]:
        """The scores per class as text, below a row of headings."""
        rows = [
            (row.name, shown(row.precision), shown(row.precision_interval_95), shown(row.recall),
             shown(row.recall_interval_95), shown(row.f1), shown(row.average_precision), f"{row.num_images:,}")
            for row in self.classes
        ]  # fmt: skip
        return [("class", "precision", "95% interval", "recall", "95% interval", "F1", "AP", "images"), *rows]

    def as_dict(self) -> dict[str, Any]:
        """Return all scores as plain values for JSON."""
        found = self.score.as_dict() | {"macro_f1": self.macro_f1, "kappa": self.kappa, "mcc": self.mcc}
        rows, pair = self._counts[0][:, None], ("true", "predicted", "num_images", "images")
        ends = {f"{name}_interval_95": as_pair(e) for name, e in self.intervals.items() if name != "f1"}
        return {
            "data": self.data,
            **{name: None if value != value else value for name, value in found.items()},
            **ends,
            "top_k": {str(k): share for k, share in self.top_k.items()},
            "calibration": self.calibration and self.calibration.as_dict(),
            "classes": [row.as_dict() for row in self.classes],
            "confusion": self.confusion.tolist() if self.has_matrix else None,
            "confusion_rates": (self.confusion / np.maximum(rows, 1)).tolist() if self.has_matrix else None,
            "confused_most": [dict(zip(pair, of, strict=True)) for of in self.confused_most(20)],
            "curves": self.curves,
            "cost": self.decision and {k: np.asarray(v).tolist() for k, v in self.decision.items() if k != "predicted"},
            "known": self.known and self.known.as_dict(),
            "tta": self.views,
        }

    def confused_most(self, count: int = 3) -> list[tuple[str, str, int, list[int]]]:
        """Return the most frequent mistakes: true class, predicted class, number of images, and the first 100 of these.

        Images are given by their numbers in the source, or by their positions if `indices` is None.
        """
        wrong = np.flatnonzero(self.true != self.predicted)
        pairs = self.true[wrong] * len(self.names) + self.predicted[wrong]
        numbers = wrong if self.indices is None else self.indices[wrong]
        kinds, counts = np.unique(pairs, return_counts=True)
        return [
            (self.names[kind // len(self.names)], self.names[kind % len(self.names)], int((pairs == kind).sum()),
             numbers[pairs == kind][:100].tolist())
            for kind in kinds[np.argsort(-counts, kind="stable")[:count]].tolist()
        ]  # fmt: skip

    @cached_property
    def _counts(self) -> tuple[Values, Values, Values]:
        """Images of each class, images predicted as it, and correct ones, each `[classes]`."""
        parts = (self.true, self.predicted, self.true[self.true == self.predicted])
        images, predicted, correct = (np.bincount(p, minlength=len(self.names)).astype(np.float64) for p in parts)
        return images, predicted, correct

    @cached_property
    def _scores(self) -> dict[str, Values]:
        return scores.matrix_scores(*self._counts)


def shown(score: float | Interval) -> str:
    """Return a score or an interval as text, such as `0.912` or `0.91–0.98`; a dash if it is undefined."""
    if isinstance(score, tuple):
        return f"{score[0]:.2f}–{score[1]:.2f}"
    return UNDEFINED if score is None or math.isnan(score) else f"{score:.3f}"


def scored_split(splits: Iterable[str]) -> str | None:
    """Return the split whose accuracy is reported: `test` if it is among `splits`, else `val`, else None."""
    available = set(splits)
    return next((split for split in ("test", "val") if split in available), None)


def count_classes(
    data: str, score: Score, true: ArrayLike, predicted: ArrayLike, classes: tuple[str, ...]
) -> Evaluation:
    """Return the evaluation of true and predicted class indices, `[n]`; the images by class are added to the score."""
    true, predicted = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    return Evaluation(data, replace(score, counts=ClassCounts.of(classes, true, predicted)), classes, true, predicted)
