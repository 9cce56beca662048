"""TrainState, batch -> the next TrainState: the mathematics of one step, which is rejected if it is not finite."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitreous.data.augmentation.mix import Mix
from vitreous.objective.task import Task
from vitreous.optim.config import OptimConfig
from vitreous.optim.ema import ema_decay
from vitreous.optim.sam import uphill
from vitreous.optim.schedule import learning_rate_share
from vitreous.optim.schedule_free import ScheduleFree
from vitreous.seeding import derive
from vitreous.tensors import Features, Images, Labels, Probabilities, Targets
from vitreous.training.machine.device import autocast, float32_products
from vitreous.training.machine.distributed import SINGLE, Group
from vitreous.training.machine.parallel import Parallel, full_tensor
from vitreous.training.step.curriculum import Curriculum
from vitreous.training.step.state import TrainState
from vitreous.transfer import Reading


@dataclass(frozen=True)
class StepResult:
    """Numbers of one step.

    Attributes:
        loss: Loss of the batch before the update.
        grad_norm: Global norm of the gradient before clipping.
        lr: Learning rate of the step, before any layer-wise decay.
        correct: Number of images whose largest logit is the right class; for a mixed image, the class with the larger
            share. With several labels per image, number of images for which all of them are right.
        num_images: Number of images in the batch, over all processes.
        applied: False if the step was rejected; then weights, average and moments did not change.
    """

    loss: float
    grad_norm: float
    lr: float
    correct: int
    num_images: int
    applied: bool


@dataclass(frozen=True)
class StepSettings:
    """Everything that stays the same from step to step.

    Attributes:
        task: The task whose loss is minimized.
        optim: Configuration of optimizer, schedule, clipping and average.
        precision: One of `PRECISIONS`.
        seed: Seed of the run.
        mix: Mixing of images (mixup, CutMix); None does not mix.
        num_micro_batches: Number of micro-batches that a batch is split into. Their gradients add up to the gradient of
            the batch, in less memory.
        curriculum: Changes of image size, patch dropping and frozen layers during the run; None changes nothing.
        trained: The part of the model to run, if batches hold the precomputed outputs of the part before it; None runs
            the whole model.
        parallel: Gradient exchange between processes, each of which has a share of the batch; None for one process.
        compiled: Compiled module to call instead of the model, whose weights it shares; None calls the model.
        augment: Augmentation of the user's own, see `vitreous.register`; None for none.
    """

    task: Task
    optim: OptimConfig
    precision: str
    seed: int
    mix: Mix | None = None
    num_micro_batches: int = 1
    curriculum: Curriculum | None = None
    trained: nn.Module | None = None
    parallel: Parallel | None = None
    compiled: nn.Module | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    @property
    def group(self) -> Group:
        """The processes that take the step together."""
        return SINGLE if self.parallel is None else self.parallel.group


@dataclass(frozen=True)
class Gradient:
    """The clipped gradient of a batch. It is in the parameters, and a GPU may still be computing it.

    Attributes:
        lr: Learning rate of the step, before any layer-wise decay.
        is_finite: One truth value on the device: whether loss and gradient are finite.
        numbers: Loss, gradient norm, number of correct images and number of images, on their way to the host.
    """

    lr: float
    is_finite: Tensor
    numbers: Reading

    def result(self) -> StepResult:
        """Wait for the numbers and return them. The step counts as applied if loss and gradient norm are finite."""
        loss, grad_norm, num_correct, num_images = self.numbers.values()
        return StepResult(
            loss=loss,
            grad_norm=grad_norm,
            lr=self.lr,
            correct=int(num_correct),
            num_images=int(num_images),
            applied=math.isfinite(loss) and math.isfinite(grad_norm),
        )


def train_step(state: TrainState, images: Images | Features, labels: Targets, settings: StepSettings) -> StepResult:
    """Mix, forward, backward, clip, update and average; change nothing unless loss and gradient are finite.

    Random draws depend only on (seed, step, attempt, rank), so a resumed run draws the same numbers. All processes of a
    group get the same result, and all of them apply or reject the step.
    """
    gradient = compute_gradient(state, images, labels, settings)
    result = gradient.result()
    if result.applied:
        apply_gradient(state, gradient)
        update_average(state, settings.optim)
    state.optimizer.zero_grad(set_to_none=True)
    return result


def compute_gradient(state: TrainState, images: Images | Features, labels: Targets, settings: StepSettings) -> Gradient:
    """Mix, forward, backward and clip. The host does not wait for the device, unless positions are recomputed."""
    optim, progress = settings.optim, state.horizon.progress(state.step)
    # The rate is that of the middle of the step: at its start, the first step of the warm-up would have a rate of zero.
    half_step = 0.5 * (state.horizon.progress(state.step + 1) - progress)
    lr = optim.lr * state.lr_scale * learning_rate_share(progress + half_step, optim)

    images, targets = _mixed(state, images, labels, settings)
    loss, correct = backward(state, images, targets, settings)
    if optim.sam_rho:
        with uphill(state.model.parameters(), optim.sam_rho):
            backward(state, images, targets, settings)
    grad_norm = nn.utils.clip_grad_norm_(state.model.parameters(), optim.clip_norm or math.inf)

    sums = settings.group.sum(torch.stack([loss, correct.float(), torch.full_like(loss, len(images))]))
    norm = full_tensor(grad_norm).float()
    return Gradient(
        lr=lr,
        is_finite=norm.isfinite() & sums[0].isfinite(),
        numbers=Reading(torch.stack([sums[0], norm, sums[1], sums[2]])),
    )


def apply_gradient(state: TrainState, gradient: Gradient) -> None:
    """Let the optimizer update the weights with the gradient."""
    for group in state.optimizer.param_groups:
        group["lr"] = gradient.lr * group["lr_ratio"]
    state.optimizer.step()


def update_average(state: TrainState, optim: OptimConfig) -> None:
    """Update the moving average of the weights after a step."""
    if isinstance(state.optimizer, ScheduleFree):
        state.ema.take(state.optimizer.average)
        return
    if optim.ema_window_ratio:
        decay = ema_decay(state.step, total_steps=state.horizon.end_step, window_ratio=optim.ema_window_ratio)
    else:
        decay = 0.0
    state.ema.update(decay)


def backward(
    state: TrainState, images: Images | Features, targets: Labels | Probabilities, settings: StepSettings
) -> tuple[Tensor, Tensor]:
    """Add the gradient of this process's images to the parameters, one micro-batch after the other.

    Returns:
        This process's share of the batch's loss, and its number of correct images.
    """
    torch.manual_seed(_seed_of("dropout", state, settings))
    state.model.train()
    if settings.curriculum is not None:
        settings.curriculum.enter(state.model, state.progress)
    whole_model = state.model if settings.compiled is None else settings.compiled
    model = settings.trained or whole_model
    total = settings.group.sum(settings.task.total(targets))
    loss, correct = total.new_zeros(()), total.new_zeros((), dtype=torch.int64)
    micro_batches = _micro_batches(images, targets, settings)
    for number, (some_images, some_targets) in enumerate(micro_batches, start=1):
        with autocast(images.device, settings.precision):
            if settings.parallel is None:
                micro_loss, logits = settings.task(model, some_images, some_targets, total)
            else:
                is_last = number == len(micro_batches)
                micro_loss, logits = settings.parallel.run(
                    settings.task, model, some_images, some_targets, total, is_last=is_last
                )
        with float32_products(settings.precision):
            micro_loss.backward()
        loss += micro_loss.detach()
        correct += settings.task.num_correct(logits.detach(), some_targets)
    return loss, correct


def find_non_finite(state: TrainState, images: Images | Features, labels: Targets, settings: StepSettings) -> str:
    """Name what was not finite first in a rejected step: an image, a module's output, the loss, or a gradient."""
    if cause := _first_cause("" if images.isfinite().all() else "an image of the batch", settings):
        return cause
    images, targets = _mixed(state, images, labels, settings)
    torch.manual_seed(_seed_of("dropout", state, settings))
    total = settings.group.sum(settings.task.total(targets))
    try:
        for some_images, some_targets in _micro_batches(images, targets, settings):
            with _non_finite_modules(state.model) as modules, autocast(images.device, settings.precision):
                loss, _ = settings.task(settings.trained or state.model, some_images, some_targets, total)
            own_cause = f"the output of {modules[0]}" if modules else "" if loss.isfinite() else "the loss"
            if cause := _first_cause(own_cause, settings):
                return cause
            with float32_products(settings.precision):
                loss.backward()
        gradients = [(name, p.grad) for name, p in state.model.named_parameters() if p.grad is not None]
        # The backward pass runs from the head to the tokenizer, so it reached the last of these parameters first.
        names = [name for name, gradient in gradients if not full_tensor(gradient).isfinite().all()]
        return _first_cause(f"the gradient of {names[-1]}" if names else "", settings) or "the gradient's norm"
    finally:
        state.optimizer.zero_grad(set_to_none=True)


@contextmanager
def _non_finite_modules(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of the innermost modules whose output is not finite, in the order of the forward pass.

    `vitreous.model.taps` would keep every output in memory, which is too much for a run with gradient checkpointing.
    """
    innermost = {module: name for name, module in model.named_modules() if name and not any(module.children())}
    names: list[str] = []

    def check(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            names.append(innermost[module])

    handles = [module.register_forward_hook(check) for module in innermost]
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


def _first_cause(cause: str, settings: StepSettings) -> str:
    """Return the cause of the first process that has one, by rank; empty if none has."""
    return next(filter(None, settings.group.gather(cause)), "")


def _micro_batches(
    images: Images | Features, targets: Labels | Probabilities, settings: StepSettings
) -> list[tuple[Tensor, Tensor]]:
    """Return the images and targets of each micro-batch, which has at least one image."""
    num = min(settings.num_micro_batches, len(images))
    return list(zip(images.tensor_split(num), targets.tensor_split(num), strict=True))


def _mixed(
    state: TrainState, images: Images | Features, labels: Targets, settings: StepSettings
) -> tuple[Images | Features, Labels | Probabilities]:
    """Return the images as the model gets them at this step, resized and mixed, and their targets."""
    if settings.curriculum is not None and settings.trained is None:
        images = settings.curriculum.resized(images, state.progress)
    if settings.augment is not None:
        draw = torch.Generator(images.device).manual_seed(_seed_of("extension", state, settings))
        images = settings.augment(images, draw)
    if settings.mix is None or state.progress >= settings.mix.until:
        return images, labels
    return settings.mix(images, labels, _seed_of("mix", state, settings))


def _seed_of(purpose: str, state: TrainState, settings: StepSettings) -> int:
    """Return a seed that depends on the step and its attempt; rank 0 draws what a single process would draw."""
    rank = settings.group.rank
    return derive(settings.seed, purpose, state.step, state.attempt, *([rank] if rank else []))
