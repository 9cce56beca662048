"""A wish ("auto", "cpu", "cuda:1"; "auto", "fp32", "bf16") -> the device and precision that a run uses."""

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from vitreous.errors import ConfigError, nearest

PRECISIONS = ("fp32", "bf16")


def resolve_device(wish: str) -> torch.device:
    """Choose the device: `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        ConfigError: The name is no device, or the machine has none of that kind.
    """
    if wish == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = wish.partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in counts or (index and not index.isdecimal()):
        raise ConfigError(f"device={wish}: no such device; {nearest(kind, [*counts, 'auto'])}")
    if int(index or 0) >= counts[kind]:
        raise ConfigError(f"device={wish}: this machine has {counts[kind]} of kind {kind}; use auto or cpu")
    return torch.device(wish)


def resolve_precision(wish: str, device: torch.device) -> str:
    """Choose the arithmetic of matrix products: `auto` takes bf16 exactly where the hardware multiplies it natively.

    Where a CPU has no bf16 instructions, autocast emulates them and is slower than fp32; where it has, a training step
    is about twice as fast. The rule reads the processor's features instead of a stopwatch, so that the same seed on the
    same machine always gives the same weights.

    Raises:
        ConfigError: The name is no precision.
    """
    if wish == "auto":
        return "bf16" if _multiplies_bf16(device) else "fp32"
    if wish not in PRECISIONS:
        raise ConfigError(f"train.precision={wish}: no such precision; {nearest(wish, [*PRECISIONS, 'auto'])}")
    return wish


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """A context in which matrix products run in `precision`; weights and sums stay float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe_hardware(device: torch.device) -> dict[str, str | int]:
    """What a record says of the machine: device, processor, threads, library versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor_name()
    return {
        "device": str(device),
        "device_name": name,
        "cpus": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def _processor_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
