"""Keys and values -> OptimConfig: optimizer, learning rate, schedule and weight averaging."""

from dataclasses import dataclass
from typing import Annotated, Literal

from vitreous.errors import ConfigError
from vitreous.ranges import Interval, check_fields

OptimizerName = Literal["adamw", "lion", "lamb", "adafactor", "muon", "schedule_free"]
"""Optimizers. AdamW is PyTorch's; each of the others has a file of its name in this folder."""

Schedule = Literal["cosine", "linear", "constant", "wsd"]
"""Shape of the learning rate schedule after the warm-up; see `schedule.learning_rate_share`."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, its learning rate and schedule, and the average of the weights.

    Attributes:
        name: Optimizer. `muon` updates the weight matrices of the encoder blocks and leaves the rest to AdamW.
            `schedule_free` is AdamW with its own average of the weights; `optim.ema_window_ratio` has no effect then.
        lr: Peak learning rate, for the whole batch over all devices.
        weight_decay: Decoupled weight decay, multiplied by the learning rate in each step. Applied to weight matrices
            only, not to biases, norms, tokens and position embeddings.
        beta1: Decay of the running mean of the gradients. For `schedule_free`, the share of the average in the weights
            at which gradients are taken, which must be above 0.
        beta2: Decay of the running mean of the squared gradients; for `lion`, of the gradients.
        layer_decay: Layer-wise learning rate decay: each block learns at this fraction of the rate of the block after
            it. 1 gives all layers the same rate.
        schedule: Shape of the learning rate schedule after the warm-up. `cosine` and `linear` fall to zero over the
            rest of the run, `constant` stays at the peak, `wsd` (warm-up, stable, decay) falls only in the last
            `optim.cooldown_ratio` of the run.
        warmup_ratio: Fraction of the run over which the learning rate rises linearly from zero to its peak.
        cooldown_ratio: Fraction of the run, at its end, over which the learning rate falls to zero with
            `optim.schedule=wsd`.
        clip_norm: Largest norm of the gradient over all parameters; larger gradients are scaled down to it. 0 turns
            clipping off.
        sam_rho: Radius of sharpness-aware minimization (SAM), which takes the gradient at perturbed weights and makes
            each step twice as expensive. 0.05 is usual, 0 turns it off.
        ema_window_ratio: Length of the exponential moving average of the weights, as a fraction of the run. The average
            is what is evaluated and saved. 0 uses the latest weights instead.

    Raises:
        UnknownNameError: A name is not among the choices of its key.
        ConfigError: Another value has the wrong type, is out of range, or contradicts another key.
    """

    name: OptimizerName = "adamw"
    lr: Annotated[float, Interval("(0, inf)", "1e-3 is usual for small models")] = 1e-3
    weight_decay: Annotated[float, Interval("[0, inf)", "0 turns it off")] = 0.05
    beta1: Annotated[float, Interval("[0, 1)")] = 0.9
    beta2: Annotated[float, Interval("[0, 1)")] = 0.999
    layer_decay: Annotated[float, Interval("(0, 1]", "1 turns it off")] = 1.0
    schedule: Schedule = "cosine"
    warmup_ratio: Annotated[float, Interval("[0, 1)")] = 0.1
    cooldown_ratio: Annotated[float, Interval("(0, 1)")] = 0.2
    clip_norm: Annotated[float, Interval("[0, inf)", "0 turns it off")] = 1.0
    sam_rho: Annotated[float, Interval("[0, inf)", "0 turns it off")] = 0.0
    ema_window_ratio: Annotated[float, Interval("[0, 1]", "0 turns it off")] = 0.05

    def __post_init__(self) -> None:
        check_fields(self, "optim")
        if self.schedule == "wsd" and self.warmup_ratio + self.cooldown_ratio > 1 + 1e-9:
            raise ConfigError(
                f"optim.cooldown_ratio={self.cooldown_ratio}: begins before the warm-up of optim.warmup_ratio="
                f"{self.warmup_ratio} has ended; reduce one of them until they add up to 1 at most"
            )
        if self.name == "schedule_free" and self.beta1 == 0:
            raise ConfigError("optim.beta1=0: must be above 0 for optim.name=schedule_free; 0.9 is usual")
