"""Environment variables of torchrun or `--nproc` -> this process's rank, and how many processes share the run.

Without a launcher there is one process, of rank 0. Nothing here imports torch.
"""

import math
import os
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_limits: list[int] = []


def is_launched() -> bool:
    """Return True if torchrun or `--nproc` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def count() -> int:
    """Return the world size: the number of processes on all machines."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Return this process's rank among all processes, from 0."""
    return _number("RANK", 0)


def local_count() -> int:
    """Return the number of processes on this machine; they share its memory and cores."""
    return _number("LOCAL_WORLD_SIZE", 1)


def local_rank() -> int:
    """Return this process's rank on this machine, from 0; it is also the number of its GPU."""
    return _number("LOCAL_RANK", 0)


def restarts() -> int:
    """Return how often the process group was restarted because a process failed."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use: its affinity or its container can allow fewer."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([found, *_limits, *_container_cores()])


def limit_cores(count: int) -> None:
    """Let `usable_cores` return at most `count` in this process, which shares the machine with processes like it."""
    _limits.append(count)


def _container_cores() -> list[int]:
    """Return the cores whose time the container may use, rounded up; nothing without such a limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # versions 2 and 1 of cgroups
        with suppress(OSError, ValueError):  # no such file; or "max", which is no limit
            quota, period = map(int, " ".join((_CGROUP / name).read_text() for name in files).split())
            return [math.ceil(quota / period)] if quota > 0 and period > 0 else []
    return []


def _number(name: str, default: int) -> int:
    # Other launchers also set names like WORLD_SIZE, but do not intend the processes to form a torch process group.
    return int(os.environ.get(name, default)) if is_launched() else default
