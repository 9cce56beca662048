"""True and predicted classes -> Evaluation: accuracy with its interval, scores per class, confusion matrix."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitreous.training.fit.evaluate import Score
from vitreous.use.evaluate.known import Known


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class.

    Attributes:
        name: The class.
        precision: Share of the images predicted as this class that belong to it.
        recall: Share of the images of this class that are predicted as such.
        f1: Harmonic mean of precision and recall.
        num_images: Number of images of this class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    num_images: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a model on a set of labeled images.

    Attributes:
        data: Name of the images.
        score: Accuracy, its interval and loss.
        classes: One row per class, in the model's order.
        confusion: Confusion matrix; `confusion[i, j]` images of class i were predicted as class j.
        known: Images that the model was trained with; None if that is not known, or none can be among these.
    """

    data: str
    score: Score
    classes: tuple[ClassScore, ...]
    confusion: NDArray[np.int64]
    known: Known | None = None

    @property
    def accuracy(self) -> float:
        """Share of images that are classified correctly, in [0, 1]."""
        return self.score.accuracy

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur in the set; rare and frequent classes count equally."""
        present = [row.f1 for row in self.classes if row.num_images]
        return sum(present) / len(present)

    def as_dict(self) -> dict[str, Any]:
        """Return all scores as plain values for JSON."""
        return {
            "data": self.data,
            **self.score.as_dict(),
            "macro_f1": self.macro_f1,
            "classes": [vars(row) for row in self.classes],
            "confusion": self.confusion.tolist(),
            "known": self.known and self.known.as_dict(),
        }

    def confused_most(self, count: int = 3) -> list[tuple[str, str, int]]:
        """Return the most frequent mistakes as (true class, predicted class, number of images)."""
        mistakes = self.confusion * (1 - np.eye(len(self.classes), dtype=np.int64))
        order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, mistakes.shape)
        names = [row.name for row in self.classes]
        return [(names[i], names[j], int(mistakes[i, j])) for i, j in zip(rows, columns, strict=True) if mistakes[i, j]]


def scored_split(splits: Iterable[str]) -> str | None:
    """Return the split whose accuracy is reported: `test` if it is among `splits`, else `val`, else None."""
    available = set(splits)
    return next((split for split in ("test", "val") if split in available), None)


def count_classes(
    data: str, score: Score, true: ArrayLike, predicted: ArrayLike, classes: tuple[str, ...]
) -> Evaluation:
    """Compute the scores per class and the confusion matrix.

    Args:
        data: Name of the images.
        score: Score over all images.
        true: True class indices, `[n]`.
        predicted: Predicted class indices, `[n]`.
        classes: Class names, in the order of the indices.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    numbers = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=numbers, zero_division=0.0)
    rows = zip(classes, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True)
    return Evaluation(
        data=data,
        score=score,
        classes=tuple(ClassScore(*row) for row in rows),
        confusion=confusion_matrix(true, predicted, labels=numbers).astype(np.int64),
    )
