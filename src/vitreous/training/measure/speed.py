"""RunConfig -> what its steps and evaluations cost on this machine, measured for a moment on a throw-away model."""

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
from vitreous.model.parts.attention import AttentionKernel
from vitreous.objective.build import build_task
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe.run_config import RunConfig
from vitreous.training.fit.budget import Pace
from vitreous.training.machine.device import autocast, resolve_device, resolve_precision
from vitreous.training.step.compiled import compile_model
from vitreous.training.step.curriculum import Curriculum, probes_fixed_features
from vitreous.training.step.freeze import make_trainable
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.run_ahead import Steps, can_run_ahead
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings
from vitreous.training.weights.pretrained import Pretrained
from vitreous.training.weights.teacher import build_teacher

MEASURED_S = 1.0
"""Seconds of repetitions after the first, three at least unless they are slow; the median of these counts."""
SLOW_S = 5.0
"""What takes this long is not repeated: measuring must not eat the budget."""
_END_STEP = 1_000_000


def training_images_per_s(config: RunConfig, teacher: Pretrained | None = None) -> float:
    """Images per second of whole training steps on random images, over the whole run where their cost changes."""
    return config.data.batch_size / training_pace(config, teacher).mean_s(0.0, 1.0)


def training_pace(config: RunConfig, teacher: Pretrained | None = None) -> Pace:
    """Seconds of a whole training step on random images, that of a teacher included, for each stretch of the run."""
    device, precision = _resolve(config)
    model = build_model(config.model, device=device)
    make_trainable(model, config.train)
    model.set_grad_checkpointing(config.train.grad_checkpointing)
    model.set_attention_kernel(config.train.kernel)
    state = TrainState(model, Ema(model), build_optimizer(model, config.optim), Horizon(end_step=_END_STEP))
    mix = build_mix(config.data)
    task = build_task(config.objective, teacher=build_teacher(teacher, config)).to(device)
    curriculum, probes = Curriculum(config), probes_fixed_features(config) and teacher is None
    compiled = None if probes else compile_model(model, config.train.compile)
    settings = StepSettings(
        task=task,
        optim=config.optim,
        precision=precision,
        seed=0,
        mix=mix,
        num_micro_batches=config.train.micro_batches,
        curriculum=curriculum,
        takes_features=probes,
        compiled=compiled,
    )
    images, labels = _random_batch(config, device)
    if probes:
        images = torch.zeros(len(images), config.model.num_features, device=device)
    batch = Batch(images, labels, np.arange(len(images)))
    steps = Steps(settings, lambda step, attempt: batch, runs_ahead=can_run_ahead(state))

    def step() -> None:
        steps.take(state)
        state.step += 1

    stretches, found = curriculum.stretches(), []
    for start, end, _ in stretches:
        state.step = round((start + end) / 2 * _END_STEP)
        found.append((start, end, _median_s(step, 1 / len(stretches))))
    if compiled is not None:
        torch.compiler.reset()  # of what was compiled for a model that is thrown away now
    return Pace(tuple(found))


def attention_s(config: RunConfig, teacher: Pretrained | None = None) -> dict[AttentionKernel, float]:
    """Seconds of a whole training step by kernel of attention; the better of two turns, unless a step is slow."""
    seconds: dict[AttentionKernel, float] = {}
    turns: tuple[AttentionKernel, ...] = ("explicit", "sdpa", "sdpa", "explicit")
    for kernel in turns:
        if len(seconds) == 2 and max(seconds.values()) > SLOW_S:
            break
        pace = training_pace(replace(config, train=replace(config.train, attention_kernel=kernel)), teacher)
        seconds[kernel] = min(pace.mean_s(0.0, 1.0), seconds.get(kernel, math.inf))
    return seconds


def evaluation_images_per_s(config: RunConfig) -> float:
    """Images per second of the forward pass alone."""
    device, precision = _resolve(config)
    model = build_model(config.model, device=device).eval()
    images, _ = _random_batch(config, device)

    def forward() -> None:
        with torch.inference_mode(), autocast(device, precision):
            model(images).float().cpu()

    return len(images) * processes.count() / _median_s(forward)


def _resolve(config: RunConfig) -> tuple[torch.device, str]:
    device = resolve_device(config.train.device)
    return device, resolve_precision(config.train.precision, device)


def _random_batch(config: RunConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Several processes take a step together, each with its share of the batch.
    num = math.ceil(config.data.batch_size / processes.count())
    shape = (num, config.data.in_chans, *config.data.img_size)
    labels = torch.randint(config.data.num_classes, shape[:1], generator=generator)
    return torch.randn(shape, generator=generator).to(device), labels.to(device)


def _median_s(work: Callable[[], object], share: float = 1.0) -> float:
    """Median seconds of `work`, measured for a share of the usual time; each call must wait for its own result."""
    work()
    seconds: list[float] = []
    while sum(seconds) < MEASURED_S * share or (len(seconds) < 3 and sum(seconds) < SLOW_S * share):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[len(seconds) // 2]
