"""Environment, before torch is imported -> OpenMP threads that spin briefly while they wait, then sleep."""

import os
import sys

SPINS = 6000
"""Iterations of the waiting loop, about 0.1 ms: longer than most waits on an idle machine."""


def let_threads_sleep() -> bool:
    """Limit how long waiting threads spin, unless the user has set OMP_WAIT_POLICY or GOMP_SPINCOUNT.

    Call this before torch is imported: GNU OpenMP, which torch uses on Linux, reads its settings only then.

    By default a waiting thread spins for a long time. If other programs use the machine too, a spinning thread takes
    the core of the thread that it waits for, and training small models becomes many times slower. Sleeping immediately
    instead halves the speed of the smallest models on an idle machine. A short spin avoids both
    (`benchmarks/threads.py`).

    Returns:
        True if torch is not imported yet, so that the setting has an effect on this process.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    return "torch" not in sys.modules
