"""A linear probe, its images -> batches of features that are computed once, where an image's features never change."""

from collections.abc import Callable

import torch
from torch import Tensor

from vitreous.data.loader import Batch, TrainLoader
from vitreous.model.vit import VisionTransformer
from vitreous.objective.task import Supervised, Task
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.device import autocast
from vitreous.training.step.curriculum import probes_fixed_features

_AT_ONCE = 256


def feature_batches(
    config: RunConfig, task: Task, model: VisionTransformer, loader: TrainLoader, precision: str
) -> Callable[[int, int], Batch] | None:
    """(step, attempt) -> batch of what the head takes; None where the whole model has to run at each step.

    Args:
        config: Of the run.
        task: One that asks for more than logits needs the images.
        model: Whose backbone is frozen.
        loader: Of the training images.
        precision: One of `PRECISIONS`.
    """
    if not probes_fixed_features(config) or type(task) is not Supervised:
        return None
    features = compute_features(model, loader, precision)
    return lambda step, attempt: loader.features_batch(features, step)


@torch.no_grad()
def compute_features(model: VisionTransformer, loader: TrainLoader, precision: str) -> Tensor:
    """What the head would take of each image of the loader's store, in its order, `[images, num_features]`, float32."""
    model.eval()
    found = []
    for batch in loader.each_once(_AT_ONCE):
        with autocast(batch.images.device, precision):
            found.append(model.pooled(batch.images).float())
    return torch.cat(found)
