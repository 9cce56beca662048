"""ObjectiveConfig -> the task that a step of training minimises."""

from collections.abc import Sequence

from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.cross_entropy import CrossEntropy, balanced_class_weights
from vitreous.objective.task import Criterion, Supervised, Task


def build_task(config: ObjectiveConfig, class_counts: Sequence[int] | None = None) -> Task:
    """What a step minimises.

    Args:
        config: Decides which.
        class_counts: Training images of each class; None, as where speed is measured: all classes weigh alike.
    """
    return Supervised(build_criterion(config, class_counts))


def build_criterion(config: ObjectiveConfig, class_counts: Sequence[int] | None = None) -> Criterion:
    """What compares logits with labels or soft targets; arguments as in `build_task`."""
    if config.class_weights == "none" or class_counts is None:
        return CrossEntropy(label_smoothing=config.label_smoothing)
    weights = balanced_class_weights(class_counts)
    return CrossEntropy(label_smoothing=config.label_smoothing, class_weights=weights)
