"""Numbers a user may set -> ObjectiveConfig."""

from dataclasses import dataclass
from typing import Literal, get_args

from vitreous.errors import ConfigError, UnknownNameError, nearest

ClassWeights = Literal["none", "balanced"]
"""All classes weigh alike, or each as much as the others whatever the number of its images."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Attributes:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
        class_weights: `none` or `balanced`, by the training images of each class.

    Raises:
        ConfigError: A value out of its range.
        UnknownNameError: `class_weights` that do not exist.
    """

    label_smoothing: float = 0.1
    class_weights: ClassWeights = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"objective.label_smoothing={self.label_smoothing}: must be at least 0 and below 1; 0.1 is usual"
            )
        known = get_args(ClassWeights)
        if self.class_weights not in known:
            way_out = nearest(str(self.class_weights), known)
            raise UnknownNameError(f"objective.class_weights={self.class_weights}: no such choice; {way_out}")
