"""Frozen backbone, training images -> batches of features, computed once because a linear probe never changes them."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from vitreous.data.loader import Batch, TrainLoader
from vitreous.model.vit import VisionTransformer
from vitreous.objective.task import Supervised, Task
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.device import autocast
from vitreous.training.step.curriculum import probes_fixed_features

FEATURE_BATCH = 256
"""Number of images per batch when features are computed."""


def feature_batches(
    config: RunConfig, task: Task, model: VisionTransformer, loader: TrainLoader, precision: str
) -> Callable[[int, int], Batch] | None:
    """Return a function (step, attempt) -> batch of features for the head; None if each step needs the whole model.

    That is the case if the features would change, or if the task may use more of the model than its logits.
    """
    if not probes_fixed_features(config) or type(task) is not Supervised:
        return None
    features = compute_features(model, loader.each_once(FEATURE_BATCH), precision)
    return lambda step, attempt: loader.features_batch(features, step)


@torch.no_grad()
def compute_features(model: VisionTransformer, batches: Iterable[Batch], precision: str) -> Tensor:
    """Return the input of the head for each image of the batches, in order: `[images, num_features]`, float32."""
    model.eval()
    features = []
    for batch in batches:
        with autocast(batch.images.device, precision):
            features.append(model.pooled(batch.images).float())
    return torch.cat(features)
