"""Requested device and precision ("auto", "cuda:1"; "auto", "bf16") -> the device and precision that a run uses."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path

import torch

from vitreous import processes
from vitreous.errors import ConfigError, nearest
from vitreous.recipe.run_config import TrainConfig
from vitreous.version import __version__
from vitreous.wording import plural

PRECISIONS = ("fp32", "tf32", "bf16")
"""Precisions of matrix products. With `tf32` every tensor is float32, but a product may round its factors: to TF32 on a
GPU; on a CPU to whatever oneDNN uses (bf16 on a CPU with AMX)."""


def resolve_device(requested: str) -> torch.device:
    """Choose the device: `auto` takes CUDA if there is any, else Apple's MPS, else the CPU.

    If several processes run on this machine, each takes its own GPU. None of them takes MPS, because a Mac has one.

    Raises:
        ConfigError: The name is not a device, the machine has no such device, or fewer GPUs than processes.
    """
    if processes.is_launched() and processes.count() > 1:
        return _device_of_process(requested)
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if requested == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if counts["mps"] else "cpu")
    kind, colon, index = requested.partition(":")
    if kind == "gpu":
        advice = "use cuda" if counts["cuda"] else "use mps" if counts["mps"] else (
            "a GPU is called cuda, but PyTorch finds no CUDA device on this machine; use auto or cpu")  # fmt: skip
        raise ConfigError(f"device={requested}: no such device; {advice}")
    if kind not in counts or (colon and not re.fullmatch("0|[1-9][0-9]*", index)):
        raise ConfigError(f"device={requested}: no such device; {nearest(kind, [*counts, 'auto'])}")
    count = counts[kind]
    if int(index or 0) >= count:
        found = plural(count, f"{kind.upper()} device") if count else f"no {kind.upper()} device"
        numbers = f"{kind}:0" if count == 1 else f"{kind}:0 to {kind}:{count - 1}"
        raise ConfigError(
            f"device={requested}: PyTorch finds {found} on this machine; use {numbers if count else 'auto or cpu'}"
        )
    return torch.device(requested)


def _device_of_process(requested: str) -> torch.device:
    """Choose the device of one process among several on this machine."""
    num_processes, num_gpus = processes.local_count(), torch.cuda.device_count()
    if requested == "cpu" or (requested == "auto" and not num_gpus):
        return torch.device("cpu")
    if requested not in ("auto", "cuda"):
        raise ConfigError(
            f"device={requested}: {num_processes} processes cannot share one device; use auto, cuda or cpu"
        )
    if num_processes > num_gpus:
        fewer = f"start {plural(num_gpus, 'process', 'processes')}, or " if num_gpus else ""
        raise ConfigError(
            f"device={requested}: {num_processes} processes need a GPU each, and PyTorch finds "
            f"{plural(num_gpus, 'GPU')}; {fewer}use cpu"
        )
    return torch.device("cuda", processes.local_rank())


def resolve_precision(requested: str, device: torch.device) -> str:
    """Choose the precision of matrix products: `auto` takes bf16 if the hardware multiplies it natively, else fp32.

    A CPU without bf16 instructions emulates them, and is slower than with fp32. With them, a training step is about
    twice as fast. The choice depends on the processor's features and not on a measurement, so the same seed on the same
    machine always gives the same weights.

    Raises:
        ConfigError: The name is not a precision, or it is `tf32` and the device has no faster float32 product.
    """
    if requested == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if requested not in PRECISIONS:
        raise ConfigError(
            f"train.precision={requested}: no such precision; {nearest(requested, [*PRECISIONS, 'auto'])}"
        )
    if requested == "tf32" and not has_tf32(device):
        raise ConfigError(f"train.precision=tf32: {device} has no faster float32 product; use auto or fp32")
    return requested


def precision_of(train: TrainConfig) -> str:
    """Return the precision in which a run computes on its device. Raises ConfigError like `resolve_precision`."""
    return resolve_precision(train.precision, resolve_device(train.device))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return a context in which a forward pass multiplies matrices in `precision`; weights and sums stay float32."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return float32_products(precision)


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Let float32 products round their factors inside this context if `precision` is `tf32`.

    A backward pass needs this too. It does not need `autocast`, because it repeats the types of its forward pass.
    """
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
def deterministic(enabled: bool) -> Iterator[None]:
    """Use only deterministic kernels inside this context; slower on a GPU, no effect on a CPU.

    Raises:
        RuntimeError: Raised by PyTorch if an operation has no deterministic kernel.
    """
    if not enabled:
        yield
        return
    was_enabled = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    was_benchmark = torch.backends.cudnn.benchmark
    # cuBLAS reads this variable when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_enabled, warn_only=only_warned)
        torch.backends.cudnn.benchmark = was_benchmark


def describe_software() -> dict[str, str | None]:
    """Return the versions of vitreous and its main dependencies, and the git revision of this code."""
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "pillow", "safetensors")}
    return {"vitreous": __version__, **versions, "git_revision": _git_revision()}


def _git_revision() -> str | None:
    """Return the revision, such as `1a2b3c4d…`, with `+` if files were changed; None outside a git checkout."""
    file = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # fails if the checkout around this installation is another one
        return git("describe", "--always", "--abbrev=40", "--dirty=+")
    except (OSError, subprocess.SubprocessError):
        return None


def describe_hardware(device: torch.device) -> dict[str, str | int]:
    """Return what a record says about the machine: device, processor, number of threads, versions."""
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


def has_native_bf16(device: torch.device) -> bool:
    """Return True if the device has instructions that multiply bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def has_tf32(device: torch.device) -> bool:
    """Return True if the device has products of float32 matrices that round their factors and are faster."""
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
