"""ObjectiveConfig -> the module that computes the loss."""

from collections.abc import Sequence

from torch import nn

from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.cross_entropy import CrossEntropy, balanced_class_weights


def build_objective(config: ObjectiveConfig, class_counts: Sequence[int] | None = None) -> nn.Module:
    """A module that maps (logits, labels or soft targets) to a scalar loss.

    Args:
        config: Decides which.
        class_counts: Training images of each class; None, as where speed is measured: all classes weigh alike.
    """
    if config.class_weights == "none" or class_counts is None:
        return CrossEntropy(label_smoothing=config.label_smoothing)
    weights = balanced_class_weights(class_counts)
    return CrossEntropy(label_smoothing=config.label_smoothing, class_weights=weights)
