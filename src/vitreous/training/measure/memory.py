"""RunConfig -> the share of this machine's memory that a training step needs, estimated without allocating any."""

import math
from dataclasses import replace

import torch

from vitreous import processes
from vitreous.data.pixels.store import machine_memory_bytes
from vitreous.model.cost.count import count_parameters
from vitreous.model.cost.memory import activation_bytes
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.device import precision_of, resolve_device
from vitreous.training.step.curriculum import is_linear_probe

OPTIMIZER_TENSORS = {"adamw": 2.0, "lion": 1.0, "lamb": 2.0, "adafactor": 1.0, "muon": 1.0, "schedule_free": 2.0}
"""Approximate number of values that an optimizer stores per weight."""
ON_CPU, ELSEWHERE = 1.35, 1.1
"""Bytes that an allocator takes per requested byte: up to a third more with glibc, little more with CUDA."""
_BYTES = 4


def memory_share(config: RunConfig) -> float:
    """Estimate the share of the memory that a training step needs.

    Counted are the weights, gradients, average and optimizer moments, and the activations of a micro-batch. A backbone
    that is never trained stores no activations for the backward pass; it is counted as if it used gradient
    checkpointing. A teacher is not counted. The memory is that of the device, or of this container, used or not, so
    that the same machine always gives the same answer.
    """
    device = resolve_device(config.train.device)
    num_images = math.ceil(config.data.batch_size / (processes.count() * config.train.micro_batches))
    weights = _BYTES * count_parameters(config.model) * (3 + OPTIMIZER_TENSORS[config.optim.name])
    if config.train.parallel == "fsdp":
        weights /= processes.count()
    drop_rate = config.model.patch_drop_rate if config.train.patch_drop_until == 1 else 0.0  # a step is largest later
    if config.objective.loss == "mae":
        drop_rate = config.objective.mask_ratio
    activations = activation_bytes(
        replace(config.model, patch_drop_rate=drop_rate),
        num_images,
        precision=precision_of(config.train),
        device_type=device.type,
        kernel=config.train.kernel,
        grad_checkpointing=config.train.grad_checkpointing or is_linear_probe(config),
    )
    needed = weights + (ON_CPU if device.type == "cpu" else ELSEWHERE) * activations
    return needed / _memory_bytes(device)


def _memory_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return machine_memory_bytes() / processes.local_count()
