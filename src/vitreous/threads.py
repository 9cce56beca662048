"""Before torch is loaded -> threads that sleep while they wait for each other."""

import os


def let_threads_sleep() -> None:
    """Ask OpenMP to put a thread that waits for the others to sleep, unless the user has chosen otherwise.

    By default threads wait in a busy loop. On a machine that does something else besides, the thread that is waited for
    has lost its core to the loop of the one that waits: measured on two cores with two other busy processes, training
    steps of three small models ran 14 to 50 times slower than with sleeping threads (`benchmarks/threads.py`).

    OpenMP reads its settings once, when torch is loaded: later calls change nothing.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
