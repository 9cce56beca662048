"""glibc's allocator -> one that keeps freed memory, so that training steps do not request it from the system again."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameter numbers of `mallopt(3)`."""
_SETTINGS = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0}
_ENVIRONMENT = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Make glibc's malloc keep freed memory in the process, unless the user has configured malloc.

    By default glibc maps every large tensor when it is created and unmaps it when it is freed. The system then provides
    and clears each page again in every step: tens of thousands of page faults, a tenth of the time of a step on a CPU.
    With this setting the pages stay mapped. Peak memory does not change, but the process holds it until it ends
    (`benchmarks/heap.py`).

    Returns:
        True if the setting was made; False if environment variables configure malloc, or without glibc.
    """
    if sys.platform != "linux" or any(name.startswith(_ENVIRONMENT) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in _SETTINGS.items())
