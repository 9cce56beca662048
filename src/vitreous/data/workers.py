"""Independent items -> their results, in order, by a few threads.

Pillow and file reads release the interpreter lock, so threads scale with the cores and need no pickling.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

from vitreous import processes

Result = TypeVar("Result")
Part = TypeVar("Part")
Progress = Callable[[int, int], None]
"""Called with (done, total) now and then, and at the end."""

# One hand-over to a thread costs about as much as reading one small image: hand over several at a time, but leave every
# thread its part of a batch, and call `progress` often enough.
_MOST_ITEMS_PER_TASK = 64
_TASKS_PER_THREAD = 8


def map_in_order(work: Callable[[int], Result], count: int, progress: Progress | None = None) -> list[Result]:
    """`[work(0), …, work(count − 1)]`, computed by as many threads as there are cores.

    The first exception, Ctrl-C included, ends the rest quickly and is raised.

    Args:
        work: One item's work; must be safe to call from several threads.
        count: How many items.
        progress: Called with (done, total).

    Returns:
        The results in order, `count` of them.
    """
    size = max(1, min(_MOST_ITEMS_PER_TASK, count // (num_threads() * _TASKS_PER_THREAD)))
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    results: list[Result] = []
    pool = ThreadPoolExecutor(num_threads(), thread_name_prefix="vitreous-data")
    try:
        for part in pool.map(lambda part: [work(item) for item in part], parts):
            results.extend(part)
            if progress is not None:
                progress(len(results), count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results


def compute_parts(work: Callable[[Part], object], parts: Sequence[Part]) -> None:
    """Do work made of many small operations of PyTorch on all parts, each in one thread.

    PyTorch's own threads share each operation, which gains little where one takes microseconds; ours share the parts.
    """
    if len(parts) == 1 or torch.get_num_threads() == 1:
        for part in parts:
            work(part)
        return
    pool = _single_threads(torch.get_num_threads())
    for begun in [pool.submit(work, part) for part in parts]:
        begun.result()


@cache
def _single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in each of which PyTorch computes by itself."""
    started = Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)  # for this thread, and for those that ask from now on: that is taken back below
        torch.get_num_threads()  # asked once, a thread keeps its number
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="vitreous-compute")
    for _ in range(count):
        pool.submit(start)
    started.wait()
    torch.set_num_threads(count)
    return pool


def num_threads() -> int:
    """How many threads read images: one a core, of those that this process may use or its part of them, at most 16."""
    return max(1, min(processes.usable_cores() // processes.local_count(), 16))
