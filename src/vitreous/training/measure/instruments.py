"""Clock, speed and memory of this machine -> one object that a run measures with; tests replace parts of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from vitreous.model.vit import VisionTransformer
from vitreous.objective.build import ClassCounts, build_task
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.task import Task
from vitreous.recipe.pace import Pace
from vitreous.recipe.run_config import RunConfig
from vitreous.training.measure.memory import memory_share
from vitreous.training.measure.speed import evaluation_images_per_s, features_per_s, training_pace
from vitreous.training.step.run_ahead import can_run_ahead
from vitreous.training.step.state import TrainState
from vitreous.training.weights.pretrained import Pretrained


@dataclass(frozen=True)
class Instruments:
    """The measuring functions of a run, and the function that builds its task.

    The clock returns seconds since any fixed moment; the other fields are the functions of the same names.
    """

    clock: Callable[[], float] = time.monotonic
    training_pace: Callable[[RunConfig, Pretrained | None], Pace] = training_pace
    evaluation_images_per_s: Callable[[RunConfig], float] = evaluation_images_per_s
    features_per_s: Callable[[VisionTransformer, torch.device, str], float] = features_per_s
    memory_share: Callable[[RunConfig], float] = memory_share
    build_task: Callable[[ObjectiveConfig, ClassCounts | None, nn.Module | None], Task] = build_task
    can_run_ahead: Callable[[TrainState], bool] = can_run_ahead


REAL = Instruments()
