"""Before torch is loaded -> threads that wait for each other only briefly in a busy loop, then sleep."""

import os

SPINS = 6000
"""Turns of the waiting loop, about a tenth of a millisecond: longer than most waits on a quiet machine."""


def let_threads_sleep() -> None:
    """Ask GNU OpenMP, which torch uses on Linux, for short busy waits, unless the user has set how threads wait.

    By default a thread that waits spins for long. On a machine that does something else besides, the thread that is
    waited for has lost its core to the loop of the one that waits, and training of small models is many times slower.
    Sleeping at once instead halves the speed of the smallest models on a quiet machine. A short loop keeps both
    (`benchmarks/threads.py`).

    OpenMP reads its settings once, when torch is loaded: later calls change nothing.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
