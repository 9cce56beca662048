"""A function without arguments -> its calls/s and memory; a device -> the peak speed of its matrix products."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

SIDES = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices whose product gives the peak speed, by device type."""

Work = Callable[[], object]


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all launched work."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def calls_per_s(work: Work, seconds: float, device: torch.device) -> float:
    """Call `work` for about this long, at least once, and return the calls per second."""
    wait_for(device)
    began, count = time.perf_counter(), 0
    while time.perf_counter() < began + seconds or not count:
        work()
        count += 1
    wait_for(device)
    return count / (time.perf_counter() - began)


def product_flops_per_s(device: torch.device, precision: str, seconds: float) -> float:
    """Measure the FLOP/s of a large square matrix product in this precision."""
    side, dtype = SIDES.get(device.type, 2048), torch.float32 if precision == "fp32" else torch.bfloat16
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.mm(left, right)
    return 2 * side**3 * calls_per_s(lambda: torch.mm(left, right, out=out), seconds, device)


def working_memory_mib(work: Work, device: torch.device) -> float | None:
    """Return the peak memory of one call minus the memory before it; None if the system does not report it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)
    if sys.platform != "linux" or device.type != "cpu":
        return None
    trim = getattr(
        ctypes.CDLL(None), "malloc_trim", None
    )  # glibc: return freed memory to the system, so that it counts again
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak of resident memory
    before = _resident_kib("VmRSS")
    work()
    return round((_resident_kib("VmHWM") - before) / 1024, 1)


def _resident_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
