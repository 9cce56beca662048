"""True and predicted classes -> what accuracy hides: majority share, balanced accuracy, classes never predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ClassCounts:
    """Number of images by class; each count is in the order of the classes.

    Not all classes are without images. `correct` are the images of each class that are predicted correctly, and
    `predicted` those that are predicted as each class.
    """

    classes: tuple[str, ...]
    images: tuple[int, ...]
    correct: tuple[int, ...]
    predicted: tuple[int, ...]

    @classmethod
    def of(cls, classes: Sequence[str], true: ArrayLike, predicted: ArrayLike) -> Self:
        """Count at least one image, given the true and predicted class indices, both `[n]`."""
        true, predicted = np.asarray(true), np.asarray(predicted)
        parts = (true, true[true == predicted], predicted)
        return cls(tuple(classes), *(tuple(np.bincount(part, minlength=len(classes)).tolist()) for part in parts))

    def __add__(self, other: "ClassCounts") -> "ClassCounts":
        """Return the counts over the images of both, which have the same classes."""
        ours, theirs = (np.array([part.images, part.correct, part.predicted]) for part in (self, other))
        return ClassCounts(self.classes, *map(tuple, (ours + theirs).tolist()))

    @property
    def majority_class(self) -> str:
        """The class with the most images; the first of several."""
        return self.classes[int(np.argmax(self.images))]

    @property
    def majority_share(self) -> float:
        """Accuracy of always predicting the majority class, in (0, 1]: the baseline of every accuracy."""
        return max(self.images) / sum(self.images)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images, in [0, 1]; rare and frequent classes count equally.

        Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution".
        """
        recalls = [right / count for right, count in zip(self.correct, self.images, strict=True) if count]
        return sum(recalls) / len(recalls)

    @property
    def never_predicted(self) -> tuple[str, ...]:
        """The classes that have images, but that are not predicted for any image."""
        counts = zip(self.classes, self.images, self.predicted, strict=True)
        return tuple(name for name, images, predicted in counts if images and not predicted)

    def as_dict(self) -> dict[str, Any]:
        """Return the derived values, as plain values for records and model files."""
        return {
            "majority_class": self.majority_class,
            "majority_share": self.majority_share,
            "balanced_accuracy": self.balanced_accuracy,
            "never_predicted": list(self.never_predicted),
        }
