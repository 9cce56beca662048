"""This installation and machine -> what it has, how fast it multiplies, and what is slow with the way out."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from PIL import Image, features

from vitreous import processes
from vitreous.data.pixels.store import machine_memory_bytes
from vitreous.file_locks import locked_file
from vitreous.paths import cache_folder_of
from vitreous.training.machine.device import (
    describe_hardware,
    describe_software,
    float32_products,
    has_native_bf16,
    has_tf32,
    resolve_device,
    resolve_precision,
)
from vitreous.training.measure.speed import median_s
from vitreous.wording import plural

_SIDES = {"cpu": 1024, "cuda": 8192, "mps": 4096}
"""Rows and columns of the matrices that are multiplied, by type of device; large enough to keep it busy."""
_MEASURED_S = 0.5
_LEAST_MEMORY, _LEAST_DISK = 4e9, 10e9
_CODECS = {"JPEG": "jpg", "PNG": "zlib", "WebP": "webp", "AVIF": "avif", "JPEG 2000": "jpg_2000", "TIFF": "libtiff"}
_OPTIONAL = ("simplejpeg", "pyarrow", "huggingface_hub", "fastapi", "onnxruntime", "openvino", "tifffile", "ray")


def describe_environment() -> dict[str, Any]:
    """Return what the machine and the installation have, as values that JSON can hold; the speeds are measured.

    Returns:
        Sections of values by name, and in `slow` a sentence on each thing that slows training, with the way out.
    """
    device = resolve_device("auto")
    cache = cache_folder_of("").absolute()
    found: dict[str, Any] = {
        "software": describe_software() | {"torch_build": _build()},
        "hardware": describe_hardware(device) | {"usable_cpus": processes.usable_cores()},
        "instructions": {
            "vector": torch.backends.cpu.get_cpu_capability(),
            "bf16": bool(torch.cpu._is_avx512_bf16_supported()),
            "amx": bool(torch.cpu._is_amx_tile_supported()),
        },
        "gpus": [_gpu(number) for number in range(torch.cuda.device_count())],
        "mps": torch.backends.mps.is_available(),
        "memory": {"total_bytes": machine_memory_bytes(), "available_bytes": _available_bytes()},
        "cache": {"folder": str(cache), **_disk(cache)},
        "runs": {"folder": str(Path.cwd()), **_disk(Path.cwd()), "has_locks": _has_locks()},
        "codecs": {name: bool(features.check(feature)) for name, feature in _CODECS.items()}
        | {"HEIC": ".heic" in Image.registered_extensions()},
        "packages": {name: _version(name) for name in _OPTIONAL},
        "precision": resolve_precision("auto", device),
        "products_per_s": {
            name: {precision: products_per_s(torch.device(name), precision) for precision in _precisions(name)}
            for name in dict.fromkeys(("cpu", device.type))
        },
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    return found | {"slow": list(find_slow(found))}


def products_per_s(device: torch.device, precision: str) -> float:
    """Measure how many multiplications and additions per second a product of two square matrices makes."""
    side, dtype = _SIDES[device.type], torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    with torch.inference_mode(), float32_products(precision):
        return side**3 / median_s(lambda: float((a @ b)[0, 0]), _MEASURED_S, slow_s=_MEASURED_S)


def find_slow(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence on each thing that slows training or gets in its way, and what to do about it.

    `found` is what `describe_environment` finds out.
    """
    yield from _slow_device(found)
    yield from _slow_cores(found)
    memory, cache, runs = found["memory"], found["cache"], found["runs"]
    if memory["available_bytes"] is not None and memory["available_bytes"] < _LEAST_MEMORY:
        yield (
            f"memory={memory['available_bytes'] / 1e9:.1f} GB available: larger models are trained in micro-batches; "
            "close other programs"
        )
    if not cache["is_writable"]:
        yield (
            f"cache={cache['folder']}: cannot be written, so every run decodes all images again; set VITREOUS_CACHE to "
            "another folder"
        )
    elif cache["free_bytes"] < _LEAST_DISK:
        yield (
            f"cache={cache['folder']}: {cache['free_bytes'] / 1e9:.1f} GB are free, and decoded images may need more; "
            "free some space, or set VITREOUS_CACHE to another folder"
        )
    if not runs["is_writable"]:
        yield f"runs={runs['folder']}: cannot be written; change to another folder, or train with --out"
    elif not runs["has_locks"]:
        yield f"runs={runs['folder']}: has no file locks; make sure that no two processes write to the same run"
    if not features.check_feature("libjpeg_turbo"):
        yield "pillow: decodes JPEG without libjpeg-turbo, several times slower; install Pillow's own wheel"
    if found["packages"]["simplejpeg"] is None:
        yield "simplejpeg: not installed; it decodes small JPEG files faster; run `pip install 'vitreous[fast-jpeg]'`"


def _slow_device(found: Mapping[str, Any]) -> Iterator[str]:
    torch_build, version, speeds = found["software"]["torch_build"], found["software"]["torch"], found["products_per_s"]
    if found["gpus"] or found["mps"]:
        return
    has_driver = shutil.which("nvidia-smi") is not None
    if has_driver and torch_build == "cpu":
        yield f"torch={version}: is a build for CPUs, and the machine has an NVIDIA driver; install a CUDA build"
    elif has_driver:
        yield f"torch={version}: finds no GPU, although there is an NVIDIA driver; see what nvidia-smi says"
    cpu = speeds["cpu"]
    if not has_native_bf16(torch.device("cpu")):
        yield (
            "precision=fp32: this processor has no bf16 instructions, with which training is about twice as fast; use "
            "one with AMX or AVX-512 BF16, or a GPU"
        )
    elif cpu["bf16"] < cpu["fp32"]:
        yield (
            f"precision=bf16: multiplies {cpu['fp32'] / cpu['bf16']:.1f} times slower than fp32 here; compare a short "
            "run with --precision fp32"
        )


def _slow_cores(found: Mapping[str, Any]) -> Iterator[str]:
    hardware, load = found["hardware"], found["load"]
    cores, threads = hardware["usable_cpus"], hardware["threads"]
    if cores < hardware["cpus"]:
        yield (
            f"cores={cores}: of {hardware['cpus']}, because of the affinity of this process or a limit of its "
            "container; raise the limit, such as `docker run --cpus`"
        )
    if threads > cores:
        yield f"threads={threads}: more than the {plural(cores, 'usable core')}; set OMP_NUM_THREADS={cores}"
    elif 2 * threads < cores:
        cause = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}" if "OMP_NUM_THREADS" in os.environ else "torch"
        yield f"threads={threads}: {cause} leaves most of {cores} cores unused; set OMP_NUM_THREADS={cores}"
    if load is not None and load > cores + 0.5:
        yield (
            f"load={load:.1f}: other programs use the {plural(cores, 'core')} too, so training and the speeds here are "
            "slower; stop them, and measure again"
        )


def _build() -> str:
    if torch.version.cuda:
        return f"cuda {torch.version.cuda}"
    return f"rocm {torch.version.hip}" if torch.version.hip else "cpu"


def _gpu(number: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(number)
    return {"name": properties.name, "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}"}  # fmt: skip


def _precisions(device: str) -> list[str]:
    """Return the precisions in which matrices are multiplied on a device; bf16 also where it is only emulated."""
    return ["fp32", *(["tf32"] if has_tf32(torch.device(device)) else []), "bf16"]


def _available_bytes() -> int | None:
    """Return the memory that is free or can be freed at once; None if the system does not say."""
    with suppress(OSError, ValueError), Path("/proc/meminfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, machine_memory_bytes())
    return None


def _disk(folder: Path) -> dict[str, Any]:
    """Return the free space where a folder is or would be, and whether it can be written."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return {"free_bytes": shutil.disk_usage(there).free, "is_writable": os.access(there, os.W_OK)}


def _has_locks() -> bool:
    with (
        suppress(OSError),
        tempfile.TemporaryDirectory(prefix=".vitreous-", dir=Path.cwd()) as place,
        locked_file(Path(place) / "lock") as is_locked,
    ):
        return is_locked
    return False


def _version(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
