"""glibc's allocator -> one that keeps what was freed, so that a training step takes no pages from the system anew."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Of `mallopt(3)`."""
_SETTINGS = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0}
_ENVIRONMENT = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Ask glibc's malloc not to give freed memory back to the system, unless the user has set how it behaves.

    By default every large tensor is mapped when it is made and unmapped when it is freed, and the system hands out, and
    clears, each of its pages again in each step: tens of thousands of page faults, a tenth of the time of a step on a
    CPU. Kept, they are there. The most that a process holds stays what it was; it holds it until it ends
    (`benchmarks/heap.py`).

    Returns:
        Whether it was asked: False where the user has set it, and where the C library has no such setting.
    """
    if sys.platform != "linux" or any(name.startswith(_ENVIRONMENT) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in _SETTINGS.items())
