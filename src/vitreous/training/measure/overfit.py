"""RunConfig, one batch -> check that a new model can overfit the batch: a run that fails this learns nothing."""

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
from vitreous.wording import plural

NUM_IMAGES = 32
MOST_STEPS = 200
REQUIRED_ACCURACY = 0.9
"""Below 1, because some batches contain the same image with two labels."""


@dataclass(frozen=True)
class OverfitCheck:
    """Accuracy, in [0, 1], and loss at the last of the steps on one batch, and the loss at the first one."""

    num_images: int
    steps: int
    accuracy: float
    first_loss: float
    loss: float


def overfit_one_batch(config: RunConfig, batch: Batch, precision: str) -> OverfitCheck:
    """Train a temporary model on one batch, at the run's learning rate and without regularization.

    The first `NUM_IMAGES` images of the batch are used.

    Raises:
        RunError: The model did not overfit the batch.
    """
    images, labels = batch.images[:NUM_IMAGES], batch.labels[:NUM_IMAGES]
    generator = torch.Generator().manual_seed(0)
    unregularized = replace(
        config.model, pos_drop_rate=0.0, proj_drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0, patch_drop_rate=0.0
    )
    model = build_model(unregularized, device=images.device, generator=generator)
    optim = replace(config.optim, schedule="constant", warmup_ratio=0.05, weight_decay=0.0, sam_rho=0.0)
    task = Supervised(build_criterion(replace(config.objective, label_smoothing=0.0)))
    state = TrainState(model, Ema(model), build_optimizer(model, optim, precision), Horizon(end_step=MOST_STEPS))
    settings = StepSettings(task.to(images.device), optim, precision, seed=0)
    losses, correct = [], 0
    while state.step < MOST_STEPS and correct < len(labels):
        result = train_step(state, images, labels, settings)
        losses.append(result.loss)
        correct, state.step = result.correct, state.step + 1
        if not math.isfinite(result.loss):
            break
    check = OverfitCheck(len(labels), state.step, correct / len(labels), losses[0], losses[-1])
    if check.accuracy < REQUIRED_ACCURACY:
        raise RunError(
            f"train.overfit_one_batch: only {correct} of {len(labels)} training images are right after "
            f"{plural(state.step, 'step')} on them (loss {losses[0]:.2f} at first, {losses[-1]:.2f} at last), so the "
            f"run would learn nothing; check the labels of the images and optim.lr={config.optim.lr:g}"
        )
    return check
