"""RunConfig -> what its steps and evaluations cost on this machine, measured for a moment on a throw-away model."""

import time
from collections.abc import Callable

import torch

from vitreous.data.build import build_mix
from vitreous.model.build import build_model
from vitreous.objective.build import build_task
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe.run_config import RunConfig
from vitreous.train.device import autocast, resolve_device, resolve_precision
from vitreous.train.horizon import Horizon
from vitreous.train.state import TrainState
from vitreous.train.step import StepSettings, train_step

MEASURED_S = 1.0
"""Seconds of repetitions after the first, three at least unless they are slow; the median of these counts."""
SLOW_S = 5.0
"""What takes this long is not repeated: measuring must not eat the budget."""


def training_images_per_s(config: RunConfig) -> float:
    """Images per second of whole training steps on random images."""
    device, precision = _resolve(config)
    model = build_model(config.model, device=device)
    model.set_grad_checkpointing(config.train.grad_checkpointing)
    state = TrainState(model, Ema(model), build_optimizer(model, config.optim), Horizon(end_step=1_000_000))
    mix = build_mix(config.data)
    task = build_task(config.objective).to(device)
    settings = StepSettings(task, config.optim, precision, seed=0, mix=mix, num_parts=config.train.accumulate)
    images, labels = _random_batch(config, device)
    return len(images) / _median_s(lambda: train_step(state, images, labels, settings))


def evaluation_images_per_s(config: RunConfig) -> float:
    """Images per second of the forward pass alone."""
    device, precision = _resolve(config)
    model = build_model(config.model, device=device).eval()
    images, _ = _random_batch(config, device)

    def forward() -> None:
        with torch.inference_mode(), autocast(device, precision):
            model(images).float().cpu()

    return len(images) / _median_s(forward)


def _resolve(config: RunConfig) -> tuple[torch.device, str]:
    device = resolve_device(config.train.device)
    return device, resolve_precision(config.train.precision, device)


def _random_batch(config: RunConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (config.data.batch_size, config.data.in_chans, *config.data.img_size)
    labels = torch.randint(config.data.num_classes, shape[:1], generator=generator)
    return torch.randn(shape, generator=generator).to(device), labels.to(device)


def _median_s(work: Callable[[], object]) -> float:
    """Median seconds of `work`; each call must wait for its own result."""
    work()
    seconds: list[float] = []
    while sum(seconds) < MEASURED_S or (len(seconds) < 3 and sum(seconds) < SLOW_S):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[len(seconds) // 2]
