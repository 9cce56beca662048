"""Layers that never change, training images -> their outputs, computed once, and the part that is trained."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitreous.data.loader import Batch, TrainLoader
from vitreous.model.change.last_blocks import LastBlocks
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import RunConfig
from vitreous.tensors import Images
from vitreous.training.machine.device import autocast
from vitreous.training.step.curriculum import is_linear_probe, probes_fixed_features
from vitreous.training.step.views import View, own_view, pooled, views_of

FEATURE_BATCH = 256
"""Number of images per batch when features are computed."""
_TIMED_BATCH = 32
"""The same in a run with a time budget, which is looked at after each batch."""
MOST_OUTPUT_BYTES = 2 * 2**30
"""Outputs that take more memory are computed again in each step."""


@dataclass(eq=False)
class FixedOutputs:
    """Outputs of the first layers for each training image.

    They are computed at the first use, when the weights of these layers are complete. Those of blocks are stored in
    the precision of the run.

    Attributes:
        model: The model. Its first layers are frozen.
        trained: The part of the model that takes the outputs: its head, or its last blocks.
        loader: The training images, which are not augmented.
        precision: Precision of the computation.
    """

    model: VisionTransformer
    trained: nn.Module
    loader: TrainLoader
    precision: str

    @cached_property
    def outputs(self) -> Tensor:
        """Features, `[images, num_features]`, or the tokens that enter the first trained block."""
        batches = self.loader.each_once(FEATURE_BATCH)
        if not isinstance(self.trained, LastBlocks):
            return compute_features(self.model, batches, self.precision)
        entering, dtype = self.trained.entering, torch.bfloat16 if self.precision == "bf16" else torch.float32
        return _outputs(self.model, lambda images: entering(images).to(dtype), batches, self.precision)

    def batch(self, step: int, attempt: int = 0) -> Batch:
        """Return the batch of a step, with outputs instead of images."""
        return self.loader.features_batch(self.outputs, step)

    @torch.no_grad()
    def views(self, positions: NDArray[np.int64]) -> dict[View, Tensor]:
        """Return the input of the head for some training images, and the features after the last frozen block.

        Each is float32, `[images, features]`; that of the head comes first.
        """
        chosen = self.outputs[torch.from_numpy(positions).to(self.outputs.device)]
        if not isinstance(self.trained, LastBlocks):
            return {own_view(self.model): chosen}
        self.model.eval()
        found: dict[View, list[Tensor]] = {view: [] for view in views_of(self.model, [self.trained.first])}
        own, *others = found
        for tokens in chosen.split(FEATURE_BATCH):
            with autocast(tokens.device, self.precision):
                found[own].append(self.trained.pooled(tokens).float())
                for view in others:
                    found[view].append(pooled(self.model, tokens, view.pool).float())
        return {view: torch.cat(parts) for view, parts in found.items()}


def feature_batch(config: RunConfig) -> int:
    """Return the number of images per batch of a pass that ends when its time is up."""
    return _TIMED_BATCH if config.train.budget_s else FEATURE_BATCH


def fixed_outputs(
    config: RunConfig, model: VisionTransformer, loader: TrainLoader, precision: str
) -> FixedOutputs | None:
    """Return the outputs of the layers that the run never changes; None if there are none, or if they take too much."""
    trained = trained_part(config, model)
    if trained is None or config.objective.runs_teacher:
        return None
    num_images = len(loader.each_once(FEATURE_BATCH).labels)
    if output_bytes(config, num_images, precision) > MOST_OUTPUT_BYTES:
        return None
    return FixedOutputs(model, trained, loader, precision)


def trained_part(config: RunConfig, model: VisionTransformer) -> nn.Module | None:
    """Return the part of the model that follows the layers that never change; None if there are no such layers."""
    if probes_fixed_features(config):
        return model.head
    first = config.train.freeze_blocks if config.train.reuse_frozen else 0
    return LastBlocks(model, first) if first else None


def output_shape(config: RunConfig) -> tuple[int, ...]:
    """Return the shape of the output of the layers that never change, for one image."""
    if is_linear_probe(config):
        return (config.model.num_features,)
    return config.model.num_tokens, config.model.embed_dim


def output_bytes(config: RunConfig, num_images: int, precision: str) -> int:
    """Return the bytes that these outputs take for all images."""
    is_bf16 = precision == "bf16" and not is_linear_probe(config)
    return num_images * math.prod(output_shape(config)) * (2 if is_bf16 else 4)


def compute_features(model: VisionTransformer, batches: Iterable[Batch], precision: str) -> Tensor:
    """Return the input of the head for each image of the batches, in order: `[images, num_features]`, float32."""
    return _outputs(model, lambda images: model.pooled(images).float(), batches, precision)


@torch.no_grad()
def _outputs(
    model: VisionTransformer, part: Callable[[Images], Tensor], batches: Iterable[Batch], precision: str
) -> Tensor:
    """Return what a part of a model, in evaluation mode, gives for the images of all batches."""
    model.eval()
    outputs = []
    for batch in batches:
        with autocast(batch.images.device, precision):
            outputs.append(part(batch.images))
    return torch.cat(outputs)
