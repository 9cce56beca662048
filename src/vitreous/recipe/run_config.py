"""Every key of a run, grouped by room -> RunConfig: frozen, complete, and enough to repeat the run."""

import math
from dataclasses import dataclass

from vitreous.data.config import DataConfig
from vitreous.errors import ConfigError
from vitreous.model.config import ModelConfig
from vitreous.objective.config import ObjectiveConfig
from vitreous.optim.config import OptimConfig

MODEL_INPUT_KEYS = ("img_size", "in_chans", "num_classes")
"""Fields of ModelConfig that are keys of the data: the data decides them, the model takes them over."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, where and how carefully a run trains.

    Attributes:
        epochs: Passes over the training images; fractions are allowed. With a budget, the longest that is worth it.
        budget_s: Wall-clock seconds for the whole command, from reading the data to the saved model; 0 is no limit.
        seed: Decides initial weights, order, augmentation and dropout.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto`, `fp32` or `bf16`.
        accumulate: Parts that a batch is cut into, one after the other: the same step in less memory.
        grad_checkpointing: Compute each block again in the backward instead of keeping what is inside it: the same
            gradients in a fraction of the memory, a third slower.
        checkpoint_every_s: Seconds between checkpoints; a crash loses at most this much.
        max_retries: Consecutive refused steps before the run goes back to its last checkpoint, and how often it may.

    Raises:
        ConfigError: A value out of its range.
    """

    epochs: float = 20.0
    budget_s: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    accumulate: int = 1
    grad_checkpointing: bool = False
    checkpoint_every_s: float = 60.0
    max_retries: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.epochs < math.inf:
            raise ConfigError(f"train.epochs={self.epochs}: must be above 0 and finite; 20 is a start")
        if self.accumulate < 1:
            raise ConfigError(f"train.accumulate={self.accumulate}: must be at least 1, which leaves batches whole")
        for key in ("budget_s", "checkpoint_every_s", "max_retries", "seed"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(
                    f"train.{key}={getattr(self, key)}: must be at least 0 and finite; leave it out for the default"
                )


@dataclass(frozen=True)
class RunConfig:
    """One run, written down; `config.yaml` in the run folder holds it.

    Attributes:
        recipe: Name of the recipe that it came from.
        data: From image files to batches.
        model: The architecture; its image size, channels and classes are those of the data.
        objective: What is minimised.
        optim: How the weights follow the gradient.
        train: How long, where, how carefully.
    """

    recipe: str
    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optim: OptimConfig
    train: TrainConfig
