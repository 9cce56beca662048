"""Numbers a user may set -> OptimConfig."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vitreous.errors import ConfigError, UnknownNameError, nearest

OptimizerName = Literal["adamw", "lion", "lamb", "adafactor", "muon", "schedule_free"]
"""What turns gradients into steps; each has a file of its name in this room, but AdamW, which is PyTorch's."""

Schedule = Literal["cosine", "linear", "constant", "wsd"]
"""How the learning rate goes on after the warm-up; see `schedule`."""


@dataclass(frozen=True)
class OptimConfig:
    """How the weights follow the gradient.

    Attributes:
        name: The optimiser: `adamw`, `lion`, `lamb`, `adafactor`, `muon` (on the encoder's matrices, AdamW on the rest)
            or `schedule_free` (AdamW whose own average stands in for the one of `ema_window_ratio`).
        lr: Peak learning rate, for the whole batch over all devices.
        weight_decay: Decoupled decay per step relative to the learning rate; on matrices only.
        beta1: Decay of the gradient's running mean, in [0, 1); schedule_free's share of the average, above 0.
        beta2: Decay of the squared gradient's running mean, in [0, 1); Lion's of the gradient's own.
        layer_decay: Each block learns at this share of the rate of the one above it, in (0, 1]; 1 treats all alike.
        schedule: `cosine`, `linear`, `constant` or `wsd` (warm-up, stable, decay).
        warmup_ratio: Share of the run in which the learning rate rises from zero, in [0, 1).
        cooldown_ratio: Share of the run in which `wsd` comes down to zero, in (0, 1).
        clip_norm: Gradients whose global norm exceeds this are scaled down to it; 0 turns clipping off.
        sam_rho: How far sharpness-aware steps climb before they look down, twice the cost; 0 turns them off.
        ema_window_ratio: Share of the run that the weight average looks back over, in [0, 1]; 0 turns it off.

    Raises:
        ConfigError: A value out of its range, or values that do not go together.
        UnknownNameError: A `name` or `schedule` that does not exist.
    """

    name: OptimizerName = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    layer_decay: float = 1.0
    schedule: Schedule = "cosine"
    warmup_ratio: float = 0.1
    cooldown_ratio: float = 0.2
    clip_norm: float = 1.0
    sam_rho: float = 0.0
    ema_window_ratio: float = 0.05

    def __post_init__(self) -> None:
        for key, kind in (("name", OptimizerName), ("schedule", Schedule)):
            got, known = getattr(self, key), get_args(kind)
            if got not in known:
                raise UnknownNameError(f"optim.{key}={got}: no such choice; {nearest(str(got), known)}")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"optim.lr={self.lr}: must be above 0 and finite; 1e-3 is usual for small models")
        for key in ("weight_decay", "clip_norm", "sam_rho"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(f"optim.{key}={getattr(self, key)}: must be at least 0 and finite; 0 turns it off")
        for key in ("beta1", "beta2", "warmup_ratio"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"optim.{key}={getattr(self, key)}: must be at least 0 and below 1; see its default")
        if not 0 <= self.ema_window_ratio <= 1:
            raise ConfigError(f"optim.ema_window_ratio={self.ema_window_ratio}: must be in [0, 1]; 0 turns it off")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"optim.layer_decay={self.layer_decay}: must be above 0 and at most 1; 1 turns it off")
        if not 0 < self.cooldown_ratio < 1:
            raise ConfigError(f"optim.cooldown_ratio={self.cooldown_ratio}: must be above 0 and below 1; 0.2 is usual")
        if self.schedule == "wsd" and self.warmup_ratio + self.cooldown_ratio > 1:
            raise ConfigError(
                f"optim.cooldown_ratio={self.cooldown_ratio}: begins before optim.warmup_ratio={self.warmup_ratio} has "
                f"ended; they must add up to 1 at most"
            )
        if self.name == "schedule_free" and self.beta1 == 0:
            raise ConfigError(
                "optim.beta1=0: schedule_free needs it above 0, its average is worked out from it; 0.9 is usual"
            )
