"""What torchrun or `--nproc` tells a process by its environment -> its place among those that work on one run.

Alone, without either, it is the first of one. Nothing here loads torch.
"""

import os


def is_launched() -> bool:
    """Whether torchrun or `--nproc` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def count() -> int:
    """Processes on all machines, this one included."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this one is, from 0."""
    return _number("RANK", 0)


def local_count() -> int:
    """Processes on this machine: they share its memory and cores."""
    return _number("LOCAL_WORLD_SIZE", 1)


def local_rank() -> int:
    """Which of those this one is, from 0; the number of its GPU."""
    return _number("LOCAL_RANK", 0)


def restarts() -> int:
    """How often the group was started again because one of its processes failed."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use; its affinity can allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _number(name: str, alone: int) -> int:
    # Other launchers set names such as WORLD_SIZE too, and do not mean that processes shall find each other by torch.
    return int(os.environ.get(name, alone)) if is_launched() else alone
