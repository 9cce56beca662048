"""RunConfig -> the share of this machine's memory that its training step takes, without taking any."""

import math
from dataclasses import replace

import torch

from vitreous import processes
from vitreous.data.pixels.store import machine_memory_bytes
from vitreous.model.cost.count import count_parameters
from vitreous.model.cost.memory import activation_bytes
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.device import resolve_device, resolve_precision
from vitreous.training.step.curriculum import is_linear_probe

OPTIMIZER_TENSORS = {"adamw": 2.0, "lion": 1.0, "lamb": 2.0, "adafactor": 1.0, "muon": 1.0, "schedule_free": 2.0}
"""Numbers that an optimiser keeps for each weight, about."""
ON_CPU, ELSEWHERE = 1.35, 1.1
"""What an allocator takes for a byte that is asked for: glibc's up to a third more, CUDA's little."""
_BYTES = 4


def memory_share(config: RunConfig) -> float:
    """Weights, their gradients, average and moments, and the activations of a batch, as a share of the memory.

    The memory is all that the device or this container has, so that the same machine always gives the same answer.
    Other models that run beside, a teacher's, are not counted. A backbone that is never trained keeps nothing for a
    backward, and is counted as if it were computed again, block by block.
    """
    device = resolve_device(config.train.device)
    precision = resolve_precision(config.train.precision, device)
    num_images = math.ceil(config.data.batch_size / (processes.count() * config.train.micro_batches))
    weights = _BYTES * count_parameters(config.model) * (3 + OPTIMIZER_TENSORS[config.optim.name])
    if config.train.parallel == "fsdp":
        weights /= processes.count()
    keeps_patches = config.train.patch_drop_until < 1  # in the end, where it drops some at first
    activations = activation_bytes(
        replace(config.model, patch_drop_rate=0.0) if keeps_patches else config.model,
        num_images,
        precision=precision,
        device_type=device.type,
        kernel=config.train.kernel,
        grad_checkpointing=config.train.grad_checkpointing or is_linear_probe(config),
    )
    return (weights + (ON_CPU if device.type == "cpu" else ELSEWHERE) * activations) / _memory_bytes(device)


def _memory_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return machine_memory_bytes() / processes.local_count()
