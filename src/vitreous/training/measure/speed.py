"""RunConfig -> time of its training steps and evaluations on this machine, measured with a temporary model."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from vitreous import processes
from vitreous.data.build import build_mix
from vitreous.data.loader import Batch
from vitreous.model.build import build_model
from vitreous.model.change.trim import trim_last_block
from vitreous.model.parts.attention import AttentionKernel
from vitreous.model.vit import VisionTransformer
from vitreous.objective.build import build_task
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe.pace import Pace
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.device import autocast, precision_of, resolve_device
from vitreous.training.step.compiled import compile_model
from vitreous.training.step.curriculum import Curriculum
from vitreous.training.step.features import compute_features, output_shape, trained_part
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.learner import new_model, pretext_task, ready_to_train
from vitreous.training.step.run_ahead import Steps, can_run_ahead
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings
from vitreous.training.weights.pretrained import Pretrained
from vitreous.training.weights.teacher import build_teacher

MEASURED_S = 1.0
"""Seconds for which a measurement is repeated; the median of at least three repetitions counts unless they are slow."""
SLOW_S = 5.0
"""Work that takes this many seconds is not repeated."""
STEADY_S = 0.25
"""Steps that take this many seconds are compared in one turn: interruptions change them little."""
MEASURED_SHARE = 0.01
"""Share of a time budget after which one measurement ends, even after a single repetition."""
_END_STEP = 1_000_000
_NUM_IMAGES = 32
"""Number of images per batch when the speed of features is measured."""


def training_pace(config: RunConfig, teacher: Pretrained | None = None, *, seconds: float = MEASURED_S) -> Pace:
    """Measure training steps, with the teacher, on random images for `seconds` over all stretches of the run."""
    device, precision = resolve_device(config.train.device), precision_of(config.train)
    model = ready_to_train(new_model(config), config)
    state = TrainState(model, Ema(model), build_optimizer(model, config.optim, precision), Horizon(end_step=_END_STEP))
    curriculum, trained = Curriculum(config), None if config.objective.runs_teacher else trained_part(config, model)
    settings = StepSettings(
        task=pretext_task(config) or build_task(config.objective, teacher=build_teacher(teacher, config)).to(device),
        optim=config.optim,
        precision=precision,
        seed=0,
        mix=build_mix(config.data),
        num_micro_batches=config.train.micro_batches,
        curriculum=curriculum,
        trained=trained,
        compiled=compile_model(model, config.train.compile) if trained is None else None,
    )
    images, labels = random_batch(config, device)
    if trained is not None:
        images = torch.zeros(len(images), *output_shape(config), device=device)
    batch = Batch(images, labels, np.arange(len(images)))
    steps = Steps(settings, lambda step, attempt: batch, runs_ahead=can_run_ahead(state))

    def step() -> None:
        steps.take(state)
        state.step += 1

    stretches, measured = curriculum.stretches(), []
    seconds, slow_s = _patience(config, seconds)
    for start, end, _ in stretches:
        state.step = round((start + end) / 2 * _END_STEP)
        measured.append((start, end, median_s(step, seconds / len(stretches), slow_s / len(stretches))))
    if settings.compiled is not None:
        torch.compiler.reset()  # frees what was compiled for the temporary model
    return Pace(tuple(measured))


def attention_paces(
    config: RunConfig, teacher: Pretrained | None, measure: Callable[[RunConfig, Pretrained | None], Pace]
) -> dict[AttentionKernel, Pace]:
    """Measure training steps with each attention kernel: the faster of two turns; one turn if steps take long."""
    paces: dict[AttentionKernel, Pace] = {}
    turns: tuple[AttentionKernel, ...] = ("explicit", "sdpa", "sdpa", "explicit")
    for kernel in turns:
        if len(paces) == 2 and max(pace.mean_s() for pace in paces.values()) > STEADY_S:
            break
        pace = measure(replace(config, train=replace(config.train, attention_kernel=kernel)), teacher)
        if kernel not in paces or pace.mean_s() < paces[kernel].mean_s():
            paces[kernel] = pace
    return paces


def evaluation_images_per_s(config: RunConfig, *, seconds: float = MEASURED_S) -> float:
    """Measure images per second of the final evaluation: a forward pass on random images, in float32."""
    device = resolve_device(config.train.device)
    model = trim_last_block(build_model(config.model, device=device)).eval()
    images, _ = random_batch(config, device)

    def forward() -> None:
        with torch.inference_mode(), autocast(device, "fp32"):
            model(images).float().cpu()

    return len(images) * processes.count() / median_s(forward, *_patience(config, seconds))


def features_per_s(model: VisionTransformer, device: torch.device, precision: str) -> float:
    """Measure images per second of a model that computes features, on random images."""
    config, model = model.config, model.to(device)
    images = torch.randn(_NUM_IMAGES, config.in_chans, *config.img_size, device=device)
    batch = Batch(images, torch.zeros(_NUM_IMAGES, dtype=torch.int64), np.arange(_NUM_IMAGES))
    return _NUM_IMAGES / median_s(lambda: compute_features(model, [batch], precision).cpu())


def _patience(config: RunConfig, seconds: float) -> tuple[float, float]:
    """Return how long to repeat a measurement, and after how many seconds few repetitions are enough."""
    most_s = MEASURED_SHARE * config.train.budget_s or SLOW_S
    return min(seconds, most_s), min(SLOW_S, most_s)


def random_batch(config: RunConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random images and labels, of the number that one of the processes gets for each step."""
    generator = torch.Generator().manual_seed(0)
    num = math.ceil(config.data.batch_size / processes.count())
    num -= num % config.data.repeats if num > config.data.repeats else 0
    shape = (num, config.data.in_chans, *config.data.img_size)
    labels = torch.randint(config.data.num_classes, shape[:1], generator=generator)
    return torch.randn(shape, generator=generator).to(device), labels.to(device)


def median_s(
    work: Callable[[], object],
    seconds: float = MEASURED_S,
    slow_s: float = SLOW_S,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the median seconds of repetitions of `work`, without the first one; the lower one of two.

    `work` must wait for its own result, as a device may compute asynchronously. It is repeated for some seconds. After
    `slow_s`, two repetitions are enough; one, if it takes twice as long.
    """
    work()
    durations: list[float] = []
    while (
        sum(durations) < seconds
        or (len(durations) < 3 and sum(durations) < slow_s)
        or (len(durations) == 1 and durations[0] < 2 * slow_s)  # the first one may have been slow by chance
    ):
        began_s = clock()
        work()
        durations.append(clock() - began_s)
    return sorted(durations)[(len(durations) - 1) // 2]
