"""True and predicted classes -> Evaluation: accuracy with its interval, scores per class, confusion matrix."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitreous.training.fit.class_counts import ClassCounts
from vitreous.training.fit.evaluate import Score
from vitreous.use.evaluate.calibration import Calibration
from vitreous.use.evaluate.known import Known

MOST_IN_MATRIX = 1_000
"""Number of classes above which the confusion matrix, whose size is its square, is neither drawn nor in JSON."""
UNDEFINED = "–"
"""Text for the recall of a class without images, and for the precision of a class that is never predicted."""


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class.

    Attributes:
        name: The class.
        precision: Share of the images predicted as this class that belong to it; NaN if there are none.
        recall: Share of the images of this class that are predicted as such; NaN if there are none.
        f1: Harmonic mean of precision and recall; NaN if there are neither images nor predictions of this class.
        num_images: Number of images of this class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    num_images: int

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as plain values for JSON; None for an undefined score."""
        return {key: None if value != value else value for key, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a model on a set of labeled images.

    Attributes:
        data: Name of the images.
        score: Accuracy, its interval, loss, and the images by class.
        classes: One row per class, in the model's order.
        true: True class indices, `[n]`.
        predicted: Predicted class indices, `[n]`.
        known: Images that the model was trained with; None if that is not known, or none can be among these.
        views: `num_views`, and what averaging over them gives: `accuracy` and `gain`; None if it was not measured.
        calibration: How far the probabilities can be trusted; None if only the predicted classes are known.
        top_k: k -> share of the images whose class is among the k most probable ones; empty for the same reason.
    """

    data: str
    score: Score
    classes: tuple[ClassScore, ...]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    known: Known | None = None
    views: Mapping[str, Any] | None = None
    calibration: Calibration | None = None
    top_k: Mapping[int, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of images that are classified correctly, in [0, 1]."""
        return self.score.accuracy

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur in the set; rare and frequent classes count equally."""
        present = [row.f1 for row in self.classes if row.num_images]
        return sum(present) / len(present)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance, from -1 to 1; NaN if there is one class and it is predicted."""
        from sklearn.metrics import cohen_kappa_score

        return float(cohen_kappa_score(self.true, self.predicted)) if self._varies else float("nan")

    @property
    def mcc(self) -> float:
        """Matthews correlation coefficient, from -1 to 1; 0 if only one class is predicted."""
        from sklearn.metrics import matthews_corrcoef

        return float(matthews_corrcoef(self.true, self.predicted)) if self._varies else float("nan")

    @property
    def _varies(self) -> bool:
        return len(np.union1d(self.true, self.predicted)) > 1

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Confusion matrix; `confusion[i, j]` images of class i were predicted as class j."""
        from sklearn.metrics import confusion_matrix

        numbers = np.arange(len(self.classes))
        return confusion_matrix(self.true, self.predicted, labels=numbers).astype(np.int64)

    @property
    def has_matrix(self) -> bool:
        """True if there are few enough classes to show a confusion matrix."""
        return len(self.classes) <= MOST_IN_MATRIX

    @property
    def class_rows(self) -> list[tuple[str, ...]]:
        """The scores per class as text, below a row of headings."""
        rows = [
            (row.name, *(UNDEFINED if math.isnan(value) else f"{value:.3f}" for value in values), f"{row.num_images:,}")
            for row in self.classes
            for values in [(row.precision, row.recall, row.f1)]
        ]
        return [("class", "precision", "recall", "F1", "images"), *rows]

    def as_dict(self) -> dict[str, Any]:
        """Return all scores as plain values for JSON."""
        return {
            "data": self.data,
            **self.score.as_dict(),
            "macro_f1": self.macro_f1,
            "kappa": self.kappa if self._varies else None,
            "mcc": self.mcc if self._varies else None,
            "top_k": {str(k): share for k, share in self.top_k.items()},
            "calibration": self.calibration and self.calibration.as_dict(),
            "classes": [row.as_dict() for row in self.classes],
            "confusion": self.confusion.tolist() if self.has_matrix else None,
            "known": self.known and self.known.as_dict(),
            "tta": self.views,
        }

    def confused_most(self, count: int = 3) -> list[tuple[str, str, int]]:
        """Return the most frequent mistakes as (true class, predicted class, number of images)."""
        wrong = self.true != self.predicted
        mistakes = np.stack([self.true[wrong], self.predicted[wrong]])
        pairs, counts = np.unique(mistakes, axis=1, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:count]
        names = [row.name for row in self.classes]
        return [(names[pairs[0, k]], names[pairs[1, k]], int(counts[k])) for k in order]


def scored_split(splits: Iterable[str]) -> str | None:
    """Return the split whose accuracy is reported: `test` if it is among `splits`, else `val`, else None."""
    available = set(splits)
    return next((split for split in ("test", "val") if split in available), None)


def count_classes(
    data: str, score: Score, true: ArrayLike, predicted: ArrayLike, classes: tuple[str, ...]
) -> Evaluation:
    """Compute the scores per class.

    Args:
        data: Name of the images.
        score: Score over all images; their counts by class are added.
        true: True class indices, `[n]`.
        predicted: Predicted class indices, `[n]`.
        classes: Class names, in the order of the indices.
    """
    from sklearn.metrics import precision_recall_fscore_support

    true, predicted = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    numbers, counts = np.arange(len(classes)), ClassCounts.of(classes, true, predicted)
    scores = precision_recall_fscore_support(true, predicted, labels=numbers, zero_division=np.nan)[:3]
    rows = zip(classes, *(values.tolist() for values in scores), counts.images, strict=True)
    return Evaluation(
        data=data,
        score=replace(score, counts=counts),
        classes=tuple(ClassScore(*row) for row in rows),
        true=true,
        predicted=predicted,
    )
