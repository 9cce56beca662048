"""Numbers a user may set -> OptimConfig."""

import math
from dataclasses import dataclass

from vitreous.errors import ConfigError


@dataclass(frozen=True)
class OptimConfig:
    """How the weights follow the gradient.

    Attributes:
        lr: Peak learning rate, for the whole batch over all devices.
        weight_decay: Decoupled decay per step relative to the learning rate; on matrices only.
        beta1: Decay of the gradient's running mean, in [0, 1).
        beta2: Decay of the squared gradient's running mean, in [0, 1).
        warmup_ratio: Share of the run in which the learning rate rises from zero, in [0, 1).
        clip_norm: Gradients whose global norm exceeds this are scaled down to it; 0 turns clipping off.
        ema_window_ratio: Share of the run that the weight average looks back over, in [0, 1]; 0 turns it off.

    Raises:
        ConfigError: A value out of its range.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    warmup_ratio: float = 0.1
    clip_norm: float = 1.0
    ema_window_ratio: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"optim.lr={self.lr}: must be above 0 and finite; 1e-3 is usual for small models")
        for key in ("weight_decay", "clip_norm"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(f"optim.{key}={getattr(self, key)}: must be at least 0 and finite; 0 turns it off")
        for key in ("beta1", "beta2", "warmup_ratio"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"optim.{key}={getattr(self, key)}: must be at least 0 and below 1; see its default")
        if not 0 <= self.ema_window_ratio <= 1:
            raise ConfigError(f"optim.ema_window_ratio={self.ema_window_ratio}: must be in [0, 1]; 0 turns it off")
