"""TrainState, batch -> the next TrainState: the mathematics of one step, refused where not finite."""

import math
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
from vitreous.tensors import Features, Images, Labels, Probabilities
from vitreous.training.machine.device import autocast, float32_products
from vitreous.training.machine.distributed import ALONE, Group
from vitreous.training.machine.parallel import Parallel, whole
from vitreous.training.step.curriculum import Curriculum
from vitreous.training.step.state import TrainState
from vitreous.transfer import Reading


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    Attributes:
        loss: Of the batch, before the update.
        grad_norm: Global norm of the gradient that the step followed, before clipping.
        lr: Learning rate of the step, where a layer has no share of its own.
        correct: Images of the batch whose largest logit was the right one; of a mixed image, the label of its larger
            share.
        num_images: Of the batch, over all processes.
        applied: False where the step was refused: weights, average and moments are as before.
    """

    loss: float
    grad_norm: float
    lr: float
    correct: int
    num_images: int
    applied: bool


@dataclass(frozen=True)
class StepSettings:
    """What stays the same from step to step.

    Attributes:
        task: What is minimised.
        optim: How the weights follow the gradient.
        precision: One of `PRECISIONS`.
        seed: Of the run.
        mix: None where no images are mixed.
        num_parts: Parts that a batch is cut into; their gradients add up to the batch's, in less memory.
        curriculum: What else changes over the run; None: nothing does.
        takes_features: Images are what the head takes, computed once: the head alone runs.
        parallel: Where several processes train, what joins their gradients; each has its part of the batch.
        compiled: What is called instead of the state's model, and shares its weights; None: that itself.
    """

    task: Task
    optim: OptimConfig
    precision: str
    seed: int
    mix: Mix | None = None
    num_parts: int = 1
    curriculum: Curriculum | None = None
    takes_features: bool = False
    parallel: Parallel | None = None
    compiled: nn.Module | None = None

    @property
    def group(self) -> Group:
        """The processes that take the step together."""
        return ALONE if self.parallel is None else self.parallel.group

    @property
    def own_draws(self) -> tuple[int, ...]:
        """What a process's draws differ by from those of the others; the first one's are as if it were alone."""
        return (self.group.rank,) if self.group.rank else ()


@dataclass(frozen=True)
class Gradient:
    """A batch's gradient: it lies in the parameters, clipped, and the device may still be computing it.

    Attributes:
        lr: Learning rate of its step, where a layer has no share of its own.
        is_finite: Whether loss and gradient are, one truth value.
        numbers: Loss, norm, how many images are right, how many there are; on their way to the host.
    """

    lr: float
    is_finite: Tensor
    numbers: Reading

    def result(self) -> StepResult:
        """What comes of the step, once it is known: nothing is applied that is not finite."""
        loss, norm, num_correct, num = self.numbers.values()
        applied = math.isfinite(loss) and math.isfinite(norm)
        return StepResult(loss, norm, self.lr, int(num_correct), int(num), applied)


def train_step(state: TrainState, images: Images | Features, labels: Labels, settings: StepSettings) -> StepResult:
    """Mix, forward, backward, clip, update, average; refused as a whole unless loss and gradient are finite.

    Draws of mixing and dropout depend on (seed, step, attempt, process) alone, so a resumed run draws the same ones.
    Where several processes train, all have the same result, and refuse alike.
    """
    gradient = find_gradient(state, images, labels, settings)
    result = gradient.result()
    if result.applied:
        follow(state, gradient)
        average(state, settings.optim)
    state.optimizer.zero_grad(set_to_none=True)
    return result


def find_gradient(state: TrainState, images: Images | Features, labels: Labels, settings: StepSettings) -> Gradient:
    """Mix, forward, backward, clip; the host waits for none of it, unless positions are computed anew."""
    optim, progress = settings.optim, state.horizon.progress(state.step)
    # The first step is at a half step of warm-up, not at zero: every step moves the weights.
    half_step = 0.5 * (state.horizon.progress(state.step + 1) - progress)
    lr = optim.lr * state.lr_scale * learning_rate_share(progress + half_step, optim)

    images, targets = _mixed(state, images, labels, settings)
    loss, correct = backward(state, images, targets, settings)
    if optim.sam_rho:
        with uphill(state.model.parameters(), optim.sam_rho):
            backward(state, images, targets, settings)
    grad_norm = nn.utils.clip_grad_norm_(state.model.parameters(), optim.clip_norm or math.inf)

    sums = settings.group.add_up(torch.stack([loss, correct.float(), torch.full_like(loss, len(images))]))
    norm = whole(grad_norm).float()
    return Gradient(
        lr=lr,
        is_finite=norm.isfinite() & sums[0].isfinite(),
        numbers=Reading(torch.stack([sums[0], norm, sums[1], sums[2]])),
    )


def follow(state: TrainState, gradient: Gradient) -> None:
    """Move the weights by what the optimiser makes of a gradient."""
    for group in state.optimizer.param_groups:
        group["lr"] = gradient.lr * group["lr_ratio"]
    state.optimizer.step()


def average(state: TrainState, optim: OptimConfig) -> None:
    """Let the average follow the weights."""
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
    """Leave the batch's gradient in the parameters; returns this process's part of its loss, and of what was right.

    Targets are labels, or probabilities where images were mixed. Draws of dropout depend on the step alone.
    """
    torch.manual_seed(derive(settings.seed, "dropout", state.step, state.attempt, *settings.own_draws))
    state.model.train()
    if settings.curriculum is not None:
        settings.curriculum.enter(state.model, state.progress)
    whole_model = state.model if settings.compiled is None else settings.compiled
    model = state.model.head if settings.takes_features else whole_model
    total = settings.group.add_up(settings.task.total(targets))
    loss, correct = total.new_zeros(()), total.new_zeros((), dtype=torch.int64)
    num_parts = min(settings.num_parts, len(images))
    parts = zip(images.tensor_split(num_parts), targets.tensor_split(num_parts), strict=True)
    for number, (part, part_targets) in enumerate(parts, start=1):
        with autocast(images.device, settings.precision):
            if settings.parallel is None:
                part_loss, logits = settings.task(model, part, part_targets, total)
            else:
                is_last = number == num_parts
                part_loss, logits = settings.parallel.run(
                    settings.task, model, part, part_targets, total, is_last=is_last
                )
        with float32_products(settings.precision):
            part_loss.backward()
        called = logits.detach().argmax(dim=1)
        loss += part_loss.detach()
        correct += (called == (part_targets.argmax(dim=1) if targets.is_floating_point() else part_targets)).sum()
    return loss, correct


def find_non_finite(state: TrainState, images: Images | Features, labels: Labels, settings: StepSettings) -> str:
    """Name what was first not finite in a refused step: images, the output of a module, the loss, or a gradient."""
    if cause := _agreed("" if images.isfinite().all() else "an image of the batch", settings):
        return cause
    found: list[str] = []

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return state.model.get_submodule(name).register_forward_hook(hook)

    images, targets = _mixed(state, images, labels, settings)
    handles = [watch(name) for name, module in state.model.named_modules() if name and not any(module.children())]
    torch.manual_seed(derive(settings.seed, "dropout", state.step, state.attempt, *settings.own_draws))
    with autocast(images.device, settings.precision):
        loss, _ = settings.task(state.model.head if settings.takes_features else state.model, images, targets)
    for handle in handles:
        handle.remove()
    own_cause = f"the output of {found[0]}" if found else "" if loss.isfinite() else "the loss"
    if cause := _agreed(own_cause, settings):
        return cause
    with float32_products(settings.precision):
        loss.backward()
    gradients = [(name, parameter.grad) for name, parameter in state.model.named_parameters()]
    state.optimizer.zero_grad(set_to_none=True)
    # The backward pass runs from the head to the tokens: the last such parameter was reached first.
    names = [name for name, gradient in gradients if gradient is not None and not whole(gradient).isfinite().all()]
    return _agreed(f"the gradient of {names[-1]}" if names else "", settings) or "the gradient's norm"


def _agreed(cause: str, settings: StepSettings) -> str:
    """The cause that this process found, or else that of the first one that found any."""
    return next(filter(None, settings.group.gather(cause)), "")


def _mixed(
    state: TrainState, images: Images | Features, labels: Labels, settings: StepSettings
) -> tuple[Images | Features, Labels | Probabilities]:
    """The batch as the model sees it at this step, and what it should say."""
    if settings.curriculum is not None and not settings.takes_features:
        images = settings.curriculum.resized(images, state.progress)
    if settings.mix is None or state.progress >= settings.mix.until:
        return images, labels
    return settings.mix(images, labels, derive(settings.seed, "mix", state.step, state.attempt, *settings.own_draws))
