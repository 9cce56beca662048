"""RunConfig, one batch -> whether a fresh model can learn it by heart: what fails here fails in every run."""

import math
from dataclasses import dataclass, replace

import torch

from vitreous.data.loader import Batch
from vitreous.errors import RunError
from vitreous.model.build import build_model
from vitreous.objective.build import build_criterion
from vitreous.objective.task import Supervised
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe.run_config import RunConfig
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, train_step

NUM_IMAGES = 32
MOST_STEPS = 200
ENOUGH_RIGHT = 0.9
"""Some batches hold the same image twice, under two names."""


@dataclass(frozen=True)
class Rehearsal:
    """What became of it.

    Attributes:
        num_images: That were shown again and again.
        steps: How often.
        accuracy: Share of them that is right in the end.
        first_loss: Before the first step.
        loss: In the end.
    """

    num_images: int
    steps: int
    accuracy: float
    first_loss: float
    loss: float


def rehearse(config: RunConfig, batch: Batch, precision: str) -> Rehearsal:
    """Train a throw-away model on a few images alone, with the run's rate and nothing that hinders it.

    Args:
        config: Of the run.
        batch: Any of its batches; its first `NUM_IMAGES` are taken.
        precision: One of `PRECISIONS`.

    Raises:
        RunError: They were not learned.
    """
    images, labels = batch.images[:NUM_IMAGES], batch.labels[:NUM_IMAGES]
    generator = torch.Generator().manual_seed(0)
    free = replace(
        config.model, pos_drop_rate=0.0, proj_drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0, patch_drop_rate=0.0
    )
    model = build_model(free, device=images.device, generator=generator)
    optim = replace(config.optim, schedule="constant", warmup_ratio=0.05, weight_decay=0.0, sam_rho=0.0)
    task = Supervised(build_criterion(replace(config.objective, label_smoothing=0.0, teacher=None)))
    state = TrainState(model, Ema(model), build_optimizer(model, optim), Horizon(end_step=MOST_STEPS))
    settings = StepSettings(task.to(images.device), optim, precision, seed=0)
    losses, right = [], 0
    while state.step < MOST_STEPS and right < len(labels):
        result = train_step(state, images, labels, settings)
        losses.append(result.loss)
        right, state.step = result.correct, state.step + 1
        if not math.isfinite(result.loss):
            break
    found = Rehearsal(len(labels), state.step, right / len(labels), losses[0], losses[-1])
    if found.accuracy < ENOUGH_RIGHT:
        raise RunError(
            f"train.overfit_one_batch: {right} of {len(labels)} training images were right after {state.step} steps "
            f"on them (loss {losses[0]:.2f} at first, {losses[-1]:.2f} at last); such a run learns nothing: check the "
            f"labels of the images and optim.lr={config.optim.lr:g}"
        )
    return found
