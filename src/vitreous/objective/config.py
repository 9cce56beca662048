"""Numbers a user may set -> ObjectiveConfig."""

from dataclasses import dataclass

from vitreous.errors import ConfigError


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Attributes:
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).

    Raises:
        ConfigError: A value out of its range.
    """

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"objective.label_smoothing={self.label_smoothing}: must be at least 0 and below 1; 0.1 is usual"
            )
