"""RunConfig -> the model that training steps train, and tasks without labels or with a loss of the user's own."""

from dataclasses import replace
from typing import cast

from torch import Generator

from vitreous.errors import ConfigError
from vitreous.extensions import find_extension
from vitreous.model.build import build_model
from vitreous.model.change.trim import trim_last_block
from vitreous.model.pretext import with_pretext
from vitreous.model.vit import VisionTransformer
from vitreous.objective.build import build_pretext_task
from vitreous.objective.config import Pretext
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.own import OwnLoss
from vitreous.objective.task import Supervised, Task, UnlabeledTask
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.device import resolve_device
from vitreous.training.step.freeze import make_trainable


def new_model(config: RunConfig, generator: Generator | None = None) -> VisionTransformer:
    """Return the model of a run with new weights on its device; without labels, it has no head.

    The generator is one of the CPU; None uses torch's global one.
    """
    device = resolve_device(config.train.device)
    if not config.objective.uses_labels:
        return build_model(replace(config.model, num_classes=0), device=device, generator=generator)
    return trim_last_block(build_model(config.model, device=device, generator=generator))


def ready_to_train(
    model: VisionTransformer, config: RunConfig, generator: Generator | None = None
) -> VisionTransformer:
    """Return the model as training steps need it; the generator draws new weights, as in `new_model`.

    Parts are frozen, adapters added and kernels chosen as the configuration says. Without labels, the model gets a
    decoder or a projector.

    Raises:
        ConfigError: The rank of the adapters is too large for the width of the model.
    """
    objective = config.objective
    if not objective.uses_labels:
        loss = cast("Pretext", objective.loss)
        model = with_pretext(model, loss, decoder_depth=objective.decoder_depth, generator=generator)
    make_trainable(model, config.train, generator)
    model.set_grad_checkpointing(config.train.grad_checkpointing)
    model.set_attention_kernel(config.train.kernel)
    return model


def with_own_loss(task: Task, extension: str | None) -> Task:
    """Return a task with the loss of an extension, if it has one, instead of the cross-entropy of labels.

    Raises:
        ConfigError: The task is another one.
    """
    loss = find_extension(extension).loss
    if loss is None:
        return task
    if type(task) is not Supervised or type(task.criterion) is not CrossEntropy:
        raise ConfigError(
            f"model.extension={extension}: has a loss of its own, which replaces only the usual cross-entropy; leave "
            "out objective.loss, objective.teacher and objective.logit_adjustment, and give each image one label"
        )
    weights = task.criterion.weights
    return Supervised(OwnLoss(loss, None if weights is None else weights.tolist()))


def pretext_task(config: RunConfig) -> UnlabeledTask | None:
    """Return the task of a run without labels; None if the run uses them."""
    if config.objective.uses_labels:
        return None
    return build_pretext_task(config.objective, patch_size=config.model.patch_size, num_views=config.data.repeats)
