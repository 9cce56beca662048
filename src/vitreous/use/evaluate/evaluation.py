"""True and predicted classes -> Evaluation: accuracy with its interval, scores per class, confusion."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitreous.training.fit.evaluate import Score


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told apart.

    Attributes:
        name: The class.
        precision: Of the images called so, the share that is so.
        recall: Of the images that are so, the share called so.
        f1: Harmonic mean of the two.
        num_images: Images of this class in the set.
    """

    name: str
    precision: float
    recall: float
    f1: float
    num_images: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a set of labelled images says of a model.

    Attributes:
        data: Which images.
        score: Accuracy, its interval, loss.
        classes: One row a class, in the model's order.
        confusion: `confusion[i, j]` images of class i were called j.
    """

    data: str
    score: Score
    classes: tuple[ClassScore, ...]
    confusion: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share that is right, in [0, 1]."""
        return self.score.accuracy

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur in the set: every class counts alike, however rare."""
        present = [row.f1 for row in self.classes if row.num_images]
        return sum(present) / len(present)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": self.data,
            **self.score.as_dict(),
            "macro_f1": self.macro_f1,
            "classes": [vars(row) for row in self.classes],
            "confusion": self.confusion.tolist(),
        }

    def confused_most(self, count: int = 3) -> list[tuple[str, str, int]]:
        """The commonest mistakes: (true class, called, how often)."""
        mistakes = self.confusion * (1 - np.eye(len(self.classes), dtype=np.int64))
        order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, mistakes.shape)
        names = [row.name for row in self.classes]
        return [(names[i], names[j], int(mistakes[i, j])) for i, j in zip(rows, columns, strict=True) if mistakes[i, j]]


def count_classes(data: str, score: Score, true: ArrayLike, called: ArrayLike, classes: tuple[str, ...]) -> Evaluation:
    """Count per class what was right.

    Args:
        data: Which images these are, for people.
        score: Of all of them.
        true: Class indices, `[n]`.
        called: What the model said, `[n]`.
        classes: Names, in the order of the indices.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    numbers = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(true, called, labels=numbers, zero_division=0.0)
    rows = zip(classes, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True)
    return Evaluation(
        data=data,
        score=score,
        classes=tuple(ClassScore(*row) for row in rows),
        confusion=confusion_matrix(true, called, labels=numbers).astype(np.int64),
    )
