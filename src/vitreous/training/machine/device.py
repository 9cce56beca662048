"""A wish ("auto", "cpu", "cuda:1"; "auto", "fp32", "bf16") -> the device and precision that a run uses."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path

import torch

from vitreous import processes
from vitreous.errors import ConfigError, nearest

PRECISIONS = ("fp32", "tf32", "bf16")
"""Of matrix products. With `tf32` all is float32, but a product may round its factors: to TF32 on a GPU, on a CPU as
oneDNN does it (to bf16 where there is AMX)."""


def resolve_device(wish: str) -> torch.device:
    """Choose the device: `auto` takes CUDA, else Apple's MPS, else the CPU.

    Of several processes on a machine each takes a GPU of its own, and none takes MPS: a Mac has one.

    Raises:
        ConfigError: The name is no device, the machine has none of that kind, or not one for each process.
    """
    if processes.is_launched() and processes.count() > 1:
        return _own_device(wish)
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


def _own_device(wish: str) -> torch.device:
    """This process's of several."""
    num, num_gpus = processes.local_count(), torch.cuda.device_count()
    if wish == "cpu" or (wish == "auto" and not num_gpus):
        return torch.device("cpu")
    if wish not in ("auto", "cuda"):
        raise ConfigError(f"device={wish}: cannot be shared by {num} processes; use auto, cuda or cpu")
    if num > num_gpus:
        raise ConfigError(f"device={wish}: {num} processes for {num_gpus} GPUs; start one for each, or use cpu")
    return torch.device("cuda", processes.local_rank())


def resolve_precision(wish: str, device: torch.device) -> str:
    """Choose the arithmetic of matrix products: `auto` takes bf16 exactly where the hardware multiplies it natively.

    Where a CPU has no bf16 instructions, autocast emulates them and is slower than fp32; where it has, a training step
    is about twice as fast. The rule reads the processor's features instead of a stopwatch, so that the same seed on the
    same machine always gives the same weights.

    Raises:
        ConfigError: The name is no precision, or `tf32` where all float32 products are the same.
    """
    if wish == "auto":
        return "bf16" if _multiplies_bf16(device) else "fp32"
    if wish not in PRECISIONS:
        raise ConfigError(f"train.precision={wish}: no such precision; {nearest(wish, [*PRECISIONS, 'auto'])}")
    if wish == "tf32" and not _may_round_factors(device):
        raise ConfigError(f"train.precision=tf32: {device} has no faster product of float32; use auto or fp32")
    return wish


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """A context for a forward, in which matrix products run in `precision`; weights and sums stay float32."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return float32_products(precision)


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """While it lasts, float32 is multiplied as `precision` says; for a backward, which repeats its forward's types."""
    if precision != "tf32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def repeatable(wish: bool) -> Iterator[None]:
    """While it lasts, an accelerator adds up in the same order each time, which is slower; a CPU does so anyhow.

    Raises:
        RuntimeError: PyTorch's own, in a step that has no such form.
    """
    if not wish:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    # Read by cuBLAS when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def describe_software() -> dict[str, str | None]:
    """Versions of what a run rests on, and the revision of this code where it lies in a git checkout."""
    versions = {name: metadata.version(name) for name in ("vitreous", "torch", "numpy", "pillow", "safetensors")}
    return versions | {"git_revision": _git_revision()}


def _git_revision() -> str | None:
    """Such as `1a2b3c4d…`, with `+` where files differ from it; None where this code is in no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


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


def _may_round_factors(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    has_onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _processor_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
