"""ObjectiveConfig -> the module that computes the loss."""

from torch import nn

from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.cross_entropy import CrossEntropy


def build_objective(config: ObjectiveConfig) -> nn.Module:
    """A module that maps (logits, labels) to a scalar loss."""
    return CrossEntropy(label_smoothing=config.label_smoothing)
